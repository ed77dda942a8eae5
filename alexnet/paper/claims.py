"""What the paper claims, as data: `CLAIMS` maps the id of every claim to what the paper says.

`results.py` enters what was measured (tables 1 and 2, figures 1, 3 and 4, every gain and comparison), `method.py` what was
built, and what follows from it by arithmetic.

Units. Error rates are fractions elsewhere in the code; here they are percents, as the paper prints them, with unit "%". A
gain is a difference of two error rates in "points". Every effect is written so that the paper's side is the large one: a
gain is positive when the paper's choice makes fewer errors, a ratio is above 1. So is "gap closed": by how many points the
gap between held-out and training error is narrower with the paper's choice.

Margins: how far a measurement may lie from the paper's value and still be said to agree. Each follows one of these rules.

RATE          0.3   error rates printed with one decimal. The paper's are single runs. 2012 runs that differ only in their
                    schedule spread over 0.18 points although some share their first epochs, so that differences below
                    about 0.3 are not to be trusted
WHOLE_RATE    0.5   error rates printed in whole percents: half of the last digit, which here exceeds the spread of runs
GAIN          0.4   differences of two rates, each known within RATE: 0.3 times the square root of 2
WHOLE_GAIN    0.7   differences of two rates, each known within WHOLE_RATE, and gains given as "about" a whole percent
QUOTED        0.05  rates quoted from other authors (`quoted`): half of the last digit, for nothing is measured again
RATIO         1/4   of a ratio printed as one digit. Two readings of half an epoch at the 6th and 36th epoch already move the
                    ratio of Figure 1 by a tenth, and the paper does not say which rates were tried
rounded counts      what rounds to the printed number: half a unit of its last digit that is not zero. 60 million stands for
                    55 to 65 million, and 650,000 for 645,000 to 655,000. A whole unit where the paper says "roughly"
ranges              half of the range, around its middle: "five to six days"
sampling            one standard deviation, where one net is measured twice and no training separates the two (s6-val-test)
exact counts  0     what is counted or set rather than measured; the units are in EXACT_UNITS. A "constant" is written as the
                    code has it, a probability or an error as a fraction

A margin may be wider than the gain it belongs to (0.3 points, 3.4). It is therefore never enough for a gain to lie within
its margin: `experiments.statistics.judge` first asks that the measurement be distinguishable from no effect.
"""

import typing
from collections import Counter
from dataclasses import dataclass
from typing import Literal

from alexnet.config import UserError, nearest

# result, gain, figure: what the paper measured, and what we measure.
# definition: what was built or set; ours holds it by construction. arithmetic: follows from the definitions, true or false.
# data: what the sets of images hold.
Kind = Literal["result", "gain", "figure", "definition", "arithmetic", "data"]
Unit = Literal["%", "points", "ratio", "days", "epochs", "bits", "count", "px", "constant", "% of parameters", "% of runs"]
Bound = Literal["equal", "at least", "at most"]

# Why shares are among them: a share of exact counts is itself exact.
EXACT_UNITS: frozenset[Unit] = frozenset({"count", "px", "constant", "% of parameters", "% of runs"})
RATE, WHOLE_RATE, GAIN, WHOLE_GAIN, QUOTED, RATIO = 0.3, 0.5, 0.4, 0.7, 0.05, 0.25
SLACK = 1e-9  # Why: 37.8 - 37.5 is a little more than 0.3 in floating point

ANY_ILSVRC = "ilsvrc"  # the data set of a value for which the paper does not say the year
ILSVRC_YEARS = ("ilsvrc2010", "ilsvrc2012")
HELD_OUT = "val or test"  # the split of a value for which the paper does not say which; it uses the two for one another


@dataclass(frozen=True)
class Value:
    """One number of the paper: what it is, how close is close, and what the 2012 run notes or source have for it.

    `dataset` is the name of a prepared set; `dataset`, `split` and `views` are "" where they do not apply or the paper is
    silent. `subject` tells apart values of one name: the row of a table, a layer, an axis of the image.
    """

    name: str
    paper: float  # of an effect that the paper gives in words alone: what no effect would be, bound "at least"
    unit: Unit
    margin: float = 0.0  # same unit; the rules are above
    bound: Bound = "equal"  # "over 1 %" is at least 1; at most bounds a magnitude, whatever its sign
    subject: str = ""
    dataset: str = ""
    split: str = ""
    views: str = ""  # as the loader names them: "ten", "central", "grid" (the nine crops of the CIFAR-10 nets), "whole"
    notes2012: float | None = None  # of the 2012 run notes, with all digits; for a setting, what the released source has
    notes_source: str | None = None  # file:line in the 2012 source; .cfg files are below its layers/
    quoted: bool = False  # other authors' number, which the paper only cites

    @property
    def key(self) -> str:
        """The name, then the subject when there is one: "top-1 error, CNN"."""
        return f"{self.name}, {self.subject}" if self.subject else self.name

    @property
    def no_effect(self) -> float | None:
        """What no effect would be: 0 points or a ratio of 1. None for what is no effect, or a bound on one from above."""
        return None if self.bound == "at most" else {"points": 0.0, "ratio": 1.0}.get(self.unit)

    @property
    def is_direction(self) -> bool:
        """Whether the paper says which side has the effect, and no number."""
        return self.paper == self.no_effect

    @property
    def accepted(self) -> tuple[float, float]:
        """The least and the greatest measurement that agree with the paper's value."""
        low, high = self.stated
        return low - self.margin - SLACK, high + self.margin + SLACK

    @property
    def stated(self) -> tuple[float, float]:
        """The least and the greatest number that the paper's value stands for, without a margin."""
        low = {"equal": self.paper, "at least": self.paper, "at most": -self.paper}[self.bound]
        return low, float("inf") if self.bound == "at least" else self.paper

    def is_close(self, measured: float) -> bool:
        """Return whether `measured` lies within the margin of the paper's value, or on the allowed side of a bound."""
        low, high = self.accepted
        return low <= measured <= high

    def is_measured_on(self, dataset: str, split: str, views: str) -> bool:
        """Return whether the paper's number is of this data set, split and views; what it does not say of these fits all."""
        years = ILSVRC_YEARS if self.dataset == ANY_ILSVRC else (self.dataset,)
        fits = (not self.split or split in self.split.split(" or ")) and self.views in ("", views)
        return bool(self.dataset) and dataset in years and fits


@dataclass(frozen=True)
class Claim:
    """One thing the paper asserts, in our words; `direction` says what must be seen where numbers alone do not tell."""

    id: str
    section: str
    kind: Kind
    wording: str
    values: tuple[Value, ...] = ()
    direction: str = ""
    looser: str = ""  # a wider band that the paper itself gives
    note: str = ""  # what the 2012 notes and source, or arithmetic, add to the claim or correct in it

    @property
    def is_measured(self) -> bool:
        """Whether experiments test it: not definitions, arithmetic, the sets' contents or what is quoted from others."""
        quoted = bool(self.values) and all(value.quoted for value in self.values)
        return self.kind in ("result", "gain", "figure") and not quoted

    @property
    def keyed(self) -> dict[str, Value]:
        """The values by their keys, with the split added where several differ in it alone: "top-5 error, 5 CNNs, test"."""
        times = Counter(value.key for value in self.values)
        return {v.key if times[v.key] == 1 else f"{v.key}, {v.split}": v for v in self.values}

    def by_key(self, key: str) -> Value:
        """Return the value with this key of `keyed`. Raises UserError, with those there are, when there is none."""
        if key not in self.keyed:
            known = "; ".join(map(repr, self.keyed)) or "none"
            raise UserError(f"Claim {self.id} has no value {key!r}{nearest(key, self.keyed) or '.'} It has: {known}.")
        return self.keyed[key]


CLAIMS: dict[str, Claim] = {}


def register(*claims: Claim) -> None:
    """Add claims to CLAIMS. Raises ValueError for an id already taken or a kind or unit that does not exist."""
    for claim in claims:
        if claim.id in CLAIMS:
            raise ValueError(f"claim {claim.id!r} is entered twice")
        if claim.kind not in typing.get_args(Kind) or any(v.unit not in typing.get_args(Unit) for v in claim.values):
            raise ValueError(f"claim {claim.id!r} has an unknown kind or unit")
        CLAIMS[claim.id] = claim


def get(claim_id: str) -> Claim:
    """Return the claim with this id. Raises UserError, naming the nearest id, when there is none."""
    if claim_id not in CLAIMS:
        advice = nearest(claim_id, CLAIMS) or f"; the claims are {', '.join(CLAIMS)}."
        raise UserError(f"There is no claim {claim_id!r}{advice}")
    return CLAIMS[claim_id]


# Why here: both enter their claims with `register`, whichever module of the three is imported first.
from alexnet.paper import method, results  # noqa: E402, F401
