"""What is computed from the runs of an experiment's arms: gains, rates, ratios, each with an interval over seeds.

An answer names its arms and the artefacts that it needs of their runs. `interval` gets the experiment's `Results` at a scale
and gives an `Interval` in the unit of the claim's value (points, percent or a ratio), or None while runs are missing.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from alexnet.experiments.statistics import Interval, count_interval, mean_interval, rate_interval, ratio_interval
from alexnet.files import Rows
from alexnet.model.presets import num_columns_of

if TYPE_CHECKING:
    from alexnet.experiments.results import Results
    from alexnet.experiments.runs import Run

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


def difference(first: tuple[str, dict[str, str]], second: tuple[str, dict[str, str]], top: int) -> Answer:
    """Points of error of `first` beyond `second`, each an arm and what differs from the claim's split and views, by seed."""

    def interval(results: "Results", where: Where) -> Interval | None:
        return _paired(*(results.rates(arm, replace(where, **other), top) for arm, other in (first, second)))

    def counted(where: Where) -> tuple[str, ...]:
        return tuple(replace(where, **other).counted() for _, other in (first, second))

    return Answer(tuple(dict.fromkeys([first[0], second[0]])), counted, interval)


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


def ratio(over: str, under: str, of: "Callable[[Run], float]") -> Answer:
    """How many times larger `of` is in the runs of `over` than of `under`, by seed; those that never arrive censor it."""

    def interval(results: "Results", where: Where) -> Interval | None:
        tops, bottoms = ({seed: of(run) for seed, run in results.runs[arm].items()} for arm in (over, under))
        if not (seeds := sorted(tops.keys() & bottoms.keys())):
            return None
        limits = (float(results.epochs_allowed(over)), float(results.epochs_allowed(under)))
        return ratio_interval([tops[s] for s in seeds], [bottoms[s] for s in seeds], limits=limits)

    return Answer((over, under), lambda where: (), interval)


def time_ratio(over: str, under: str) -> Answer:
    """How many times longer an image takes in runs of `over` than of `under`, by seed; only with a GPU for each column."""

    def seconds(run: "Run") -> float:
        return 1 / median(row["images_per_second"] for row in run.timing)

    def fits(run: "Run") -> bool:
        return run.device != "cpu" and {s["ranks"] for s in run.manifest["segments"]} == {num_columns_of(run.config.net)}

    def interval(results: "Results", where: Where) -> Interval | None:
        tops, bottoms = ({s: run for s, run in results.runs[arm].items() if fits(run)} for arm in (over, under))
        if not (seeds := tops.keys() & bottoms.keys()) or len({r.device for r in (*tops.values(), *bottoms.values())}) > 1:
            return None
        return ratio_interval(*([seconds(runs[seed]) for seed in sorted(seeds)] for runs in (tops, bottoms)))

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


# How nearest training images were found: (artefact, its arrays' prefix).
FC7, PIXELS, CODES = ("neighbours/fc7", "features"), ("neighbours/fc7", "pixels"), ("codes/fc7", "codes")


def neighbour_ratio(arm: str, of: tuple[str, str], than: tuple[str, str]) -> Answer:
    """How many times more of the nearest training images have a query's class by `of` than by `than`; by seed."""

    def interval(results: "Results", where: Where) -> Interval | None:
        found = [
            {s: float((near[f"{kind}_labels"] == near["labels"][:, None]).mean()) for s, near in by_seed.items()}
            for name, kind in (of, than)
            for by_seed in [results.measured(arm, name)]
        ]
        shares = [(found[0][s], found[1][s]) for s in sorted(found[0].keys() & found[1].keys())]
        return ratio_interval(*zip(*shares, strict=True)) if shares and all(min(pair) > 0 for pair in shares) else None

    return Answer((arm,), lambda where: tuple(dict.fromkeys([of[0], than[0]])), interval)


def divided(arm: str) -> Answer:
    """In how many percent of the arm's runs the columns divide the work, by the rule of `share_of_deals`."""

    def interval(results: "Results", where: Where) -> Interval | None:
        is_so = [share_of_deals(arrays["kernels"]) < BY_CHANCE for arrays in results.measured(arm, "kernels").values()]
        if len(is_so) < 2:
            return mean_interval([100.0 * each for each in is_so]) if is_so else None
        return replace(count_interval(sum(is_so), len(is_so)), n=len(is_so), method=f"Wilson on {len(is_so)} runs")

    return Answer((arm,), lambda where: ("kernels",), interval)


BY_CHANCE = 0.05  # how often the rule sees a division where there is none


def colour_index(kernels_CcHW: np.ndarray) -> float:
    """Return the share outside the grey axis of the energy of all kernels."""
    energy = np.square(kernels_CcHW).sum()
    grey = 3 * np.square(kernels_CcHW.mean(axis=1)).sum()
    return 1 - grey / energy


def share_of_deals(kernels_CcHW: np.ndarray, deals: int = 1000) -> float:
    """Return in what share of random deals the columns differ as much; less than one in twenty is a division."""
    draws = np.random.default_rng(0)

    def difference(order: np.ndarray) -> float:
        first, second = np.split(kernels_CcHW[order], 2)
        return abs(colour_index(first) - colour_index(second))

    observed = difference(np.arange(len(kernels_CcHW)))
    dealt = [difference(draws.permutation(len(kernels_CcHW))) for _ in range(deals)]
    return np.mean(np.array(dealt) >= observed)


def rounding(arm: str) -> Answer:
    """Points of error that counting adds when logits are rounded to bf16, where ties count as errors; by seed."""

    def interval(results: "Results", where: Where) -> Interval | None:
        found = results.measured(arm, f"rounded/{where.split}").values()
        return mean_interval([float(100 * (a["rounded"] - a["wrong"]) / a["total"]) for a in found]) if found else None

    return Answer((arm,), lambda where: (f"rounded/{where.split}",), interval)


def first_epoch_below(line: float) -> "Callable[[Run], float]":
    """Return the function run -> first epoch at which the training error is `line` or less, interpolated; inf if never."""
    return lambda run: crossing_epoch(training_errors(run.metrics), line)


def first_epoch_of_loss(share: float) -> "Callable[[Run], float]":
    """Return the function run -> first epoch whose mean training loss is `share` of ln K or less; inf if there is none."""

    def epoch_of(run: "Run") -> float:
        losses = [(row["epoch"], row["loss"]) for row in run.history if row["loss"] is not None]
        return crossing_epoch(losses, share * math.log(run.config.net.num_classes))

    return epoch_of


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
