"""What is computed from the runs of an experiment's arms: gains, rates, ratios, each with an interval over seeds.

An answer names its arms and the artefacts that it needs of their runs. `interval` gets the experiment's `Results` at a scale
and gives an `Interval` in the unit of the claim's value (points, percent or a ratio), or None while runs are missing.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from alexnet.experiments.statistics import Interval, mean_interval, rate_interval, ratio_interval
from alexnet.files import Rows

if TYPE_CHECKING:
    from alexnet.experiments.results import Results

Net = tuple[np.ndarray, np.ndarray]  # probabilities (N, K) and labels (N,) of the same images in the same order


@dataclass(frozen=True)
class Where:
    """On which images an answer is measured, and in which views."""

    data: str  # the set here
    split: str
    views: str

    def counted(self, split: str | None = None, views: str | None = None) -> str:
        """Return the name of the errors counted there, or in another split or other views."""
        return f"errors/{split or self.split}/{views or self.views}"

    @property
    def predicted(self) -> str:
        """The name of the predictions there."""
        return f"predictions/{self.split}/{self.views}"


@dataclass(frozen=True)
class Answer:
    """One number of an experiment."""

    arms: tuple[str, ...]
    artefacts: Callable[[Where], tuple[str, ...]]  # what is measured of each run of the arms
    interval: Callable[["Results", Where], Interval | None]
    gain: tuple[str, str, int] | None = None  # (without, with, top): a member of the family of gains over `with`


def gain(without: str, with_: str, top: int) -> Answer:
    """Points of top-`top` error that `with_` has less than `without`; all arms compared with one control are a family."""

    def interval(results: "Results", where: Where) -> Interval | None:
        return results.family(with_, where, top).get(without)

    return Answer((without, with_), lambda where: (where.counted(),), interval, (without, with_, top))


def error(arm: str, top: int) -> Answer:
    """Error of an arm in percent, the mean over seeds; of a single run, the interval is that of the count."""

    def interval(results: "Results", where: Where) -> Interval | None:
        counts = results.counts(arm, where, top)
        return rate_interval(list(counts.values())) if counts else None

    return Answer((arm,), lambda where: (where.counted(),), interval)


def view_gain(arm: str, few: str, many: str, top: int) -> Answer:
    """Points of error that more views take away; paired by seed."""

    def interval(results: "Results", where: Where) -> Interval | None:
        rates = [results.rates(arm, Where(where.data, where.split, views), top) for views in (few, many)]
        return _paired(rates[0], rates[1])

    return Answer((arm,), lambda where: (where.counted(views=few), where.counted(views=many)), interval)


def gap(of: str, than: str, top: int = 1) -> Answer:
    """By how many points the gap of `of` between held-out and training error exceeds that of `than`; paired by seed.

    Both errors are counted with the final weights, in the central view, without dropout or noise.
    """

    def interval(results: "Results", where: Where) -> Interval | None:
        gaps = []
        for arm in (of, than):
            seen, held = (results.rates(arm, Where(where.data, s, "central"), top) for s in ("train", where.split))
            gaps.append({seed: held[seed] - seen[seed] for seed in seen.keys() & held.keys()})
        return _paired(gaps[0], gaps[1])

    return Answer((of, than), lambda w: (w.counted("train", "central"), w.counted(views="central")), interval)


def _paired(first: dict[int, float], second: dict[int, float]) -> Interval | None:
    """Return the mean of first minus second over the seeds that both have, with Student's t interval."""
    differences = [first[seed] - second[seed] for seed in sorted(first.keys() & second.keys())]
    return mean_interval(differences) if differences else None


def ratio(over: str, under: str, of: Callable[[Rows], float]) -> Answer:
    """How many times larger `of` is in the runs of `over` than of `under`, by seed; those that never arrive censor it."""

    def interval(results: "Results", where: Where) -> Interval | None:
        tops, bottoms = ({seed: of(run.metrics) for seed, run in results.runs[arm].items()} for arm in (over, under))
        seeds = sorted(tops.keys() & bottoms.keys())
        limits = (float(results.epochs_allowed(over)), float(results.epochs_allowed(under)))
        return ratio_interval([tops[s] for s in seeds], [bottoms[s] for s in seeds], limits=limits) if seeds else None

    return Answer((over, under), lambda where: (), interval)


def ensemble(arms: tuple[str, ...], nets: int, top: int) -> Answer:
    """Error in percent of the averaged predictions of several nets, the first seeds of the arms in turn.

    There is one ensemble, so the interval is that of the count.
    """

    def interval(results: "Results", where: Where) -> Interval | None:
        found = [net for arm in arms for net in results.predictions(arm, where)][:nets]
        if len(found) < nets:
            return None
        wrong_N = wrong_of_mean(found, top)
        return rate_interval([(int(wrong_N.sum()), len(wrong_N))])

    return Answer(arms, lambda where: (where.predicted,), interval)


def ensemble_gain(arm: str, nets: int, top: int) -> Answer:
    """Points of error that the averaged predictions of several nets have less than one of them has on average.

    There is one ensemble, so the interval is over images, on which the two are paired.
    """

    def interval(results: "Results", where: Where) -> Interval | None:
        found = results.predictions(arm, where)[:nets]
        if len(found) < nets:
            return None
        alone_N = np.mean([wrong_of_mean([net], top) for net in found], axis=0)
        gained_N = 100 * (alone_N - wrong_of_mean(found, top))
        mean, half = float(gained_N.mean()), 1.96 * float(gained_N.std(ddof=1)) / math.sqrt(len(gained_N))
        return Interval(mean, mean - half, mean + half, 0.95, 1, f"paired over {len(gained_N):,} images", "ensemble")

    return Answer((arm,), lambda where: (where.predicted,), interval)


def mean_probabilities(nets_NK: Sequence[np.ndarray]) -> np.ndarray:
    """Return the mean (N, K), float64, of the probabilities that several nets give to the same images.

    So the rows "5 CNNs" and "7 CNNs" of Table 2 are made. Source 2012: coefficients tuned on the validation set in steps of
    .05 (avg-valid.py).
    """
    return sum(net.astype(np.float64) for net in nets_NK) / len(nets_NK)


def wrong_of_mean(nets: Sequence[Net], top: int) -> np.ndarray:
    """Return for each image (N,) whether its class is below the first `top` of the nets' mean probabilities; ties are."""
    mean_NK = mean_probabilities([probabilities_NK for probabilities_NK, _ in nets])
    labels_N = nets[0][1]
    true_N1 = mean_NK[np.arange(len(labels_N)), labels_N][:, None]
    return (~(mean_NK < true_N1)).sum(axis=1) - 1 >= top


def neighbour_ratio(arm: str, layer: str) -> Answer:
    """How many times more of the nearest training images have a query's class by features than by pixels; by seed."""
    name = f"neighbours/{layer}"

    def interval(results: "Results", where: Where) -> Interval | None:
        shares = [
            [float((near[f"{kind}_labels"] == near["labels"][:, None]).mean()) for kind in ("features", "pixels")]
            for near in results.measured(arm, name).values()
        ]
        return ratio_interval(*zip(*shares, strict=True)) if shares and all(min(pair) > 0 for pair in shares) else None

    return Answer((arm,), lambda where: (name,), interval)


def first_epoch_below(line: float) -> Callable[[Rows], float]:
    """Return the function rows -> first epoch at which the training error is `line` or less, interpolated; inf if never."""
    return lambda rows: crossing_epoch(training_errors(rows), line)


def training_errors(rows: Rows) -> list[tuple[int, float]]:
    """Return (epoch, top-1 error) over all training images with the weights after each epoch, from a run's metrics."""
    of_split = [row for row in rows if row["split"] == "train" and row["k"] == 1 and row["views"] != "as trained"]
    return [(row["epoch"], row["wrong"] / row["total"]) for row in of_split]


def crossing_epoch(curve: Sequence[tuple[int, float]], line: float) -> float:
    """Return the first epoch at which a curve of (epoch, error) is at `line` or below, interpolated; inf if it never is."""
    before: tuple[int, float] | None = None
    for epoch, error in curve:
        if error <= line:
            if before is None:
                return float(epoch)
            return before[0] + (epoch - before[0]) * (before[1] - line) / (before[1] - error)
        before = (epoch, error)
    return math.inf
