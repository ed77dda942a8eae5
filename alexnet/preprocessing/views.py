"""Section 4.1: from square images to what the net is shown, a batch at a time.

Training: `augment`, which is `draw_views`, `cut` and `add_colour_noise`. Test: `fixed_views`, ten or one.
Nothing here keeps state: the same arguments give the same pixels, whatever the batch size.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from alexnet import randomness
from alexnet.preprocessing.memory import Reused

BLOCK = 1024  # places of an epoch whose numbers are drawn together: a batch asks one or two generators, not one per image


@dataclass(frozen=True)
class Augmentation:
    """How the images of one epoch differ from those of the next (paper 4.1). Without colour noise: `noise=0`."""

    crop_side: int = 224  # of 256; 24 of 32 in the CIFAR-10 nets of section 3.3
    images_per_decision: int = 1  # consecutive images of an epoch that share offsets and mirroring
    mean_window: Literal["own", "central"] = "own"  # part of the mean image that is subtracted from a crop
    noise: float = 0.1  # deviation of the factors of the principal components' deviations; 0 is off
    divide: bool = False  # training images, by 1 + noise, so that they and test images have about one scale

    def margin(self, image_side: int) -> int:
        """Return the largest offset of a crop. Raises ValueError for images smaller than the crop."""
        if image_side < self.crop_side:
            raise ValueError(f"`crop_side` (={self.crop_side}) must not exceed the side of the images (={image_side})")
        return image_side - self.crop_side

    def num_views(self, image_side: int = 256) -> int:
        """Return the number of different crops: 33 * 33 * 2 = 2178, for which the paper prints 2048 (= 32 * 32 * 2)."""
        return (self.margin(image_side) + 1) ** 2 * 2


PAPER = Augmentation()
# Source 2012: one decision for 32 images and the mean's centre (convdata_jpeg.py:77, 95, 238); division (:179).
SOURCE2012 = Augmentation(images_per_decision=32, mean_window="central", divide=True)


READINGS = {"paper": PAPER, "source2012": SOURCE2012}


class Views(NamedTuple):
    """Where each of N images is cut, in pixels from its upper left corner, and whether the crop is mirrored."""

    tops: np.ndarray
    lefts: np.ndarray
    flips: np.ndarray


def draw_views(augmentation: Augmentation, image_side: int, seed: int, epoch: int, places: np.ndarray) -> Views:
    """Draw offsets, uniform in 0 ... margin inclusive, and mirrorings, of probability 1/2, for `places` of an epoch.

    A place (N,) is an image's number in the order of its epoch, not its index in the set. Source 2012: as there, chunks
    of 32 are counted through the epoch, so that batches of any size cut them alike (convdata_jpeg.py:238).
    """
    margin = augmentation.margin(image_side)
    decisions = places // augmentation.images_per_decision
    offsets = _drawn(seed, "crop", epoch, decisions, lambda draws: draws.integers(0, margin + 1, (BLOCK, 2)))
    flips = _drawn(seed, "flip", epoch, decisions, lambda draws: draws.integers(0, 2, BLOCK))
    return Views(offsets[:, 0], offsets[:, 1], flips == 1)


def _drawn(
    seed: int, purpose: str, epoch: int, places: np.ndarray, draw: Callable[[np.random.Generator], np.ndarray]
) -> np.ndarray:
    """Return the numbers of each of `places`: row place % BLOCK of what `draw` makes for block place // BLOCK."""
    places = np.asarray(places)
    blocks, which = np.unique(places // BLOCK, return_inverse=True)
    drawn = np.stack([draw(randomness.generator(seed, purpose, epoch, int(block))) for block in blocks])
    return drawn[which, places % BLOCK]


def cut(
    images_NHWC: np.ndarray,
    indices: np.ndarray,
    views: Views,
    mean_HWC: np.ndarray,
    augmentation: Augmentation,
    device: torch.device | None = None,
    memory: Reused | None = None,
) -> Tensor:
    """Return views of the images at `indices`, minus the mean, as float (N, 3, side, side) in channels_last layout.

    `images_NHWC` is uint8; of a memory-mapped array only the crops are read, and only they travel to `device`. With the
    mean's own window, the mean image is cut and mirrored like the image, as if subtracted first (paper 2). With its central
    one, the crop is mirrored and the mean is not (convdata_jpeg.py:209-211). Never divided by 255. On the processor, views
    are made in `memory`. Raises ValueError for a mean of another shape.
    """
    side, mean = augmentation.crop_side, torch.as_tensor(np.asarray(mean_HWC, np.float32), device=device)
    if mean.shape != images_NHWC.shape[1:]:
        raise ValueError(f"`mean_HWC` {tuple(mean.shape)} must have the shape of one image {images_NHWC.shape[1:]}")
    shape, memory = (len(indices), side, side, 3), memory or Reused()
    if device is not None and device.type != "cpu":
        pinned = torch.empty(shape, dtype=torch.uint8, pin_memory=device.type == "cuda")
        x_NHWC = _crop(images_NHWC, indices, views, pinned).to(device, non_blocking=True).float()
    else:
        crops = _crop(images_NHWC, indices, views, memory.empty(shape, torch.uint8))
        x_NHWC = memory.empty(shape, torch.float32).copy_(crops)
    if augmentation.mean_window == "central":
        middle = augmentation.margin(len(mean)) // 2
        x_NHWC -= mean[middle : middle + side, middle : middle + side]
        return x_NHWC.permute(0, 3, 1, 2)
    mirrored = mean.flip(1)
    for x, top, left, flip in zip(x_NHWC, *(column.tolist() for column in views), strict=True):
        first = len(mean) - side - left if flip else left
        x -= (mirrored if flip else mean)[top : top + side, first : first + side]
    return x_NHWC.permute(0, 3, 1, 2)


def _crop(images_NHWC: np.ndarray, indices: np.ndarray, views: Views, out: Tensor) -> Tensor:
    """Return the pixels of the views in `out`, uint8 (N, side, side, 3), mirrored where they are to be."""
    rows, side = out.numpy(), out.shape[1]
    for i, (index, top, left, flip) in enumerate(zip(indices, *views, strict=True)):
        crop = images_NHWC[index, top : top + side, left : left + side]
        if flip:  # Why: torch mirrors triples of bytes three times faster than a copy with a negative stride
            crop = torch.flip(torch.tensor(crop), [1]).numpy()
        rows[i] = crop
    return out


def colour_axes(covariance: np.ndarray, literal: bool = False) -> np.ndarray:
    """Return the principal components (3, 3) of the training pixels' colours, each column as long as one deviation.

    The columns ascend; in each the largest component (the first of equals) is positive. Paper 4.1 multiplies by the
    eigenvalues; `literal` does so, and gives noise of deviation 1483 grey levels on the main axis of ILSVRC, where the
    2012 source, with their square roots, has 12.2 (convdata_jpeg.py:57-66).
    """
    variances, vectors = np.linalg.eigh(np.asarray(covariance, np.float64))
    variances = variances.clip(min=0)
    largest = np.abs(vectors).round(6).argmax(axis=0)
    vectors = vectors * np.where(vectors[largest, range(3)] < 0, -1, 1)
    return vectors * (variances if literal else np.sqrt(variances))


def add_colour_noise(
    x_NCHW: Tensor, axes: np.ndarray, augmentation: Augmentation, seed: int, epoch: int, places: np.ndarray
) -> Tensor:
    """Add to all pixels of an image one colour, `axes` times three draws from N(0, noise), in place; return the batch.

    The batch must be in channels_last layout, as `cut` makes it; `axes` come from `colour_axes`. Then divide by 1 + noise
    if the augmentation says so. Paper 4.1: the colour is drawn once for each use of an image, also where crops are shared.
    """
    if augmentation.noise == 0:
        return x_NCHW
    draws = _drawn(seed, "colour-noise", epoch, places, lambda draws: draws.standard_normal((BLOCK, 3)))
    colours = augmentation.noise * (draws[:, None] * axes).sum(axis=2)  # (N, 3); a matrix product's bits depend on N
    N, _, H, W = x_NCHW.shape
    rows = x_NCHW.permute(0, 2, 3, 1).view(N, H, W * 3)  # Why: long rows are added several times faster than triples
    rows += torch.as_tensor(colours.astype(np.float32), device=x_NCHW.device).repeat(1, W)[:, None]
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
    device: torch.device | None = None,
    memory: Reused | None = None,
) -> Tensor:
    """Return the training images at `indices` as the net sees them at `places` of `epoch`: cut, centred, with noise."""
    views = draw_views(augmentation, images_NHWC.shape[1], seed, epoch, places)
    x_NCHW = cut(images_NHWC, indices, views, mean_HWC, augmentation, device, memory)
    return add_colour_noise(x_NCHW, axes, augmentation, seed, epoch, places)


def fixed_views(
    images_NHWC: np.ndarray,
    indices: np.ndarray,
    mean_HWC: np.ndarray,
    augmentation: Augmentation,
    ten: bool = True,
    device: torch.device | None = None,
    memory: Reused | None = None,
) -> Iterator[Tensor]:
    """Yield the ten views of test images, each (N, 3, side, side): four corners and centre, then their mirror images.

    Or the central view alone. No noise and no division. Paper 4.1 and 6; the order is that of the 2012 source.
    """
    m = augmentation.margin(images_NHWC.shape[1])
    centre = (m // 2, m // 2)
    offsets = ((0, 0), (0, m), centre, (m, 0), (m, m)) if ten else (centre,)
    for flip in (False, True) if ten else (False,):
        for top, left in offsets:
            views = Views(*(np.full(len(indices), value) for value in (top, left, flip)))
            yield cut(images_NHWC, indices, views, mean_HWC, augmentation, device, memory)
