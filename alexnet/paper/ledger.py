"""The ledger as data: where the paper and the 2012 source differ or are silent, what each preset does, and what pins it.

The numbers of ours in ledger.toml are computed here, from the presets and the configs' defaults, which are the 2012 notes'.
"""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alexnet.config import Optimiser, Schedule, UserError
from alexnet.model import presets
from alexnet.paper.arithmetic import layer_parameters
from alexnet.paper.claims import build
from alexnet.preprocessing.augment import PAPER, SOURCE2012, colour_axes, num_views

NOT_PINNED = "not pinned"
KINDS = ("differs", "silent", "guess", "slip", "same")  # the head of ledger.toml says what they mean


@dataclass(frozen=True, kw_only=True)
class LedgerRow:
    """One place where the paper, the 2012 source and we need not agree."""

    topic: str
    kind: str  # of KINDS, several separated by commas
    section: str = ""  # of the paper; "" where it has no word on it
    paper: str
    source2012: str
    source_file: str = ""  # file:line, several separated by commas; "" where the text says what there is
    ours: str  # both presets where they differ
    test: str  # room::function, to be found below tests/room; or NOT_PINNED


# Standard deviations of the colours of ILSVRC's training pixels along their principal components, least first, in grey
# levels, as in cuda-convnet2's make-data/input_meta (color_pca).
COLOUR_SDS = (19.7208, 37.0939, 121.7801)


def grey_levels(literal: bool) -> list[float]:
    """Return the colour noise's sd along ILSVRC's components, main first; `literal`: by eigenvalues, not their roots."""
    axes = colour_axes(np.diag(np.square(COLOUR_SDS)), literal)
    return [float(PAPER.noise * np.linalg.norm(axis)) for axis in axes.T[::-1]]


def known() -> dict[str, Any]:
    """Return what the rows name in braces: the presets, the configs' defaults, and numbers computed from them."""
    ours, theirs, schedule = presets.paper(), presets.source2012(), Schedule()
    neurons, parameters = presets.count_neurons(ours), layer_parameters(ours)
    shares = {name: count / sum(parameters.values()) for name, count in parameters.items() if name in presets.CONV}
    return {
        "paper": presets.with_sixth_layer(ours),
        "source2012": presets.with_sixth_layer(theirs),
        "without_exchange": presets.without_exchange(theirs),
        "optimiser": Optimiser(),
        "schedule": schedule,
        "drops": ", ".join(f"{fraction:.0%}" for fraction in schedule.drops),
        "augmentation": SOURCE2012,
        "divisor": 1 + SOURCE2012.noise,
        "num_views": num_views(PAPER),
        "grey_levels": grey_levels(literal=False)[0],
        "literal_grey_levels": grey_levels(literal=True)[0],
        "places": presets.sides(ours)["conv1"],
        "unrounded_places": (ours.image_side - ours.conv1.side) / ours.conv1.stride + 1,
        "sides_without_overlap": " → ".join(map(str, presets.sides(presets.without_overlap(theirs)).values())),
        "neurons": neurons | {"all": sum(neurons.values())},
        "large_shares": " and ".join(f"{name} has {share:.2%}" for name, share in shares.items() if share > 0.01),
        "alpha_2012": theirs.norm.alpha / theirs.norm.size,  # in effect
    }


def read_ledger(text: str) -> tuple[LedgerRow, ...]:
    """Return the rows of a ledger in TOML. Raises UserError that names the row of a mistake."""
    things, rows = known(), []
    for topic, entries in tomllib.loads(text).items():
        for entry in entries:
            where = f"ledger.toml: {topic}, row {entry.get('paper')!r}"
            row = build(LedgerRow, {"topic": topic} | entry, where)
            try:
                rows.append(LedgerRow(**{name: value.format_map(things) for name, value in vars(row).items()}))
            except (LookupError, AttributeError, TypeError, ValueError) as error:
                raise UserError(f"{where} has braces around what is no number of ours: {error}.") from None
    return tuple(rows)


ROWS = read_ledger(Path(__file__).with_name("ledger.toml").read_text(encoding="utf-8"))
