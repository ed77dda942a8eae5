"""Whether a training of the two columns uses compiled loops (`compiled.py`): every process of a crew must do alike."""

import os
import sys

import torch

from alexnet import compiled
from alexnet.config import ColumnNet, Net
from alexnet.training.crew import Crew


def compile_loops(net: Net, wanted: bool, crew: Crew) -> bool:
    """Switch the compiled loops on if they are `wanted` and can be had, else off; return whether they are on.

    What the process that writes wants decides for all. Not for the nets of CIFAR-10, which would gain nothing, nor where
    $ALEXNET_COMPILE is 0. Without a compiler all go on with the plain path, and one line says so.
    """
    possible = os.environ.get("ALEXNET_COMPILE") != "0" and isinstance(net, ColumnNet)
    (wanted,) = crew.any(wanted and possible and crew.writes)
    if not wanted:
        return compiled.use(False)
    compiled.use(True)
    why = why_not(crew.device)
    (missing,) = crew.any(why is not None)
    if missing and crew.writes:
        why = why or "another rank cannot"
        print(f"not compiled, so the slower plain path is used: {why}", file=sys.stderr)
    return compiled.use(not missing)


def why_not(device: torch.device) -> str | None:
    """Return why there are no loops of training for a device, in a line, or None where there are."""
    if device.type != "cuda":
        return compiled.why_not()
    try:
        from alexnet.model import triton_loops
    except ImportError as error:
        return str(error)
    return compiled.why_not() or triton_loops.why_not()
