"""From measurements to an interval, and from the interval to a verdict on one value of the paper.

The unit of repetition is the seed. Error rates are in percent and gains in points here, as the claims have them. The
words are those of the book's chapter "How a claim is judged". All that a bound allows stands for the paper's number.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy.special import gammainccinv, ndtr, ndtri, stdtrit  # Why not scipy.stats: it takes a second to import

from alexnet.paper.claims import Value
from alexnet.preprocessing.catalog import title_of

Word = Literal[
    "agrees", "compatible", "smaller", "larger", "not distinguishable from no effect", "opposite", "lower", "higher",
    "direction seen", "direction not seen", "not compared", "one run", "one ensemble", "diverged", "not run at this scale",
]  # fmt: skip
ONE_RUN, ONE_ENSEMBLE = "one run", "one ensemble"
NO_VERDICT = (ONE_RUN, ONE_ENSEMBLE, "not compared", "diverged")


@dataclass(frozen=True)
class Interval:
    """An estimate from `n` runs and the interval around it."""

    estimate: float  # a bound too, if one end is infinite: the interval is then one-sided
    low: float | None  # None when nothing is known of the spread
    high: float | None
    n: int  # runs; of the arm with fewer, when two are compared
    counted: str = "run"  # what `n` counts

    @property
    def ends(self) -> tuple[float, float] | None:
        """Both ends, or None."""
        return None if self.low is None or self.high is None else (self.low, self.high)

    def __str__(self) -> str:
        runs = f"{self.n:,} {self.counted}" + "s" * (self.n != 1)
        if self.low is None or self.high is None:
            return f"{self.estimate:.2f} ({ONE_RUN if self.n == 1 else f'{runs}, no interval'})"
        sign, ends = {
            (False, False): ("", f"95% interval {self.low:.2f} to {self.high:.2f}"),
            (False, True): ("at least ", f"one-sided: above {self.low:.2f}"),
            (True, False): ("at most ", f"one-sided: below {self.high:.2f}"),
            (True, True): ("about ", "bounded on neither side"),
        }[math.isinf(self.low), math.isinf(self.high)]
        return f"{sign}{self.estimate:.2f} ({ends}, {runs})"


@dataclass(frozen=True)
class Verdict:
    """One of the words above, and the sentence that a reader gets."""

    word: Word
    sentence: str


def mean_interval(values: Sequence[float]) -> Interval:
    """Return the mean of one value per seed and Student's t interval for it. Raises ValueError for none or infinite ones."""
    if len(values) == 0 or not all(map(math.isfinite, values)):
        raise ValueError(f"`values` (={list(values)}) must be one or more finite numbers")
    n, mean = len(values), math.fsum(values) / len(values)
    if n < 2:
        return Interval(mean, None, None, n)
    sd = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    half = float(stdtrit(n - 1, 0.975)) * sd / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, n)


def ratio_interval(
    numerators: Sequence[float], denominators: Sequence[float], limits: Sequence[float] = (math.nan, math.nan)
) -> Interval:
    """Return the geometric mean of the ratios paired by seed, and Student's t interval on their logarithms.

    A value of infinity is a run that had not arrived when its epochs ended, after `limits[0]` for numerators and `limits[1]`
    for denominators. It counts as the limit, which bounds the ratio: from below where a numerator is censored, from above
    where a denominator is. So the interval of the limited ratios keeps only the end that bounds the true one, and none when
    both kinds occur. Where most of few runs are censored that end holds less often than it says (88 % of trials for three
    seeds at worst), if by less than the spread of the seeds. Raises ValueError for values that are not positive, and for
    infinity without limits.
    """
    values = np.array([numerators, denominators], dtype=float)
    censored, late = np.isinf(values), np.array(limits)[:, None]
    values = np.where(censored, late, values)
    if not (values > 0).all():
        raise ValueError(f"a ratio needs positive values, or `limits`: {list(numerators)} over {list(denominators)}")
    logs = mean_interval([math.log(above / below) for above, below in values.T.tolist()])
    low, high = (None if end is None else math.exp(end) for end in (logs.low, logs.high))
    if censored.any():
        low, high = (math.exp(logs.estimate) if end is None else end for end in (low, high))
        low, high = -math.inf if censored[1].any() else low, math.inf if censored[0].any() else high
    return Interval(math.exp(logs.estimate), low, high, logs.n)


def family_intervals(
    samples: Mapping[str, Sequence[float]], control: Sequence[float], members: int = 0, *others: Sequence[float]
) -> dict[str, Interval]:
    """Return the difference of each sample's mean to the control's, with simultaneous intervals (Dunnett's, two-sided).

    `members` is how many samples the family will have, if more than there are: those to come count as large as the smallest.
    The variance is pooled over all samples, the control and `others`, which are no members, so that a single value has an
    interval too when others are repeated. Without any repetition the intervals have no ends.
    """
    groups, base = {name: np.array(values, dtype=float) for name, values in samples.items()}, np.array(control, dtype=float)
    pooled = [base, *groups.values(), *map(np.array, others)]
    freedom, sizes = sum(len(values) - 1 for values in pooled), [*map(len, groups.values())]
    sizes += [min(sizes)] * (members - len(sizes))
    square = sum(float(((values - values.mean()) ** 2).sum()) for values in pooled)
    reach = dunnett_critical(sizes, len(base), freedom) * math.sqrt(square / freedom) if freedom else math.nan
    found = {}
    for name, values in groups.items():
        estimate, half = float(values.mean() - base.mean()), reach * math.sqrt(1 / len(values) + 1 / len(base))
        low, high = (estimate - half, estimate + half) if freedom else (None, None)
        found[name] = Interval(estimate, low, high, min(len(values), len(base)))
    return found


def dunnett_critical(sizes: Sequence[int], control: int, freedom: int) -> float:
    """Return Dunnett's two-sided critical value at 95 % for samples of these sizes against a control of `control` values.

    `freedom` is the pooled variance's. All comparisons share the control, so given its mean they are independent, which
    leaves a product to integrate over it and over the pooled sd. By Gauss's rules, so the value is the same each time;
    scipy's is drawn at random.
    """
    from scipy.optimize import brentq  # Why here: it takes a quarter of what a chapter imports

    size, times = np.unique(sizes, return_counts=True)
    loading = np.sqrt(size / (size + control))  # the correlation of two comparisons is the product of their loadings
    nodes, weights = np.polynomial.hermite_e.hermegauss(120)
    weights = weights / weights.sum()
    levels, level_weights = np.polynomial.legendre.leggauss(120)
    # Of the pooled sd to the true one, up to where 1e-14 of chi's distribution is left; the weights are its density.
    scale = (levels + 1) / 2 * math.sqrt(2 * gammainccinv(freedom / 2, 1e-14) / freedom)
    level_weights = level_weights * np.exp((freedom - 1) * np.log(scale) + freedom * (1 - scale**2) / 2)
    level_weights = level_weights / level_weights.sum()

    def coverage(critical: float) -> float:
        shift, reach = loading * nodes[:, None], critical * scale[:, None, None]  # (control, size), (sd, 1, 1)
        spread = np.sqrt(1 - loading**2)
        inside = ndtr((reach - shift) / spread) - ndtr((-reach - shift) / spread)
        return float(level_weights @ ((inside**times).prod(axis=-1) @ weights))

    return float(brentq(lambda critical: coverage(critical) - 0.95, 0.01, 1e4, xtol=1e-8))


def count_interval(wrong: int, total: int) -> Interval:
    """Return the error rate of a single net in percent, and Wilson's interval: what the sample of images leaves open."""
    if not 0 <= wrong <= total or total == 0:
        raise ValueError(f"`wrong` (={wrong}) of `total` (={total}) is no error rate")
    z, rate = float(ndtri(0.975)), wrong / total
    middle = (rate + z**2 / (2 * total)) / (1 + z**2 / total)
    half = z / (1 + z**2 / total) * math.sqrt(rate * (1 - rate) / total + z**2 / (4 * total**2))
    return Interval(100 * rate, 100 * (middle - half), 100 * (middle + half), 1)


def rate_interval(counts: Sequence[tuple[int, int]]) -> Interval:
    """Return the mean error rate in percent from one (wrong, total) a seed, within 0 to 100; of one, `count_interval`."""
    found = count_interval(*counts[0]) if len(counts) == 1 else mean_interval([100 * w / total for w, total in counts])
    return replace(found, low=max(0.0, found.low), high=min(100.0, found.high))


def on(data: str, split: str, views: str) -> str:
    """Return on what something was measured, in words: "ImageNet-20, validation, ten views"."""
    words = {"": "", "central": "central view", "whole": "whole images", "grid": "nine views", "as trained": views}
    part = split.replace("train", "training").replace("val", "validation")
    return ", ".join(filter(None, [title_of(data), part, words.get(views, f"{views} views")]))


def unit_of(value: Value) -> str:
    """Return the unit of a value as it stands behind a number."""
    return {"count": "", "constant": "", "ratio": " times", "%": " %"}.get(value.unit, f" {value.unit}")


def with_unit(interval: Interval, value: Value) -> str:
    """Return an estimate in the unit of a value, with its interval."""
    estimate, _, rest = str(interval).partition(" (")
    return f"{estimate}{unit_of(value)} ({rest}" if rest else f"{estimate}{unit_of(value)}"


def judge(value: Value, interval: Interval | None, *, dataset: str, split: str, views: str, scale: str) -> Verdict:
    """Return the verdict on `value` from an interval in its unit, or from None: not run. The rest is the measurement's."""
    at, theirs = on(dataset, split, views), on(value.dataset, value.split, value.views)
    bound = "" if value.bound == "equal" else f"{value.bound} "
    printed = "a direction and no number" if value.is_direction else f"{bound}{value.paper:g}{unit_of(value)}"
    says = "the question is our own" if value.asked else f"the paper gives {printed}, on {theirs or 'no data'}"
    if interval is None:
        return Verdict("not run at this scale", f"Not run at scale {scale}, on {at}: {value.key}; {says}.")
    compared = scale not in ("toy", "rehearsal") and value.is_measured_on(dataset, split, views) and not value.is_direction
    word = _word(value, interval, compared)
    aside = "" if compared or value.is_direction or word == "not compared" else ", and the numbers are not compared"
    if word == ONE_RUN and interval.low is not None:
        aside += "; the interval has its spread from other arms"
    if word == "not distinguishable from no effect":
        aside = f"; the interval {'contains' if _contains(value, *interval.ends) else 'does not contain'} the paper's number"
    return Verdict(
        word, f"{word.capitalize()}: {value.key} {with_unit(interval, value)} on {at}, scale {scale}; {says}{aside}."
    )


def _word(value: Value, interval: Interval, compared: bool) -> Word:
    nothing = value.no_effect
    if nothing is None and not compared:
        return "not compared"
    if interval.ends is None or (nothing is not None and interval.n < 2):
        return ONE_RUN if interval.counted == "run" else ONE_ENSEMBLE
    low, high = interval.ends
    if nothing is not None:
        claims_more = value.paper >= nothing
        if low <= nothing <= high:
            return "not distinguishable from no effect" if compared else "direction not seen"
        if (low > nothing) != claims_more:
            return "opposite"
        if not compared:
            return "direction seen"
    if value.accepted[0] <= low and high <= value.accepted[1]:
        return "agrees"
    if _contains(value, low, high):
        return "compatible"
    above = low > value.stated[1]
    if nothing is None:
        return "higher" if above else "lower"
    return "larger" if above == claims_more else "smaller"


def _contains(value: Value, low: float, high: float) -> bool:
    return low <= value.stated[1] and value.stated[0] <= high
