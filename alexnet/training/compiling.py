"""Whether a training of the two columns uses loops in C (`compiled.py`): every process of a crew must do alike."""

import os
import sys

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
    (missing,) = crew.any(not compiled.use(True))
    if missing and crew.writes:
        why = compiled.why_not() or "another rank cannot"
        print(f"not compiled, so the slower plain path is used: {why}", file=sys.stderr)
    return compiled.use(not missing)
