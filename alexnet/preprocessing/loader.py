"""From a prepared set to what the net sees: raw 0-255 pixels minus the training-set mean image (sections 2 and 4.1).

Images are shown whole, or as crops of them, one at random in training and fixed ones in testing. Either way a batch is a
function of (seed, epoch, step) alone: float (N, 3, H, W) in channels_last layout, never divided by 255, and labels int64
(N,). Every image gets the same bits whatever the batch size and on whatever device.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from alexnet import randomness
from alexnet.config import Augmentation
from alexnet.preprocessing.augment import Views, colour_axes, draw_colours, draw_views, fixed_views, margin
from alexnet.preprocessing.prepared_set import JpegImages, PreparedSet

ViewsName = Literal["whole", "central", "ten", "grid"]
Part = tuple[int, int]  # (r, R): the rows that replica r of R takes of every batch
WHOLE: Part = (0, 1)


def rows_of(total: int, part: Part) -> slice:
    """Return the rows of a batch of `total` images that belong to a part: equal shares, within one image."""
    own, parts = part
    return slice(own * total // parts, (own + 1) * total // parts)


def batches(
    data: PreparedSet, split: str, augmentation: Augmentation | None, device: torch.device | None = None
) -> "Batches":
    """Return the batches of one split, shown as `augmentation` says (None: whole), made on `device`."""
    return Batches(data, split, augmentation, device)


class Batches:
    """Batches of one split, whose images stay on disk until they are shown."""

    def __init__(
        self, data: PreparedSet, split: str, augmentation: Augmentation | None, device: torch.device | None = None
    ) -> None:
        self.images, self.mean = data.splits[split].images, np.ascontiguousarray(data.mean, np.float32)
        self.labels = torch.from_numpy(data.splits[split].labels)
        self.augmentation, self.device = augmentation, torch.device(device or "cpu")
        self.axes = colour_axes(data.covariance)
        if augmentation is not None:
            margin(augmentation, self.mean.shape[0])

    def __len__(self) -> int:
        return len(self.labels)

    def steps_per_epoch(self, batch_size: int) -> int:
        """Return the number of batches in an epoch; the last one holds what is left and may be smaller."""
        return -(-len(self) // batch_size)

    def epoch(
        self,
        seed: int,
        epoch: int,
        batch_size: int,
        first_step: int = 0,
        colour_noise: bool = True,
        part: Part = WHOLE,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the shuffled batches of `epoch` from `first_step` on, or this part's rows; the next is prefetched."""
        order = randomness.batch_order(seed, epoch, len(self))

        def made() -> Iterator[tuple[Tensor, Tensor]]:
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
        if (views == "whole") != (self.augmentation is None):
            shown = "whole" if self.augmentation is None else "in crops"
            raise ValueError(f"`views` (={views!r}) do not fit images that the net sees {shown}")
        for start in range(part[0] * batch_size, len(self), part[1] * batch_size):
            numbers = np.arange(start, min(start + batch_size, len(self)))
            pixels = read(self.images, numbers, self.device)
            fixed = [None] if views == "whole" else fixed_views(self.augmentation, len(self.mean), views)
            yield [self._crop(pixels, view) for view in fixed], self.labels[numbers]

    def shown(self, indices: np.ndarray, places: np.ndarray, seed: int, epoch: int, colour_noise: bool = True) -> Tensor:
        """Return the images at `indices` as the net sees them at `places` of `epoch`: one random view each (paper 4.1)."""
        pixels, how = read(self.images, indices, self.device), self.augmentation
        if how is None:
            return self._crop(pixels, None)
        if not how.random:
            return self._crop(pixels, fixed_views(how, len(self.mean), "central")[0])
        # Source 2012: without noise, images are not divided either: by 1 plus its sd, then 0 (convdata_jpeg.py:179).
        how = how if colour_noise else replace(how, noise=0.0)
        views = draw_views(how, len(self.mean), seed, epoch, places)
        return crop(pixels, views, self.mean, how, draw_colours(self.axes, how, seed, epoch, places))

    def _crop(self, pixels_NHWC: Tensor, view: tuple[int, int, bool] | None) -> Tensor:
        """Return one view of all images, or with None the whole of them."""
        how = self.augmentation or Augmentation(crop_side=len(self.mean), noise=0.0)
        views = Views(*(np.full(len(pixels_NHWC), value) for value in view or (0, 0, False)))
        return crop(pixels_NHWC, views, self.mean, how)


def read(images_NHWC: np.ndarray | JpegImages, indices: np.ndarray, device: torch.device) -> Tensor:
    """Return the images at `indices` as uint8 (N, H, W, 3) on `device`; nothing waits for their way to a CUDA device."""
    shape = (len(indices), *images_NHWC.shape[1:])
    pixels = torch.empty(shape, dtype=torch.uint8, pin_memory=device.type == "cuda")
    if isinstance(images_NHWC, JpegImages):
        for out, i in zip(pixels.numpy(), indices, strict=True):
            out[...] = images_NHWC[i]
    else:
        np.take(images_NHWC, indices, axis=0, out=pixels.numpy(), mode="clip")
    return pixels.to(device, non_blocking=True)


def crop(
    pixels_NHWC: Tensor,
    views: Views,
    mean_HWC: np.ndarray,
    augmentation: Augmentation,
    colours: np.ndarray | None = None,
) -> Tensor:
    """Return views of uint8 images, minus the mean, as float (N, 3, side, side) in channels_last layout, on their device.

    With the mean's own crop, the mean image is cropped and flipped like the image, as if subtracted first (paper 2). With
    its central one, the crop is flipped and the mean is not (convdata_jpeg.py:209-211). Never divided by 255. `colours`
    (N, 3), if given, are added to all pixels of an image, which are then divided by 1 + noise if the augmentation says so.
    Raises ValueError for a mean of another shape.
    """
    if mean_HWC.shape != pixels_NHWC.shape[1:]:
        raise ValueError(f"`mean_HWC` {mean_HWC.shape} must have the shape of one image {tuple(pixels_NHWC.shape[1:])}")
    if pixels_NHWC.is_cuda:
        return _crop_on_device(pixels_NHWC, views, mean_HWC, augmentation, colours)
    side, middle = augmentation.crop_side, margin(augmentation, len(mean_HWC)) // 2
    means = mean_HWC, np.ascontiguousarray(mean_HWC[:, ::-1])
    x_NHWC = torch.empty((len(pixels_NHWC), side, side, 3))
    # Why numpy and one image at a time: it stays in the cache, and the threads that train are left alone.
    for i, (out, image) in enumerate(zip(x_NHWC.numpy(), pixels_NHWC, strict=True)):
        top, left, flip = int(views.tops[i]), int(views.lefts[i]), bool(views.flips[i])
        shown = image[top : top + side, left : left + side]
        shown = shown.flip(1) if flip else shown  # Why torch: numpy takes ten times as long
        if augmentation.mean_crop == "central":
            top, left, flip = middle, middle, False
        left = len(mean_HWC) - side - left if flip else left
        np.subtract(shown.numpy(), means[flip][top : top + side, left : left + side], out=out)
        if colours is not None:
            rows = out.reshape(side, -1)  # Why: long rows are added several times faster than triples
            rows += np.tile(colours[i], side)
            if augmentation.divide:
                rows /= np.float32(1 + augmentation.noise)
    return x_NHWC.permute(0, 3, 1, 2)


def _crop_on_device(
    pixels_NHWC: Tensor, views: Views, mean_HWC: np.ndarray, augmentation: Augmentation, colours: np.ndarray | None
) -> Tensor:
    """Do what `crop` does for all images at once, where they are: with tables of the rows and columns that are shown."""
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
    """Return an array on a device; nothing waits for it on its way."""
    return torch.from_numpy(np.ascontiguousarray(array)).pin_memory().to(device, non_blocking=True)


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
                for tensor in batch:
                    if tensor.is_cuda:  # Why: its memory must not be used again while the stream that trains reads it
                        tensor.record_stream(trains)
            waiting = background.submit(following)
            yield batch
