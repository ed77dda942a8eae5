"""Section 4.1: from square images to the tensors that the net is shown, a batch at a time.

Training: `augment`, which is `cut` at drawn `views` with drawn colours. Test: `fixed_views`, ten or one. Every image gets
the same bits whatever the batch size, on the processor or a device.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from alexnet.preprocessing import pixels
from alexnet.preprocessing.memory import Reused
from alexnet.preprocessing.views import Augmentation, Views, draw_colours, draw_views


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
    mean = np.ascontiguousarray(mean_HWC, np.float32)
    if mean.shape != images_NHWC.shape[1:]:
        raise ValueError(f"`mean_HWC` {mean.shape} must have the shape of one image {images_NHWC.shape[1:]}")
    if device is not None and device.type != "cpu":
        x_NCHW = _cut_for(device, images_NHWC, indices, views, mean, augmentation)
        return x_NCHW if colours is None else add_colours(x_NCHW, colours, augmentation)
    side, memory = augmentation.crop_side, memory or Reused()
    x_NHWC, means = memory.empty((len(indices), side, side, 3), torch.float32), _means(mean, augmentation)
    # Why: a colour is added as a line of pixels, which takes a third of the time of single ones.
    added = [None] * len(indices) if colours is None else np.tile(np.asarray(colours, np.float32), side)
    divisor = 1 + augmentation.noise if augmentation.divide else 1.0
    for out, index, line, top, left, flip in zip(x_NHWC.numpy(), indices, added, *_lists(views), strict=True):
        shown, subtracted = _window(images_NHWC[index], side, top, left), _subtracted(means, side, top, left, flip)
        pixels.view(shown, flip, subtracted, line, divisor, out)
    return x_NHWC.permute(0, 3, 1, 2)


def _means(mean_HWC: np.ndarray, augmentation: Augmentation) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean image and its mirror image, or twice the one part that is subtracted from all views."""
    if augmentation.mean_window == "own":
        return mean_HWC, np.ascontiguousarray(mean_HWC[:, ::-1])
    side, start = augmentation.crop_side, augmentation.margin(len(mean_HWC)) // 2
    # Why a copy: lines that lie apart, at odd addresses, take twice as long to subtract.
    middle = np.ascontiguousarray(mean_HWC[start : start + side, start : start + side])
    return middle, middle


def _lists(views: Views) -> Iterator[list]:
    return (column.tolist() for column in views)


def _window(image_HWC: np.ndarray, side: int, top: int, left: int) -> np.ndarray:
    return image_HWC[top : top + side, left : left + side]


def _subtracted(means: Sequence[np.ndarray], side: int, top: int, left: int, flip: bool) -> np.ndarray:
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
    side, pins = augmentation.crop_side, device.type == "cuda"
    pinned = torch.empty((len(indices), side, side, 3), dtype=torch.uint8, pin_memory=pins)
    pixels.crops(images_NHWC, indices, *views, pinned.numpy())
    x_NHWC = pinned.to(device, non_blocking=True).float()
    if augmentation.mean_window == "central":
        middle, _ = _means(mean_HWC, augmentation)
        x_NHWC -= torch.from_numpy(middle).to(device)
        return x_NHWC.permute(0, 3, 1, 2)
    top, left, flip = (torch.from_numpy(np.asarray(column)).long()[:, None] for column in views)
    along = torch.arange(side)
    columns = left + torch.where(flip.bool(), side - 1 - along, along)
    places_NHW = ((top + along) * mean_HWC.shape[1])[:, :, None] + columns[:, None]
    places_NHW = (places_NHW.pin_memory() if pins else places_NHW).to(device, non_blocking=True)
    mean_PC = torch.from_numpy(mean_HWC).to(device).view(-1, 3)
    x_NHWC -= mean_PC[places_NHW]
    return x_NHWC.permute(0, 3, 1, 2)


def add_colours(x_NCHW: Tensor, colours: np.ndarray, augmentation: Augmentation) -> Tensor:
    """Add to all pixels of each image its colour (N, 3), in place; return the batch, which must be in channels_last layout.

    Then divide by 1 + noise if the augmentation says so.
    """
    N, _, H, W = x_NCHW.shape
    rows = x_NCHW.permute(0, 2, 3, 1).view(N, H, W * 3)  # Why: long rows are added several times faster than triples
    rows += torch.as_tensor(colours, device=x_NCHW.device).repeat(1, W)[:, None]
    if augmentation.divide:
        # Why a tensor: a device multiplies by the inverse of a number, and gets other bits.
        rows /= torch.tensor(1 + augmentation.noise, dtype=torch.float32, device=rows.device)
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
    device and memory of `cut`. Images that are not in memory as pixels are decoded once for all views.
    """
    if not isinstance(images_NHWC, np.ndarray):
        images_NHWC, indices = images_NHWC[np.asarray(indices)], np.arange(len(indices))
    m = augmentation.margin(images_NHWC.shape[1])
    centre = (m // 2, m // 2)
    offsets = ((0, 0), (0, m), centre, (m, 0), (m, m)) if ten else (centre,)
    for flip in (False, True) if ten else (False,):
        for top, left in offsets:
            views = Views(*(np.full(len(indices), value) for value in (top, left, flip)))
            yield cut(images_NHWC, indices, views, mean_HWC, augmentation, **how)
