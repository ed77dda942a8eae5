"""From a prepared set to what the net sees: raw 0-255 pixels minus the training-set mean image (sections 2 and 4.1).

A batch is a function of (seed, epoch, step) alone: float (N, 3, H, W) in channels_last layout, never divided by 255, and
labels int64 (N,). Every image gets the same bits whatever the batch size and on whatever device.
"""

import os
import sys
import weakref
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from alexnet import randomness
from alexnet.config import Augmentation
from alexnet.preprocessing.augment import Views, colour_axes, draw_colours, draw_views, fixed_views, margin
from alexnet.preprocessing.prepared_set import PreparedSet

ViewsName = Literal["whole", "central", "ten", "grid"]
Part = tuple[int, int]  # (r, R): the rows that replica r of R takes of every batch
WHOLE: Part = (0, 1)
BAND = 48  # lines flipped at once: fewer than 2**15 numbers of a crop of 227, for more torch starts threads


def rows_of(total: int, part: Part) -> slice:
    """Return the rows of a batch of `total` images that belong to a part: equal shares, within one image."""
    own, parts = part
    return slice(own * total // parts, (own + 1) * total // parts)


class Batches:
    """Batches of one split, shown as `augmentation` says (None: whole), made on `device`; images stay on disk until then."""

    def __init__(
        self, data: PreparedSet, split: str, augmentation: Augmentation | None, device: torch.device | None = None
    ) -> None:
        self.images, self.mean = data.splits[split].images, np.ascontiguousarray(data.mean, np.float32)
        self.labels = torch.from_numpy(data.splits[split].labels)
        self.is_whole, self.device = augmentation is None, torch.device(device or "cpu")
        self.augmentation = augmentation or Augmentation(crop_side=len(self.mean), random=False, noise=0.0)
        self.axes = colour_axes(data.covariance)
        self._free: dict[int, list[np.ndarray]] = {}  # memory of batches of N images that nobody holds any more
        margin(self.augmentation, len(self.mean))  # Why: crops that are too large are an error at once

    def __len__(self) -> int:
        return len(self.labels)

    def epoch(
        self, seed: int, epoch: int, batch_size: int, first_step: int = 0, colour_noise: bool = True, part: Part = WHOLE
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the shuffled batches of `epoch` from `first_step` on, or this part's rows; the next is prefetched."""
        order = randomness.generator(seed, "batch-order", epoch).permutation(len(self))

        def made() -> Iterator[tuple[Tensor, Tensor]]:
            if sys.platform == "linux" and self.device.type == "cpu" and isinstance(self.images, np.ndarray):
                # Why: the net's threads wait for the slowest of them, and here a thread has a priority of its own.
                os.setpriority(os.PRIO_PROCESS, 0, 19)
            for start in range(first_step * batch_size, len(self), batch_size):
                places = np.arange(start, min(start + batch_size, len(self)))
                places = places[rows_of(len(places), part)]
                yield self.shown(order[places], places, seed, epoch, colour_noise), self.labels[order[places]]

        return prefetched(made(), self.device)

    def in_order(
        self, batch_size: int, views: ViewsName = "central", part: Part = WHOLE
    ) -> Iterator[tuple[list[Tensor], Tensor]]:
        """Yield (views, labels) of every image once, or of every R-th batch, in the set's order. Paper 4.1 and 6.

        No noise and no division. Raises ValueError for views of a set that is shown whole, and the reverse.
        """
        if (views == "whole") != self.is_whole:
            shown = "whole" if self.is_whole else "in crops"
            raise ValueError(f"`views` (={views!r}) do not fit images that the net sees {shown}")
        fixed = fixed_views(self.augmentation, len(self.mean), "central" if self.is_whole else views)
        for start in range(part[0] * batch_size, len(self), part[1] * batch_size):
            numbers = np.arange(start, min(start + batch_size, len(self)))
            pixels = self._read(numbers)  # Why here: JPEGs are decoded once for all views
            each = (Views(*np.full((len(numbers), 3), view).T) for view in fixed)
            yield [crop(pixels, v, self.mean, self.augmentation, out=self._empty(v)) for v in each], self.labels[numbers]

    def shown(self, indices: np.ndarray, places: np.ndarray, seed: int, epoch: int, colour_noise: bool = True) -> Tensor:
        """Return the images at `indices` as the net sees them at `places` of `epoch`: one view each, with colour noise."""
        # Source 2012: without noise, images are not divided either: by 1 plus its sd, then 0 (convdata_jpeg.py:179).
        how = self.augmentation if colour_noise else replace(self.augmentation, noise=0.0)
        views = draw_views(how, len(self.mean), seed, epoch, places)
        colours = draw_colours(self.axes, how, seed, epoch, places)
        if self.device.type == "cuda":
            return crop(self._read(indices), views, self.mean, how, colours)
        x_NHWC = self._empty(views)
        # Why one: Python's lock lets two threads crop raw pixels no faster, and they take twice as much CPU from the net.
        threads = 1 if isinstance(self.images, np.ndarray) else torch.get_num_threads()

        def write(own: int) -> None:
            rows = rows_of(len(indices), (own, threads))
            pixels = (self.images[i] for i in indices[rows].tolist())  # Why so: of a mapped array only the crops are read
            noise = None if colours is None else colours[rows]
            crop(pixels, Views(*(column[rows] for column in views)), self.mean, how, noise, x_NHWC[rows])

        with ThreadPoolExecutor(threads) as pool:
            list((pool.map if threads > 1 else map)(write, range(threads)))
        return torch.from_numpy(x_NHWC).permute(0, 3, 1, 2)

    def _empty(self, views: Views) -> np.ndarray:
        # Why not np.empty: fresh pages cost several times what is done with them.
        free = self._free.setdefault(len(views.tops), [])
        side = self.augmentation.crop_side
        whole = free.pop() if free else np.empty((len(views.tops), side, side, 3), np.float32)
        lent = whole.view()  # Why: a tensor's storage, which its views share, holds this; it goes when the storage does
        weakref.finalize(lent, free.append, whole)
        return lent

    def _read(self, indices: np.ndarray) -> np.ndarray | Tensor:
        if self.device.type != "cuda":
            return self.images[indices]
        pinned = torch.empty((len(indices), *self.mean.shape), dtype=torch.uint8, pin_memory=True)
        for out, i in zip(pinned.numpy(), indices.tolist(), strict=True):
            out[...] = self.images[i]
        return pinned.to(self.device, non_blocking=True)


def crop(
    pixels_NHWC: Iterable[np.ndarray] | Tensor,
    views: Views,
    mean_HWC: np.ndarray,
    augmentation: Augmentation,
    colours: np.ndarray | None = None,
    out: np.ndarray | None = None,
) -> Tensor:
    """Return views of N uint8 images, minus the mean, as float (N, 3, side, side) in channels_last layout.

    The mean's own crop is flipped like the image (paper 2); its central one is not (convdata_jpeg.py:209-211). `colours`
    (N, 3) are added to all pixels, which are then divided by 1 + noise if the augmentation says so. A tensor is cropped
    where it is, all at once; arrays one by one, on the CPU, into `out` (N, side, side, 3) if it is given.
    """
    if isinstance(pixels_NHWC, Tensor):
        return _crop_at_once(pixels_NHWC, views, mean_HWC, augmentation, colours)
    side, middle = augmentation.crop_side, margin(augmentation, len(mean_HWC)) // 2
    means, middle_mean = (mean_HWC, np.ascontiguousarray(mean_HWC[:, ::-1])), _window(mean_HWC, middle, middle, side).copy()
    central = augmentation.mean_crop == "central"
    bands = [slice(top, top + BAND) for top in range(0, side, BAND)]
    lines_ND = None if colours is None else np.tile(colours, side * np.gcd(side, 4))  # Why: added faster than triples
    x_NHWC = np.empty((len(views.tops), side, side, 3), np.float32) if out is None else out
    rows = zip(x_NHWC, pixels_NHWC, *(np.asarray(column).tolist() for column in views), strict=True)
    for i, (x_HWC, image, top, left, flip) in enumerate(rows):
        shown = _window(image, top, left, side)
        for band in bands:  # Why a pass of its own: numpy subtracts mixed types slowly, and flips slowly
            x_HWC[band] = torch.from_numpy(shown[band].copy()).flip(1).numpy() if flip else shown[band]
        x_HWC -= middle_mean if central else _window(means[flip], top, len(mean_HWC) - side - left if flip else left, side)
        if lines_ND is not None:
            lines = x_HWC.reshape(-1, lines_ND.shape[1])
            lines += lines_ND[i]
            if augmentation.divide:
                x_HWC /= np.float32(1 + augmentation.noise)
    return torch.from_numpy(x_NHWC).permute(0, 3, 1, 2)


def _window(image_HWC: np.ndarray, top: int, left: int, side: int) -> np.ndarray:
    return image_HWC[top : top + side, left : left + side]


def _crop_at_once(
    pixels_NHWC: Tensor, views: Views, mean_HWC: np.ndarray, augmentation: Augmentation, colours: np.ndarray | None
) -> Tensor:
    device, side, middle = pixels_NHWC.device, augmentation.crop_side, margin(augmentation, len(mean_HWC)) // 2
    top_N1, left_N1, flip_N1 = (_sent(np.asarray(column, np.int64)[:, None], device) for column in views)
    along = torch.arange(side, device=device)
    rows_NH1 = (top_N1 + along)[:, :, None]
    columns_N1W = (left_N1 + torch.where(flip_N1 == 1, side - 1 - along, along))[:, None]
    number_N11 = torch.arange(len(pixels_NHWC), device=device)[:, None, None]
    x_NHWC, mean = pixels_NHWC[number_N11, rows_NH1, columns_N1W].float(), _sent(mean_HWC, device)
    own = augmentation.mean_crop == "own"
    x_NHWC -= mean[rows_NH1, columns_N1W] if own else mean[middle : middle + side, middle : middle + side]
    if colours is not None:
        x_NHWC += _sent(colours, device)[:, None, None]
        if augmentation.divide:
            # Why a tensor: a device multiplies by the inverse of a number, and gets other bits.
            x_NHWC /= torch.full((), 1 + augmentation.noise, dtype=torch.float32, device=device)
    return x_NHWC.permute(0, 3, 1, 2)


def _sent(array: np.ndarray, device: torch.device) -> Tensor:
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def prefetched(made: Iterator[Sequence[Tensor]], device: torch.device) -> Iterator[Sequence[Tensor]]:
    """Yield what `made` makes, each in a background thread, on a side stream of a CUDA device, while the last is used."""
    stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def following() -> Sequence[Tensor] | None:
        with torch.cuda.stream(stream):  # Why no condition: without a stream it does nothing
            return next(made, None)

    with ThreadPoolExecutor(1) as background:
        waiting = background.submit(following)
        while (batch := waiting.result()) is not None:
            if stream is not None:
                trains = torch.cuda.current_stream(device)
                trains.wait_stream(stream)
                for tensor in filter(lambda tensor: tensor.is_cuda, batch):
                    tensor.record_stream(trains)  # Why: its memory must not be used again while that stream reads it
            waiting = background.submit(following)
            yield batch
