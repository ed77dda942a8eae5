"""Section 4.1: which part of every image the net is shown, and in what light, whatever the batch size."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from alexnet import randomness
from alexnet.config import Augmentation

BLOCK = 1024  # places of an epoch whose numbers are drawn together: a batch asks one or two generators, not one per image
PAPER = Augmentation()
# Source 2012: one decision for 32 images and the mean's centre (convdata_jpeg.py:77, 95, 238); division (:179).
SOURCE2012 = Augmentation(images_per_decision=32, mean_crop="central", divide=True)
# Source 2012: the 13 % and 11 % nets see 24 of 32 pixels, each image with a crop and a flip of its own, no colour noise;
# but they subtract the mean's centre (convdata_cifar.py:56, 64), and ours the crop's own part, as all recorded runs have it.
CIFAR_CROPS = Augmentation(crop_side=24, noise=0.0)


class Views(NamedTuple):
    """The crop of each of N images: pixels from its upper left corner, and whether it is flipped."""

    tops: np.ndarray
    lefts: np.ndarray
    flips: np.ndarray


def margin(augmentation: Augmentation, image_side: int) -> int:
    """Return the largest offset of a crop. Raises ValueError for images smaller than the crop."""
    if image_side < augmentation.crop_side:
        raise ValueError(f"`crop_side` (={augmentation.crop_side}) must not exceed the side of the images (={image_side})")
    return image_side - augmentation.crop_side


def num_views(augmentation: Augmentation, image_side: int = 256) -> int:
    """Return the number of different crops: 33 * 33 * 2 = 2178, for which the paper prints 2048 (= 32 * 32 * 2)."""
    return (margin(augmentation, image_side) + 1) ** 2 * 2


def draw_views(augmentation: Augmentation, image_side: int, seed: int, epoch: int, places: np.ndarray) -> Views:
    """Draw offsets, uniform in 0 ... margin inclusive, and flips, of probability 1/2, for `places` of an epoch.

    A place (N,) is an image's number in the order of its epoch, not its index in the set. Source 2012: chunks of 32 are
    counted through the epoch, so that batches of any size share decisions alike (convdata_jpeg.py:238). Not random: central.
    """
    if not augmentation.random:
        return Views(*np.full((len(places), 3), fixed_views(augmentation, image_side, "central")[0]).T)
    most = margin(augmentation, image_side)
    decisions = np.asarray(places, np.int64) // augmentation.images_per_decision
    offsets = _drawn(seed, "crop", epoch, decisions, lambda draws: draws.integers(0, most + 1, (BLOCK, 2)))
    flips = _drawn(seed, "flip", epoch, decisions, lambda draws: draws.integers(0, 2, BLOCK))
    return Views(offsets[:, 0], offsets[:, 1], flips == 1)


def _drawn(seed: int, purpose: str, epoch: int, places: np.ndarray, draw: Callable[..., np.ndarray]) -> np.ndarray:
    """Return the numbers of `places`, (N, ...): row place % BLOCK of what `draw` makes for block place // BLOCK."""
    blocks = np.unique(places // BLOCK) if len(places) else [0]  # Why: a replica may have no image of the last batch
    drawn = np.stack([draw(randomness.generator(seed, purpose, epoch, int(block))) for block in blocks])
    return drawn[np.searchsorted(blocks, places // BLOCK), places % BLOCK]


def colour_axes(covariance: np.ndarray, literal: bool = False) -> np.ndarray:
    """Return the principal components (3, 3) of the training pixels' colours, columns ascending, each as long as one sd.

    In each the largest component (the first of equals) is positive. Paper 4.1 multiplies by the eigenvalues (`literal`): sd
    1483 grey levels on ILSVRC's main axis, where the 2012 source has 12.2, with their roots (convdata_jpeg.py:57-66).
    """
    variances, vectors = np.linalg.eigh(np.asarray(covariance, np.float64))
    variances = variances.clip(min=0)
    largest = np.abs(vectors).round(6).argmax(axis=0)
    vectors = vectors * np.where(vectors[largest, range(3)] < 0, -1, 1)
    return vectors * (variances if literal else np.sqrt(variances))


def draw_colours(
    axes: np.ndarray, augmentation: Augmentation, seed: int, epoch: int, places: np.ndarray
) -> np.ndarray | None:
    """Draw the colour (N, 3), float32, that is added to each image: `axes` times three draws from N(0, noise), or None.

    Paper 4.1: drawn once for each use of an image, also where crops are shared.
    """
    if augmentation.noise == 0:
        return None
    draws = _drawn(seed, "colour-noise", epoch, places, lambda draws: draws.standard_normal((BLOCK, 3)))
    # Why not a matmul: its bits depend on N.
    return (augmentation.noise * (draws[:, None] * axes).sum(axis=2)).astype(np.float32)


def fixed_views(augmentation: Augmentation, image_side: int, which: str) -> list[tuple[int, int, bool]]:
    """Return the test views "central", "ten" or "grid" as (top, left, flipped), in the order of the 2012 source.

    Ten: corners and centre, then mirrored (paper 4.1, 6). Grid: 3x3, for the CIFAR-10 nets (convdata_cifar.py:82-88).
    """
    most = margin(augmentation, image_side)
    middle = most // 2
    if which == "grid":
        return [(top, left, False) for top in (0, middle, most) for left in (0, middle, most)]
    corners = ((0, 0), (0, most), (middle, middle), (most, 0), (most, most))
    ten = [(top, left, flip) for flip in (False, True) for top, left in corners]
    return {"ten": ten, "central": ten[2:3]}[which]
