"""The innermost loops over pixels, in C; without a C compiler numpy does the same, to the bit, some times more slowly.

`pixels.c` is compiled when it is first needed, in a second. The loops let other threads run, and start none.
"""

import ctypes
import hashlib
import os
import platform
import shlex
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path

import numpy as np

SOURCE = Path(__file__).with_suffix(".c")
# Why no contraction: a multiplication and an addition in one instruction round once, where numpy rounds twice.
FLAGS = ("-O3", "-funroll-loops", "-ffp-contract=off", "-std=c99", "-shared", "-fPIC")
FASTEST = "-march=native"  # which not every compiler knows
LINES = 16  # of an image, that are worked on together, as in pixels.c

POINTER, LONG = ctypes.c_void_p, ctypes.c_int64
SIGNATURES = {
    "pixels_crop": (POINTER, LONG, LONG, ctypes.c_int, POINTER),
    "pixels_view": (POINTER, LONG, LONG, ctypes.c_int, POINTER, LONG, POINTER, ctypes.c_float, POINTER, POINTER),
    "pixels_narrow": (POINTER, LONG, LONG, LONG, LONG, POINTER, POINTER, LONG, POINTER, POINTER),
    "pixels_lower": (POINTER, LONG, LONG, LONG, POINTER, POINTER, LONG, POINTER),
}


def crop(pixels_HWC: np.ndarray, flip: bool, out_HWC: np.ndarray) -> None:
    """Copy a square of an image, uint8, mirrored if `flip`, to `out`. Raises ValueError for unlike shapes."""
    if (loops := _loops(pixels_HWC, out_HWC)) is None:
        out_HWC[:] = pixels_HWC[:, ::-1] if flip else pixels_HWC
        return
    loops.pixels_crop(pixels_HWC.ctypes.data, pixels_HWC.strides[0], len(out_HWC), flip, out_HWC.ctypes.data)


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
    return library()[0] if as_bytes and fits else None


@lru_cache(1)
def library() -> tuple[ctypes.CDLL | None, str]:
    """Return the compiled loops, or None and, in a line, why there are none."""
    try:
        loops = ctypes.CDLL(str(_compiled()))
        for name, arguments in SIGNATURES.items():
            function = getattr(loops, name)
            function.argtypes, function.restype = arguments, None
        return loops, ""
    except FileNotFoundError as error:
        return None, f"no C compiler {error.filename}"
    except (OSError, AttributeError) as error:
        return None, str(error)


def _compiled() -> Path:
    """Return the shared library, compiled for this processor by `$CC`, or `cc`; from an earlier time if there is one.

    Raises OSError without a compiler, or with one that fails, or where $ALEXNET_COMPILE is 0.
    """
    if os.environ.get("ALEXNET_COMPILE") == "0":
        raise OSError("ALEXNET_COMPILE is 0")
    compiler = shlex.split(os.environ.get("CC", "cc"))
    key = [SOURCE.read_text(), *compiler, *FLAGS, _processor()]
    file = Path.home() / ".cache" / "alexnet" / f"pixels-{hashlib.sha256(repr(key).encode()).hexdigest()[:16]}.so"
    if file.is_file():
        return file
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        made, command = Path(folder) / file.name, [*compiler, *FLAGS]
        for fastest in ((FASTEST,), ()):
            done = subprocess.run([*command, *fastest, SOURCE, "-o", made], capture_output=True, text=True)
            if done.returncode == 0:
                break
        else:
            raise OSError(f"{shlex.join(compiler)} failed: {(done.stderr.strip().splitlines() or ['no reason given'])[0]}")
        made.replace(file)  # Why so: another process may be doing the same, and none may load half a file
    return file


def _processor() -> str:
    """Return what the processor can do, because a home directory may be shared by different machines."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    return next((line for line in lines if line.lower().startswith(("flags", "features"))), platform.processor())
