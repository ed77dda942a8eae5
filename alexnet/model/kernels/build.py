"""The kernels in C (`normalise.c`): compiled in a second when they are first needed, and whether they are on.

Whoever calls one also has torch's plain operations, for where there is no C compiler. The kernels round otherwise than
those, and are off in a process until `use(True)`: a run keeps what it began with.
"""

import ctypes
import hashlib
import os
import platform
import shlex
import subprocess
import tempfile
from contextlib import suppress
from functools import lru_cache
from itertools import product
from pathlib import Path

import torch  # noqa: F401  # Why before the kernels: they use the threads of the libgomp that is there first, which is torch's

SOURCE = Path(__file__).with_name("normalise.c")
# Why no contraction: a product and a sum in one instruction round once, where torch rounds twice. Why no `errno`: setting it
# keeps roots out of vectors.
FLAGS = ("-O3", "-funroll-loops", "-ffp-contract=off", "-fno-math-errno", "-std=c99", "-shared", "-fPIC")
# What not every compiler has: this CPU's own instructions, and threads, which are those of torch.
OPTIONS = tuple(product(("-march=native", ""), ("-fopenmp", "")))

_P, _L, _I, _F = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int, ctypes.c_float
SIGNATURES = {
    "normalise_across": (_I, _P, _P, _L, _L, _I, _F, _F, _F, _I, _P),
    "normalise_within": (_I, _P, _P, _L, _L, _L, _L, _I, _F, _F, _F, _I, _P),
}

_on = False


def is_on() -> bool:
    """Return whether the kernels are on."""
    return _on


def use(wanted: bool, device_type: str = "cpu") -> bool:
    """Switch the kernels on or off in this process; return whether they are on, which needs a compiler for the device."""
    global _on
    _on = wanted and why_not(device_type) is None
    return _on


def why_not(device_type: str = "cpu") -> str | None:
    """Return why there are no kernels for a kind of device ("cpu" or "cuda"), in a line, or None where there are."""
    if device_type == "cuda":
        try:
            from alexnet.model.kernels import cuda  # Why here: where there is no device there may be no Triton.
        except ImportError as error:
            return str(error)
        return cuda.why_not()
    return library()[1]


@lru_cache(1)
def library() -> tuple[ctypes.CDLL | None, str | None]:
    """Return the compiled kernels, or None and why there are none."""
    try:
        kernels = ctypes.CDLL(str(_compiled()))
        for name, (result, *arguments) in SIGNATURES.items():
            function = getattr(kernels, name)
            function.restype, function.argtypes = result, arguments
        return kernels, None
    except FileNotFoundError as error:
        return None, f"no C compiler {error.filename}"
    except (OSError, AttributeError) as error:
        return None, str(error)


def _cache() -> Path:
    """Return the folder of compiled kernels; of a user without a home that may be written to, one for temporary files."""
    with suppress(RuntimeError):  # Why: there may be neither HOME nor an entry for the user, as in containers.
        home = Path.home()
        if os.access(home, os.W_OK):
            return home / ".cache" / "alexnet"
    return Path(tempfile.gettempdir()) / f"alexnet-{os.getuid()}"


def _compiled() -> Path:
    """Return the shared library, compiled for this CPU by `$CC`, or `cc`; from an earlier time if there is one.

    Raises OSError without a compiler, or with one that fails, or where $ALEXNET_COMPILE is 0.
    """
    if os.environ.get("ALEXNET_COMPILE") == "0":
        raise OSError("ALEXNET_COMPILE is 0")
    compiler = shlex.split(os.environ.get("CC", "cc"))
    key = [SOURCE.read_text(), *compiler, *FLAGS, _cpu()]
    file = _cache() / f"kernels-{hashlib.sha256(repr(key).encode()).hexdigest()[:16]}.so"
    if file.is_file():
        return file
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        made = Path(folder) / file.name
        for options in OPTIONS:
            command = [*compiler, *FLAGS, *filter(None, options), SOURCE, "-o", made, "-lm"]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode == 0:
                break
        else:
            raise OSError(f"{shlex.join(compiler)} failed: {(done.stderr.strip().splitlines() or ['no reason given'])[0]}")
        made.replace(file)  # Why so: another process may be doing the same, and none may load half a file
    return file


def _cpu() -> str:
    """Return what the CPU can do, because a home directory may be shared by different machines."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    return next((line for line in lines if line.lower().startswith(("flags", "features"))), platform.processor())
