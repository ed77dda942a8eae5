"""From measurements to an interval, and from the interval to a verdict on one value of the paper. Its words:

agrees                                 on the claim's own data, split and views: the estimate is within the margin, and the
                                       interval of an effect excludes "no effect" on the claimed side
same direction, smaller (or larger)    likewise, but the effect lies outside the margin
lower (or higher) than the paper       a value that is no effect (an error rate) lies outside the margin
not distinguishable from no effect     the interval contains "no effect"
opposite direction                     the interval excludes "no effect" on the other side
no interval from one run               an effect needs two runs or more
not run at this scale                  nothing was measured

At the scale toy, and on a stand-in or any data but the claim's, no number is compared. The words are then only
direction seen, direction not seen, opposite direction seen, no interval from one run, not run at this scale, and
not comparable (a value that is no effect has no direction).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from scipy.special import stdtrit

from alexnet.claims.paper import Value
from alexnet.config import Scale

Word = Literal[
    "agrees", "same direction, smaller", "same direction, larger", "lower than the paper", "higher than the paper",
    "not distinguishable from no effect", "opposite direction", "no interval from one run", "not run at this scale",
    "direction seen", "direction not seen", "opposite direction seen", "not comparable",
]  # fmt: skip
Side = Literal["claimed", "neither", "other", "one run", "no effect to see"]
ELSEWHERE: dict[Side, Word] = {
    "claimed": "direction seen",
    "neither": "direction not seen",
    "other": "opposite direction seen",
    "one run": "no interval from one run",
    "no effect to see": "not comparable",
}


@dataclass(frozen=True)
class Interval:
    """An estimate from `n` runs and the interval around it; `low` and `high` are None when `n` is 1."""

    estimate: float
    low: float | None
    high: float | None
    confidence: float
    n: int
    method: str

    def in_percent(self) -> "Interval":
        """Return the interval of fractions in percent, the unit of the paper's error rates and gains."""
        low, high = (None if bound is None else 100 * bound for bound in (self.low, self.high))
        return replace(self, estimate=100 * self.estimate, low=low, high=high)

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.estimate:.3g} (one run, no interval)"
        return f"{self.estimate:.3g} ({self.confidence:.0%} interval {self.low:.3g} to {self.high:.3g}, {self.n} runs)"


@dataclass(frozen=True)
class Verdict:
    """One of the words above, and the sentence that a reader gets."""

    word: Word
    sentence: str


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Return the mean of one value per seed and Student's t interval for it. Raises ValueError for none or infinite ones."""
    if len(values) == 0 or not all(math.isfinite(value) for value in values):
        raise ValueError(f"`values` (={list(values)}) must be one or more finite numbers")
    n, mean = len(values), math.fsum(values) / len(values)
    if n < 2:
        return Interval(mean, None, None, confidence, n, "no interval from one run")
    sd = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    half = float(stdtrit(n - 1, (1 + confidence) / 2)) * sd / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, confidence, n, "Student t on the values")


def ratio_interval(numerators: Sequence[float], denominators: Sequence[float], confidence: float = 0.95) -> Interval:
    """Return the geometric mean of the ratios paired by seed, and Student's t interval on their logarithms.

    Raises ValueError when the pairs do not match or a value is not positive and finite (a run that never crossed the line).
    """
    if len(numerators) != len(denominators):
        raise ValueError(f"{len(numerators)} `numerators` cannot be paired with {len(denominators)} `denominators`")
    if not all(math.isfinite(value) and value > 0 for value in (*numerators, *denominators)):
        raise ValueError(f"a ratio needs positive finite values, not {list(numerators)} over {list(denominators)}")
    logs = mean_interval([math.log(a / b) for a, b in zip(numerators, denominators, strict=True)], confidence)
    low, high = (None if bound is None else math.exp(bound) for bound in (logs.low, logs.high))
    method = logs.method.replace("values", "logarithms of the paired ratios")
    return Interval(math.exp(logs.estimate), low, high, confidence, logs.n, method)


def judge(
    value: Value,
    interval: Interval | None,
    *,
    dataset: str,
    scale: Scale,
    no_effect: float | None,
    split: str | None = None,
    views: str | None = None,
) -> Verdict:
    """Return the verdict on `value` from an interval in its unit (`Interval.in_percent`), or from None: not run.

    `no_effect` is 0 for a gain, 1 for a ratio, None for a value that is no effect. `dataset`, `split` and `views` are the
    measurement's; a `split` or `views` of None is taken to be the claim's. Raises ValueError for a claim of no effect.
    Counts and constants are of no data set and are never comparable here: ask `Value.is_close`.
    """
    where = f"on {dataset} at the scale {scale}"
    bound, unit = (f"{value.bound} " if value.bound != "equal" else ""), ("" if value.unit == "ratio" else f" {value.unit}")
    claims_data = " ".join(part for part in (value.dataset, value.split, value.views) if part)
    paper = f"the paper's {value.name} is {bound}{value.paper:g}{unit}, on {claims_data or 'no data'}"
    if interval is None:
        return Verdict("not run at this scale", f"Not run {where}; {paper}.")
    comparable = scale != "toy" and value.is_measured_on(dataset, split, views)
    side = _side(value, interval, no_effect)
    word = _word(value, interval, no_effect, side) if comparable else ELSEWHERE[side]
    return Verdict(word, f"{word.capitalize()}: {interval} {where}; {paper}{'' if comparable else ', and is not compared'}.")


def _side(value: Value, interval: Interval, no_effect: float | None) -> Side:
    """Return on which side of `no_effect` the interval lies, seen from the paper's value."""
    if no_effect is None:
        return "no effect to see"
    if value.paper == no_effect:
        raise ValueError(f"`no_effect` (={no_effect}) is the paper's own {value.name}: there is no direction to see")
    if interval.low is None or interval.high is None:
        return "one run"
    if interval.low <= no_effect <= interval.high:
        return "neither"
    return "claimed" if (interval.low > no_effect) == (value.paper > no_effect) else "other"


def _word(value: Value, interval: Interval, no_effect: float | None, side: Side) -> Word:
    if side == "one run":
        return "no interval from one run"
    if side in ("neither", "other"):
        return "not distinguishable from no effect" if side == "neither" else "opposite direction"
    if value.is_close(interval.estimate):
        return "agrees"
    if no_effect is None:
        return "lower than the paper" if interval.estimate < value.paper else "higher than the paper"
    larger = abs(interval.estimate - no_effect) > abs(value.paper - no_effect)
    return "same direction, larger" if larger else "same direction, smaller"
