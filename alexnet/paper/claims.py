"""What the paper claims, as data: `CLAIMS` maps the id of every claim to what the paper says.

The head of claims.toml explains fields, units and the rules of margins; questions of our own are in questions.toml.
"""

import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from alexnet.config import UserError, nearest

Kind = Literal["result", "gain", "figure", "definition", "arithmetic", "data", "question"]
Unit = Literal["%", "points", "ratio", "days", "epochs", "bits", "count", "px", "constant", "% of parameters", "% of runs"]
Bound = Literal["equal", "at least", "at most"]

# Why shares are among them: a share of exact counts is itself exact.
EXACT_UNITS: frozenset[Unit] = frozenset({"count", "px", "constant", "% of parameters", "% of runs"})
RATE = 0.3
# The rules of margins that have a name; claims.toml has the reasons. RATIO is a share of the paper's value.
MARGINS = {"RATE": RATE, "WHOLE_RATE": 0.5, "GAIN": 0.4, "WHOLE_GAIN": 0.7, "QUOTED": 0.05, "RATIO": 0.25}
SLACK = 1e-9  # Why: 37.8 - 37.5 is a little more than 0.3 in floating point


@dataclass(frozen=True)
class Value:
    """One number of the paper: what it is, how close is close, and what the 2012 run notes or source have for it.

    `dataset` is the name of a prepared set; `dataset`, `split` and `views` are "" where they do not apply or the paper is
    silent. `subject` tells apart values of one name: the row of a table, a layer, an axis of the image.
    """

    name: str
    paper: float  # of an effect that the paper gives in words alone: what no effect would be, bound "at least"
    unit: Unit
    margin: float = 0.0  # same unit
    bound: Bound = "equal"  # "over 1 %" is at least 1; at most bounds a magnitude, whatever its sign
    subject: str = ""
    dataset: str = ""
    split: str = ""
    views: str = ""  # as the loader names them: "ten", "central", "grid" (the nine crops of the CIFAR-10 nets), "whole"
    notes2012: float | None = None  # of the 2012 run notes, with all digits; for a setting, what the released source has
    notes_source: str | None = None  # file:line in the 2012 source; .cfg files are below its layers/
    quoted: bool = False  # other authors' number, which the paper only cites
    asked: bool = False  # by a question of ours: `paper` is then what no effect would be
    derived: bool = False  # not printed: ours, from printed numbers

    @property
    def key(self) -> str:
        """The name, then the subject when there is one: "top-1 error, CNN"."""
        return f"{self.name}, {self.subject}" if self.subject else self.name

    @property
    def no_effect(self) -> float | None:
        """What no effect would be: 0 points, a ratio of 1, the 5 % of runs seen by chance; None for what is no effect."""
        return None if self.bound == "at most" else {"points": 0.0, "ratio": 1.0, "% of runs": 5.0}.get(self.unit)

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
        return self.accepted[0] <= measured <= self.accepted[1]

    def is_measured_on(self, dataset: str, split: str, views: str) -> bool:
        """Return whether the paper's number is of this data set, split and views; what it does not say of these fits all."""
        # "ilsvrc" alone is for a value of which the paper does not say the year.
        sets = ("ilsvrc2010", "ilsvrc2012") if self.dataset == "ilsvrc" else (self.dataset,)
        fits = (not self.split or split in self.split.split(" or ")) and self.views in ("", views)
        return bool(self.dataset) and dataset in sets and fits


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


def build(cls: type, entry: dict[str, Any], where: str) -> Any:
    """Return an entry of a TOML file as a dataclass, each text on one line; UserError, with `where`, for a wrong field."""
    try:
        return cls(**{name: " ".join(given.split()) if isinstance(given, str) else given for name, given in entry.items()})
    except TypeError as error:
        raise UserError(f"{where}: {error}.") from None


def _values(lines: list[dict[str, Any]], shared: dict[str, Any], where: str) -> Iterator[Value]:
    """Yield the values of a claim: a line with arrays stands for as many values as they are long."""
    for line in (shared | line for line in lines):
        for i in range(max(len(given) if isinstance(given, list) else 1 for given in line.values())):
            entry = {name: given[i] if isinstance(given, list) else given for name, given in line.items()}
            if (rule := entry.get("margin")) in MARGINS:
                entry["margin"] = MARGINS[rule] * (entry.get("paper", 0) if rule == "RATIO" else 1)
            yield build(Value, entry, f"{where}, value {entry.get('name')!r}")


def read_claims(text: str) -> dict[str, Claim]:
    """Return the claims of a TOML file by their ids. Raises UserError that names the claim of a mistake."""
    claims: dict[str, Claim] = {}
    for entry in tomllib.loads(text)["claim"]:
        where = f"claims.toml: claim {entry.get('id')!r}"
        shared = {"asked": entry.get("kind") == "question"} | entry.pop("shared", {})
        values = tuple(_values(entry.pop("values", []), shared, where))
        claim = build(Claim, entry | {"values": values}, where)
        if claim.id in claims:
            raise UserError(f"{where} is entered twice.")
        claims[claim.id] = claim
    return claims


CLAIMS, QUESTIONS = (
    read_claims(Path(__file__).with_name(name).read_text(encoding="utf-8")) for name in ("claims.toml", "questions.toml")
)


def get(claim_id: str) -> Claim:
    """Return the claim with this id. Raises UserError, naming the nearest id, when there is none."""
    if claim_id not in CLAIMS:
        advice = nearest(claim_id, CLAIMS) or f"; the claims are {', '.join(CLAIMS)}."
        raise UserError(f"There is no claim {claim_id!r}{advice}")
    return CLAIMS[claim_id]
