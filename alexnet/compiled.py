"""Loops that torch.compile writes, a few times as fast as a chain of operations: whether they are on in this process.

Off until `use(True)`, because compiling takes half a minute the first time on a machine. Whoever has such a loop also has
the plain operations, and takes those while it is off, or where there is no C++ compiler.
"""

import logging
import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import torch

_on = False


def is_on() -> bool:
    """Return whether the compiled loops are on."""
    return _on


def use(wanted: bool) -> bool:
    """Switch the compiled loops on or off in this process; return whether they are on, which needs a C++ compiler."""
    global _on
    _on = wanted and why_not() is None
    return _on


@lru_cache(1)
def why_not() -> str | None:
    """Return why nothing can be compiled on this machine, in a line, or None after having compiled something small."""
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(Path.home() / ".cache" / "alexnet" / "inductor"))
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # Why: it warns where there is no CUDA
    try:
        loop(lambda x: x.square().rsqrt() + 1)(torch.ones(64, 17))
    except Exception as error:  # Why: what a compiler that is missing or broken raises depends on how.
        return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no reason given'}"
    return None


def loop(operations: Callable, threads: int | None = None) -> Callable:
    """Return `operations`, compiled for every shape when it is first called with it; for `threads`, or torch's number."""
    torch._dynamo.config.recompile_limit = 64  # Why: there are more shapes and constants than eight
    return torch.compile(operations, dynamic=False, options={"cpp.threads": threads} if threads else None)
