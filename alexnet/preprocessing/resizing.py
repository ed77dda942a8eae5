"""Section 2: photographs made smaller by Pillow's bicubic filter, to its bits, in half its time."""

from functools import lru_cache

import numpy as np
from PIL import Image

from alexnet import compiled
from alexnet.preprocessing import pixels

# Why: the paper does not name its filter. Pillow's bicubic widens with the reduction, so it does not alias.
RESAMPLING = Image.Resampling.BICUBIC
PRECISION = 22  # bits of a weight behind the point, as in native/pixels.c

Box = tuple[float, float, float, float]  # left, upper, right, lower, in pixels


def resize(image: Image.Image, side: int, box: Box) -> np.ndarray:
    """Return the part of an RGB image in `box` as (side, side, 3) uint8: what Pillow's `resize` returns, to the bit."""
    if min(side, box[2] - box[0]) < pixels.LINES or not _like_pillow():
        return np.array(image.resize((side, side), RESAMPLING, box=box))
    return _resize(image, side, box)


@lru_cache(1)
def _like_pillow() -> bool:
    """Return whether there are compiled loops, and this version of Pillow gives what they give."""
    if compiled.library()[0] is None:
        return False
    draws = np.random.default_rng(0)
    for width, height in ((90, 40), (40, 90), (40, 40)):
        image = Image.fromarray(draws.integers(0, 256, (height, width, 3), np.uint8))
        box = (1.25, 0.0, width - 0.5, height - 1.75)
        if not np.array_equal(_resize(image, 20, box), image.resize((20, 20), RESAMPLING, box=box)):
            return False
    return True


def _resize(image: Image.Image, side: int, box: Box) -> np.ndarray:
    across, down = taps(image.width, box[0], box[2], side), taps(image.height, box[1], box[3], side)
    part = np.asarray(image)[down.start : down.start + down.length, across.start : across.start + across.length]
    # Why: Pillow rounds to bytes between its two passes, so their order shows. This is how it chooses (its Resample.c).
    if image.height > side and image.height - side > 2 * (image.width - side):
        return _narrow(_lower(part, side, down), side, across)
    return _lower(_narrow(part, side, across), side, down)


class Taps:
    """Which of `length` pixels from `start` on make the new ones: those from `first` on, by `weights` (side, count)."""

    def __init__(self, first: np.ndarray, weights: np.ndarray) -> None:
        self.start = int(first.min())
        self.length = int(first.max()) - self.start + weights.shape[1]
        self.first = np.ascontiguousarray(first - self.start, np.int32)
        self.weights = np.ascontiguousarray(weights, np.int32)

    def arguments(self) -> tuple[int, int, int]:
        """Return them as the compiled loops take them."""
        return self.first.ctypes.data, self.weights.ctypes.data, self.weights.shape[1]


@lru_cache(512)
def taps(length: int, low: float, high: float, side: int) -> Taps:
    """Return how `side` pixels are made of those between `low` and `high` of `length`, as Pillow does.

    Weights are bicubic (a = -0.5), as wide as the reduction, sum to 1 and are rounded to PRECISION bits.
    """
    low, high = np.float32(low), np.float32(high)  # Why: Pillow's box has this type
    scale = float(high - low) / side
    stretch = max(scale, 1.0)
    centre = float(low) + (np.arange(side) + 0.5) * scale
    first = np.maximum((centre - 2 * stretch + 0.5).astype(np.int64), 0)
    behind = np.minimum((centre + 2 * stretch + 0.5).astype(np.int64), length)
    number = np.arange((behind - first).max())
    x = np.abs((number + first[:, None] - centre[:, None] + 0.5) * (1.0 / stretch))
    near, far = ((-0.5 + 2.0) * x - (-0.5 + 3.0)) * x * x + 1, (((x - 5) * x + 8) * x - 4) * -0.5
    weights = np.where(x < 1, near, np.where(x < 2, far, 0.0))
    weights[number >= (behind - first)[:, None]] = 0
    weights /= weights.cumsum(axis=1)[:, -1:]  # Why not `sum`: it adds in another order
    weights = np.trunc(np.where(weights < 0, -0.5, 0.5) + weights * 2**PRECISION).astype(np.int32)
    # All have the same number of taps: those that would end behind the image begin earlier, with zeros.
    early = np.maximum(first + len(number) - length, 0)
    moved = number - early[:, None]
    weights = np.where(moved < 0, 0, np.take_along_axis(weights, np.maximum(moved, 0), axis=1))
    return Taps(first - early, weights)


def _narrow(pixels_HWC: np.ndarray, side: int, how: Taps) -> np.ndarray:
    height, width, _ = pixels_HWC.shape
    out, block = np.empty((height, side, 3), np.uint8), np.empty((width + side) * pixels.LINES * 3, np.uint8)
    picture = pixels_HWC.ctypes.data, pixels_HWC.strides[0], height, width
    compiled.library()[0].pixels_narrow(*picture, side, *how.arguments(), block.ctypes.data, out.ctypes.data)
    return out


def _lower(pixels_HWC: np.ndarray, side: int, how: Taps) -> np.ndarray:
    width = pixels_HWC.shape[1]
    out = np.empty((side, width, 3), np.uint8)
    picture = pixels_HWC.ctypes.data, pixels_HWC.strides[0], width
    compiled.library()[0].pixels_lower(*picture, side, *how.arguments(), out.ctypes.data)
    return out
