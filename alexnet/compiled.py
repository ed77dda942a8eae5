"""The innermost loops in C (`native/`), a few times as fast as chains of tensor operations, and whether they are on.

They are compiled together when they are first needed, in two seconds. Whoever calls one also has the plain operations, for
where there is no C compiler. The loops over pixels give what those give to the bit, and are used wherever they can be. The
loops of training round otherwise, and are off in a process until `use(True)`: a run keeps what it began with.
"""

import ctypes
import hashlib
import os
import platform
import shlex
import subprocess
import tempfile
from functools import lru_cache
from itertools import product
from pathlib import Path

import torch  # noqa: F401  # Why before the loops: they use the threads of the libgomp that is there first, which is torch's

SOURCES = tuple(sorted((Path(__file__).parent / "native").glob("*.c")))
# Why no contraction: a product and a sum in one instruction round once, where numpy rounds twice. Why no `errno`: setting
# it keeps roots out of vectors.
FLAGS = ("-O3", "-funroll-loops", "-ffp-contract=off", "-fno-math-errno", "-std=c99", "-shared", "-fPIC")
# What not every compiler has: this processor's own instructions, and threads, which are those of torch.
OPTIONS = tuple(product(("-march=native", ""), ("-fopenmp", "")))

_P, _L, _I, _F = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int, ctypes.c_float
SIGNATURES = {
    "pixels_crop": (None, _P, _L, _L, _I, _P),
    "pixels_crops": (None, _P, _L, _L, _L, _P, _P, _P, _P, _L, _P),
    "pixels_view": (None, _P, _L, _L, _I, _P, _L, _P, _F, _P, _P),
    "pixels_narrow": (None, _P, _L, _L, _L, _L, _P, _P, _L, _P, _P),
    "pixels_lower": (None, _P, _L, _L, _L, _P, _P, _L, _P),
    "normalise_across": (_I, _P, _P, _L, _L, _I, _F, _F, _F, _I, _P),
    "normalise_within": (_I, _P, _P, _L, _L, _L, _L, _I, _F, _F, _F, _I, _P),
    "update_weights": (None, _P, _P, _P, _L, _F, _F, _F),
}

_on = False


def is_on() -> bool:
    """Return whether the loops of training are on."""
    return _on


def use(wanted: bool) -> bool:
    """Switch the loops of training on or off in this process; return whether they are on, which needs a C compiler."""
    global _on
    _on = wanted and why_not() is None
    return _on


def why_not() -> str | None:
    """Return why there are no loops on this machine, in a line, or None where there are."""
    return library()[1]


@lru_cache(1)
def library() -> tuple[ctypes.CDLL | None, str | None]:
    """Return the compiled loops, or None and why there are none."""
    try:
        loops = ctypes.CDLL(str(_compiled()))
        for name, (result, *arguments) in SIGNATURES.items():
            function = getattr(loops, name)
            function.restype, function.argtypes = result, arguments
        return loops, None
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
    key = [*(source.read_text() for source in SOURCES), *compiler, *FLAGS, _processor()]
    file = Path.home() / ".cache" / "alexnet" / f"loops-{hashlib.sha256(repr(key).encode()).hexdigest()[:16]}.so"
    if file.is_file():
        return file
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        made = Path(folder) / file.name
        for options in OPTIONS:
            command = [*compiler, *FLAGS, *filter(None, options), *SOURCES, "-o", made, "-lm"]
            done = subprocess.run(command, capture_output=True, text=True)
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
