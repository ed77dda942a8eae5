"""Section 4.1: which part of every image the net is shown, and in what light; `cutting` makes the pixels.

Nothing here keeps state: the same arguments give the same numbers, whatever the batch size.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from alexnet import randomness

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


def draw_colours(
    axes: np.ndarray, augmentation: Augmentation, seed: int, epoch: int, places: np.ndarray
) -> np.ndarray | None:
    """Draw the colour (N, 3), float32, that is added to each image: `axes` times three draws from N(0, noise).

    `axes` come from `colour_axes`; None if the noise is off. Paper 4.1: the colour is drawn once for each use of an image,
    also where crops are shared.
    """
    if augmentation.noise == 0:
        return None
    draws = _drawn(seed, "colour-noise", epoch, places, lambda draws: draws.standard_normal((BLOCK, 3)))
    # Why not a matrix product: its bits depend on N.
    return (augmentation.noise * (draws[:, None] * axes).sum(axis=2)).astype(np.float32)
