"""The innermost loops over pixels, in C; without a C compiler numpy does the same, to the bit, some times more slowly.

They let other threads run, and start none.
"""

import ctypes
from collections.abc import Sequence

import numpy as np

from alexnet import compiled

LINES = 16  # of an image, that are worked on together, as in native/pixels.c


def crop(pixels_HWC: np.ndarray, flip: bool, out_HWC: np.ndarray) -> None:
    """Copy a square of an image, uint8, mirrored if `flip`, to `out`. Raises ValueError for unlike shapes."""
    if (loops := _loops(pixels_HWC, out_HWC)) is None:
        out_HWC[:] = pixels_HWC[:, ::-1] if flip else pixels_HWC
        return
    loops.pixels_crop(pixels_HWC.ctypes.data, pixels_HWC.strides[0], len(out_HWC), flip, out_HWC.ctypes.data)


def crops(
    images_NHWC: Sequence[np.ndarray],
    indices: np.ndarray,
    tops: np.ndarray,
    lefts: np.ndarray,
    flips: np.ndarray,
    out_NHWC: np.ndarray,
) -> None:
    """Copy a square of the image at each of `indices`, uint8, mirrored where `flips`, to `out`.

    Of images in one array, all are copied in one go, while other threads run. Raises IndexError for one that is not there.
    """
    side, loops = out_NHWC.shape[1], compiled.library()[0]
    alike = isinstance(images_NHWC, np.ndarray) and images_NHWC.dtype == np.uint8 and images_NHWC.strides[2:] == (3, 1)
    if loops is None or not alike or not out_NHWC.flags.c_contiguous:
        for out, i, top, left, flip in zip(out_NHWC, indices, tops, lefts, flips, strict=True):
            crop(images_NHWC[i][top : top + side, left : left + side], bool(flip), out)
        return
    N, H, W, _ = images_NHWC.shape
    which, tops, lefts = (np.ascontiguousarray(column, np.int64) for column in (indices, tops, lefts))
    for column, most in ((which, N - 1), (tops, H - side), (lefts, W - side)):
        if len(column) != len(out_NHWC) or (len(column) and not 0 <= column.min() <= column.max() <= most):
            raise IndexError(f"there are {N} images of {H}x{W} pixels, and a crop of {side} lies beyond them")
    mirrored = np.ascontiguousarray(flips, np.uint8)
    columns = (column.ctypes.data for column in (which, tops, lefts, mirrored))
    size, stride = images_NHWC.strides[:2]
    loops.pixels_crops(images_NHWC.ctypes.data, size, stride, len(which), *columns, side, out_NHWC.ctypes.data)


def view(
    pixels_HWC: np.ndarray,
    flip: bool,
    mean_HWC: np.ndarray,
    added: np.ndarray | None,
    divisor: float,
    out_HWC: np.ndarray,
) -> None:
    """Write into `out` a square of an image, uint8, mirrored if `flip`, minus the mean, plus a line `added`, divided.

    `mean_HWC`, `added` (W * 3,) and `out_HWC` are float32. Without `added` nothing is divided. Raises ValueError for
    unlike shapes. Paper 4.1.
    """
    side = len(out_HWC)
    if (loops := _loops(pixels_HWC, out_HWC, mean_HWC)) is None:
        out_HWC[:] = pixels_HWC[:, ::-1] if flip else pixels_HWC
        out_HWC -= mean_HWC
        if added is not None:
            lines = out_HWC.reshape(side, -1)  # Why: long lines are added several times faster than triples
            lines += added
            if divisor != 1:
                lines /= np.float32(divisor)
        return
    band = np.empty(LINES * side * 3, np.uint8)
    line = None if added is None else added.ctypes.data
    mean, apart = mean_HWC.ctypes.data, mean_HWC.strides[0] // mean_HWC.itemsize
    out, first = out_HWC.ctypes.data, pixels_HWC.ctypes.data
    loops.pixels_view(first, pixels_HWC.strides[0], side, flip, mean, apart, line, divisor, band.ctypes.data, out)


def _loops(pixels_HWC: np.ndarray, out_HWC: np.ndarray, mean_HWC: np.ndarray | None = None) -> ctypes.CDLL | None:
    """Return the compiled loops, if they can be had and the arrays are as they expect."""
    as_bytes = pixels_HWC.dtype == np.uint8 and pixels_HWC.strides[1:] == (3, 1)
    fits = out_HWC.flags.c_contiguous and pixels_HWC.shape == out_HWC.shape == (len(out_HWC), len(out_HWC), 3)
    if mean_HWC is not None:
        fits &= mean_HWC.shape == out_HWC.shape and mean_HWC.strides[1:] == (12, 4)
    return compiled.library()[0] if as_bytes and fits else None
