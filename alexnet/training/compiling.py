"""Whether a training runs the normalisations as compiled loops (`model/fused.py`): every process of a crew must do alike."""

import os
import sys

from alexnet import compiled
from alexnet.config import ColumnNet, Net
from alexnet.model.nets import net_config
from alexnet.model.presets import CONV
from alexnet.training.crew import Crew


def compile_loops(net: Net, wanted: bool, crew: Crew) -> bool:
    """Switch the compiled loops on if they are `wanted` and can be had, else off; return whether they are on.

    What the process that writes wants decides for all. Not for nets without normalisation, nor where $ALEXNET_COMPILE is
    0. Without a compiler all go on with the plain path, and one line says so.
    """
    possible = os.environ.get("ALEXNET_COMPILE") != "0" and _normalises(net)
    (wanted,) = crew.any(wanted and possible and crew.writes)
    if not wanted:
        return compiled.use(False)
    if crew.writes:
        print("compiling the normalisation (half a minute, the first time on this machine) ...", file=sys.stderr)
    (missing,) = crew.any(not compiled.use(True))
    if missing and crew.writes:
        why = compiled.why_not() or "another rank cannot"
        print(f"not compiled, so the slower plain path is used: {why}", file=sys.stderr)
    return compiled.use(not missing)


def _normalises(net: Net) -> bool:
    if not isinstance(net, ColumnNet):
        return False
    config = net_config(net)
    return any("norm" in getattr(config, name).then for name in CONV)
