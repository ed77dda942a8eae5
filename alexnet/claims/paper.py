"""What the paper claims, as data: `CLAIMS` maps the id of every claim to what the paper says.

`paper_results.py` enters what was measured (sections 1, 6 and 7, tables 1 and 2, figures 1, 3 and 4, and every gain of
sections 3 to 5), `paper_method.py` what was built and done. Notebooks look a claim up with `get` and judge it with
`verdicts.py`.

Units. Error rates are fractions elsewhere in the code; here they are percents, as the paper prints them, with unit "%". A
gain is a difference of two error rates in "points", positive when the paper's choice makes fewer errors.

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
rounded counts      one unit of the last digit that is not zero: 60 million stands for anything within 1 million
ranges              half of the range, around its middle: "five to six days"
sampling            one standard deviation, where one net is measured twice and no training separates the two (s6-val-test)
exact counts  0     what is counted or set rather than measured; the units are in EXACT_UNITS. A "constant" is written as the
                    code has it, a probability or an error as a fraction

A margin may be wider than the gain it belongs to (0.3 points, 3.4). It is therefore never enough for a gain to lie within
its margin: `verdicts.judge` first asks that the measurement be distinguishable from no effect.
"""

import difflib
import typing
from dataclasses import dataclass
from typing import Literal

from alexnet.config import UserError

Kind = Literal["result", "gain", "architecture", "method", "figure"]
Unit = Literal["%", "points", "ratio", "days", "epochs", "bits", "count", "px", "constant", "% of parameters"]
Bound = Literal["equal", "at least", "at most"]

# Why "% of parameters" is among them: a share of exact counts is itself exact.
EXACT_UNITS: frozenset[Unit] = frozenset({"count", "px", "constant", "% of parameters"})
RATE, WHOLE_RATE, GAIN, WHOLE_GAIN, QUOTED, RATIO = 0.3, 0.5, 0.4, 0.7, 0.05, 0.25

ANY_ILSVRC = "ilsvrc"  # the data set of a value for which the paper does not say the year
ILSVRC_YEARS = ("ilsvrc2010", "ilsvrc2012")


@dataclass(frozen=True)
class Value:
    """One number of the paper: what it is, how close is close, and what the 2012 logs or source have for it.

    `dataset` is the name of a prepared set; `dataset`, `split` and `views` are "" where they do not apply or the paper is
    silent. `subject` tells apart values of one name: the row of a table, a layer, an axis of the image.
    """

    name: str
    paper: float
    unit: Unit
    margin: float = 0.0  # same unit; the rules are above
    bound: Bound = "equal"  # "over 1 %" is at least 1
    subject: str = ""
    dataset: str = ""
    split: str = ""
    views: str = ""  # "ten-crop", "centre", "multi-view" (the windows of the CIFAR-10 nets)
    log2012: float | None = None  # with all digits; for a setting, what the released source has
    log_source: str | None = None  # file:line in the 2012 source; .cfg files are below its layers/
    quoted: bool = False  # other authors' number, which the paper only cites

    def is_close(self, measured: float) -> bool:
        """Return whether `measured` lies within the margin of the paper's value, or on the allowed side of a bound."""
        excess = measured - self.paper
        slack = self.margin + 1e-9  # Why: 37.8 - 37.5 is a little more than 0.3 in floating point
        return (excess >= -slack or self.bound == "at most") and (excess <= slack or self.bound == "at least")

    def is_measured_on(self, dataset: str, split: str | None = None, views: str | None = None) -> bool:
        """Return whether the paper's number is of this data set, split and views; None is not compared."""
        years = ILSVRC_YEARS if self.dataset == ANY_ILSVRC else (self.dataset,)
        same_split = split is None or self.split in ("", split)
        return bool(self.dataset) and dataset in years and same_split and (views is None or self.views in ("", views))


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
    note: str = ""  # what the 2012 logs and source, or arithmetic, add to the claim or correct in it

    def value(self, name: str, subject: str = "", split: str | None = None) -> Value:
        """Return the one value of this name and subject, and split where several differ in it alone.

        Raises UserError, with the values there are, when none or more than one fits.
        """
        found = [v for v in self.values if (v.name, v.subject) == (name, subject) and split in (None, v.split)]
        if len(found) != 1:
            known = "; ".join(f"{v.name!r}, subject {v.subject!r}, split {v.split!r}" for v in self.values) or "none"
            asked = f"{name!r}, subject {subject!r}, split {split!r}"
            raise UserError(f"Claim {self.id} has {len(found)} values {asked}; exactly one must fit. It has: {known}.")
        return found[0]


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
        nearest = difflib.get_close_matches(claim_id, CLAIMS, n=1, cutoff=0.4)
        advice = f"Did you mean {nearest[0]!r}?" if nearest else f"The claims are: {', '.join(CLAIMS)}."
        raise UserError(f"There is no claim {claim_id!r}. {advice}")
    return CLAIMS[claim_id]


# Why here: both enter their claims with `register`, whichever module of the three is imported first.
from alexnet.claims import paper_method, paper_results  # noqa: E402, F401
