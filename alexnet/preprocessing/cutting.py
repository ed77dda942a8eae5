"""Section 4.1: from square images to the tensors that the net is shown, a batch at a time.

Training: `augment`, which is `cut` at drawn `views` with drawn colours. Test: `fixed_views`, ten or one. Every image gets
the same bits whatever the batch size, compiled or not.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from alexnet import compiled
from alexnet.preprocessing.memory import Reused
from alexnet.preprocessing.views import Augmentation, Views, draw_colours, draw_views

Mean = TypeVar("Mean", np.ndarray, Tensor)
ALONE = 2**15 - 1  # values; with more, torch asks for threads of its own, which those of the net then wait for
CHUNK = 8  # images that are made together: each step finds in the cache what the one before has left


def cut(
    images_NHWC: np.ndarray,
    indices: np.ndarray,
    views: Views,
    mean_HWC: np.ndarray,
    augmentation: Augmentation,
    colours: np.ndarray | None = None,
    device: torch.device | None = None,
    memory: Reused | None = None,
) -> Tensor:
    """Return views of the images at `indices`, minus the mean, as float (N, 3, side, side) in channels_last layout.

    `images_NHWC` is uint8; of a memory-mapped array only the crops are read, and only they travel to `device`. With the
    mean's own window, the mean image is cut and mirrored like the image, as if subtracted first (paper 2). With its central
    one, the crop is mirrored and the mean is not (convdata_jpeg.py:209-211). Never divided by 255. `colours` (N, 3), if
    given, are added as by `add_colours`. On the processor, views are made in `memory`. Raises ValueError for a mean of
    another shape.
    """
    mean = np.asarray(mean_HWC, np.float32)
    if mean.shape != images_NHWC.shape[1:]:
        raise ValueError(f"`mean_HWC` {mean.shape} must have the shape of one image {images_NHWC.shape[1:]}")
    if device is not None and device.type != "cpu":
        x_NCHW = _cut_for(device, images_NHWC, indices, views, mean, augmentation)
        return x_NCHW if colours is None else add_colours(x_NCHW, colours, augmentation)
    shape = (len(indices), augmentation.crop_side, augmentation.crop_side, 3)
    memory = memory or Reused()
    x_NHWC, crops = memory.empty(shape, torch.float32), memory.empty((CHUNK, *shape[1:]), torch.uint8)
    means = _means(mean, augmentation)
    own = memory.empty((CHUNK, *shape[1:]), torch.float32) if augmentation.mean_window == "own" else None
    for start in range(0, len(indices), CHUNK):
        part = slice(start, start + CHUNK)
        x, chosen = x_NHWC[part], Views(*(column[part] for column in views))
        _crop(images_NHWC, indices[part], chosen, crops.numpy())
        if own is not None:
            for window, view in zip(own.numpy(), zip(*chosen, strict=True), strict=False):
                window[:] = _window(means, shape[1], *view)
        subtracted = torch.from_numpy(means[0]) if own is None else own[: len(x)]
        _light(x, crops[: len(x)], subtracted, None if colours is None else colours[part], augmentation)
    return x_NHWC.permute(0, 3, 1, 2)


def _light(x_NHWC: Tensor, crops_NHWC: Tensor, mean: Tensor, colours: np.ndarray | None, how: Augmentation) -> None:
    """Write into x a few crops, minus `mean`, plus a colour each, divided."""
    side = x_NHWC.shape[1]
    rows = [values.view(*values.shape[:-2], side * 3) for values in (x_NHWC, crops_NHWC, mean)]
    # Why: long rows are added several times faster than triples.
    added = None if colours is None else torch.from_numpy(np.tile(colours, side))[:, None]
    divisor = 1 + how.noise if how.divide and colours is not None else None
    arithmetic = _compiled() if compiled.is_on() and len(x_NHWC) == CHUNK else _arithmetic
    arithmetic(*rows, added, divisor)


def _arithmetic(x: Tensor, crops: Tensor, mean: Tensor, added: Tensor | None, divisor: float | None) -> None:
    x.copy_(crops)
    x.sub_(mean)
    if added is not None:
        x.add_(added)
    if divisor is not None:
        x.div_(divisor)


@lru_cache(1)
def _compiled() -> Callable[..., None]:
    return compiled.loop(_arithmetic, threads=1)  # Why one: the others are the net's, which would wait for them


def _crop(images_NHWC: np.ndarray, indices: np.ndarray, views: Views, out: np.ndarray) -> None:
    """Write the pixels of the views, mirrored where they are to be, into `out`, uint8 (at least N, side, side, 3)."""
    side = out.shape[1]
    for pixels, index, top, left, flip in zip(out, indices, *views, strict=False):
        pixels[:] = images_NHWC[index, top : top + side, left : left + side]
        if flip:
            _mirror(pixels)


def _mirror(crop_HWC: np.ndarray) -> None:
    """Mirror a crop in place. Why by torch: a copy with a negative stride takes three times as long."""
    height = max(1, ALONE // (crop_HWC.shape[1] * 3))
    for start in range(0, len(crop_HWC), height):
        band = crop_HWC[start : start + height]
        band[:] = torch.flip(torch.from_numpy(band), [1]).numpy()


def _means(mean_HWC: np.ndarray, augmentation: Augmentation) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean image and its mirror image, or twice the one part that is subtracted from all views."""
    if augmentation.mean_window == "own":
        return mean_HWC, np.ascontiguousarray(mean_HWC[:, ::-1])
    side, start = augmentation.crop_side, augmentation.margin(len(mean_HWC)) // 2
    # Why a copy: lines that lie apart, at odd addresses, take twice as long to subtract.
    middle = np.ascontiguousarray(mean_HWC[start : start + side, start : start + side])
    return middle, middle


def _window(means: Sequence[Mean], side: int, top: int, left: int, flip: bool) -> Mean:
    """Return the part of `_means` that is subtracted from a view."""
    mean = means[int(flip)]
    if len(mean) == side:
        return mean
    first = len(mean) - side - left if flip else left
    return mean[top : top + side, first : first + side]


def _cut_for(
    device: torch.device,
    images_NHWC: np.ndarray,
    indices: np.ndarray,
    views: Views,
    mean_HWC: np.ndarray,
    augmentation: Augmentation,
) -> Tensor:
    """Do what `cut` does, on a device: a batch of crops travels as bytes, and is mirrored before it does."""
    side = augmentation.crop_side
    pinned = torch.empty((len(indices), side, side, 3), dtype=torch.uint8, pin_memory=device.type == "cuda")
    _crop(images_NHWC, indices, views, pinned.numpy())
    x_NHWC = pinned.to(device, non_blocking=True).float()
    means = [torch.tensor(mean, device=device) for mean in _means(mean_HWC, augmentation)]
    if augmentation.mean_window == "central":
        x_NHWC -= means[0]
        return x_NHWC.permute(0, 3, 1, 2)
    for x, top, left, flip in zip(x_NHWC, *(column.tolist() for column in views), strict=True):
        x -= _window(means, side, top, left, flip)
    return x_NHWC.permute(0, 3, 1, 2)


def add_colours(x_NCHW: Tensor, colours: np.ndarray, augmentation: Augmentation) -> Tensor:
    """Add to all pixels of each image its colour (N, 3), in place; return the batch, which must be in channels_last layout.

    Then divide by 1 + noise if the augmentation says so.
    """
    N, _, H, W = x_NCHW.shape
    rows = x_NCHW.permute(0, 2, 3, 1).view(N, H, W * 3)  # Why: long rows are added several times faster than triples
    rows += torch.as_tensor(colours, device=x_NCHW.device).repeat(1, W)[:, None]
    if augmentation.divide:
        rows /= 1 + augmentation.noise
    return x_NCHW


def augment(
    images_NHWC: np.ndarray,
    indices: np.ndarray,
    mean_HWC: np.ndarray,
    axes: np.ndarray,
    augmentation: Augmentation,
    seed: int,
    epoch: int,
    places: np.ndarray,
    **how,
) -> Tensor:
    """Return the training images at `indices` as the net sees them at `places` of `epoch`: cut, centred, with noise.

    `how`: the device and memory of `cut`.
    """
    views = draw_views(augmentation, images_NHWC.shape[1], seed, epoch, places)
    colours = draw_colours(axes, augmentation, seed, epoch, places)
    return cut(images_NHWC, indices, views, mean_HWC, augmentation, colours, **how)


def fixed_views(
    images_NHWC: np.ndarray,
    indices: np.ndarray,
    mean_HWC: np.ndarray,
    augmentation: Augmentation,
    ten: bool = True,
    **how,
) -> Iterator[Tensor]:
    """Yield the ten views of test images, each (N, 3, side, side): four corners and centre, then their mirror images.

    Or the central view alone. No noise and no division. Paper 4.1 and 6; the order is that of the 2012 source. `how`: the
    device and memory of `cut`.
    """
    m = augmentation.margin(images_NHWC.shape[1])
    centre = (m // 2, m // 2)
    offsets = ((0, 0), (0, m), centre, (m, 0), (m, m)) if ten else (centre,)
    for flip in (False, True) if ten else (False,):
        for top, left in offsets:
            views = Views(*(np.full(len(indices), value) for value in (top, left, flip)))
            yield cut(images_NHWC, indices, views, mean_HWC, augmentation, **how)
