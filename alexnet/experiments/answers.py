"""What is computed from the runs of an experiment's arms: gains, rates, ratios, each with an interval over seeds.

An answer names its arms and the artefacts that it needs of their runs. `interval` gets the experiment's `Results` at a scale
and gives an `Interval` in the unit of the claim's value (points, percent or a ratio), or None while runs are missing.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from alexnet.experiments.statistics import Interval, count_interval, mean_interval, rate_interval, ratio_interval
from alexnet.files import Rows
from alexnet.model.presets import num_columns_of

if TYPE_CHECKING:
    from alexnet.experiments.results import Results
    from alexnet.experiments.runs import Run

Net = tuple[np.ndarray, np.ndarray]  # probabilities (N, K) and labels (N,) of the same images in the same order
GAP = 0  # in place of a top-k: the gap between held-out and training top-1 error
BY_CHANCE = 0.05  # how often the rule of `share_of_deals` sees a division where there is none
# Vectors by which nearest training images were found -> the artefact that has them.
FOUND_BY = {"features": "neighbours/fc7", "pixels": "neighbours/fc7", "codes": "codes/fc7"}


@dataclass(frozen=True)
class Where:
    """On which images an answer is measured, and in which views."""

    data: str  # the set here
    split: str
    views: str

    @property
    def counted(self) -> str:
        """The name of the errors counted there."""
        return f"errors/{self.split}/{self.views}"

    @property
    def predicted(self) -> str:
        """The name of the predictions there."""
        return f"predictions/{self.split}/{self.views}"

    @property
    def gap(self) -> tuple["Where", "Where"]:
        """Training and held-out images in the central view: with the final weights, without dropout or noise."""
        return replace(self, split="train", views="central"), replace(self, views="central")


@dataclass(frozen=True)
class Answer:
    """One number of an experiment."""

    arms: tuple[str, ...]
    artefacts: Callable[[Where], tuple[str, ...]]  # what is measured of each run of the arms
    interval: Callable[["Results", Where], Interval | None]
    gain: tuple[str, str, int] | None = None  # (without, with, top or GAP): a member of the family of gains over `with`


def _over(interval_of: Callable[..., Interval | None], *found: Mapping[int, Any]) -> Interval | None:
    """Return `interval_of` of what was found by seed, of the seeds that all have; None if there are none."""
    seeds = sorted(set.intersection(*map(set, found)))
    return interval_of(*([each[seed] for seed in seeds] for each in found)) if seeds else None


def gain(without: str, with_: str, top: int) -> Answer:
    """Points of top-`top` error that `with_` has less than `without`; all arms compared with one control are a family."""
    of = (without, with_, top)
    return Answer(of[:2], lambda at: (at.counted,), lambda results, at: results.gain(*of[:2], at, top), of)


def error(arm: str, top: int) -> Answer:
    """Error of an arm in percent, the mean over seeds; of a single run, the interval is that of the count."""
    return Answer((arm,), lambda at: (at.counted,), lambda results, at: _over(rate_interval, results.counts(arm, at, top)))


def difference(first: tuple[str, dict[str, str]], second: tuple[str, dict[str, str]], top: int) -> Answer:
    """Points of error of `first` beyond `second`, each an arm and what differs from the claim's split and views, by seed."""
    sides = (first, second)

    def interval(results: "Results", at: Where) -> Interval | None:
        found = (results.rates(arm, replace(at, **other), top) for arm, other in sides)
        return _over(lambda *pair: mean_interval([a - b for a, b in zip(*pair, strict=True)]), *found)

    arms = tuple(dict.fromkeys(arm for arm, _ in sides))
    return Answer(arms, lambda at: tuple(replace(at, **other).counted for _, other in sides), interval)


def gap(of: str, than: str) -> Answer:
    """By how many points the gap of `of` between held-out and training error exceeds that of `than`: a family like gains."""
    return replace(gain(of, than, GAP), artefacts=lambda at: tuple(where.counted for where in at.gap))


def ratio(over: str, under: str, of: "Callable[[Run], float]") -> Answer:
    """How many times larger `of` is in the runs of `over` than of `under`, by seed; those that never arrive censor it."""

    def interval(results: "Results", at: Where) -> Interval | None:
        sides = [results.runs[arm] for arm in (over, under)]
        limits = [next((run.config.epochs for run in by_seed.values()), math.nan) for by_seed in sides]
        found = ({seed: epoch for seed, run in by_seed.items() if (epoch := of(run)) > 0} for by_seed in sides)
        return _over(partial(ratio_interval, limits=limits), *found)

    return Answer((over, under), lambda at: (), interval)


def time_ratio(over: str, under: str) -> Answer:
    """How many times longer an image takes in runs of `over` than of `under`, by seed; only with a GPU for each column."""

    def fits(run: "Run") -> bool:
        ranks = {segment["ranks"] for segment in run.manifest["segments"]}
        return run.device != "cpu" and bool(run.timing) and ranks == {num_columns_of(run.config.net)}

    def seconds(runs: "list[Run]") -> list[float]:
        return [1 / median(row["images_per_second"] for row in run.timing) for run in runs]

    def interval_of(above: "list[Run]", below: "list[Run]") -> Interval | None:
        is_one_kind = len({run.device for run in above + below}) == 1
        return ratio_interval(seconds(above), seconds(below)) if is_one_kind else None

    def interval(results: "Results", at: Where) -> Interval | None:
        return _over(interval_of, *({s: r for s, r in results.runs[arm].items() if fits(r)} for arm in (over, under)))

    return Answer((over, under), lambda at: (), interval)


def _of_nets(arms: tuple[str, ...], nets: int, interval_of: Callable[[list[Net]], Interval]) -> Answer:
    """Return an answer from the predictions of so many nets, the first seeds of the arms in turn."""

    def interval(results: "Results", at: Where) -> Interval | None:
        found = [net for arm in arms for net in results.predictions(arm, at)][:nets]
        return interval_of(found) if len(found) == nets else None

    return Answer(arms, lambda at: (at.predicted,), interval)


def ensemble(arms: tuple[str, ...], nets: int, top: int) -> Answer:
    """Error in percent of the averaged predictions of several nets. There is one ensemble: the interval is the count's."""

    def interval_of(found: list[Net]) -> Interval:
        wrong_N = wrong_of_mean(found, top)
        return replace(count_interval(int(wrong_N.sum()), len(wrong_N)), counted="ensemble")

    return _of_nets(arms, nets, interval_of)


def ensemble_gain(arm: str, nets: int, top: int) -> Answer:
    """Points of error that the averaged predictions of several nets have less than one of them has on average."""
    # There is one ensemble, so the interval is over images, on which the two are paired.

    def interval_of(found: list[Net]) -> Interval:
        alone_N = np.mean([wrong_of_mean([net], top) for net in found], axis=0)
        gained_N = 100 * (alone_N - wrong_of_mean(found, top))
        mean, half = float(gained_N.mean()), 1.96 * float(gained_N.std(ddof=1)) / math.sqrt(len(gained_N))
        return Interval(mean, mean - half, mean + half, 1, "ensemble")

    return _of_nets((arm,), nets, interval_of)


def mean_probabilities(nets_NK: Sequence[np.ndarray]) -> np.ndarray:
    """Return the mean (N, K), float64, of the probabilities that several nets give to the same images (Table 2)."""
    # Source 2012: coefficients tuned on the validation set in steps of .05 (avg-valid.py).
    return sum(net.astype(np.float64) for net in nets_NK) / len(nets_NK)


def wrong_of_mean(nets: Sequence[Net], top: int) -> np.ndarray:
    """Return for each image (N,) whether its class is below the first `top` of the nets' mean probabilities; ties are."""
    mean_NK = mean_probabilities([probabilities_NK for probabilities_NK, _ in nets])
    true_N1 = np.take_along_axis(mean_NK, nets[0][1].astype(np.int64)[:, None], axis=1)
    return (~(mean_NK < true_N1)).sum(axis=1) - 1 >= top


def neighbour_ratio(arm: str, of: str, than: str) -> Answer:
    """How many times more of the nearest training images have a query's class by `of` than by `than`; by seed."""

    def shares(results: "Results", kind: str) -> dict[int, float]:
        found = results.measured(arm, FOUND_BY[kind])
        return {seed: float((near[f"{kind}_labels"] == near["labels"][:, None]).mean()) for seed, near in found.items()}

    def interval_of(above: list[float], below: list[float]) -> Interval | None:
        return ratio_interval(above, below) if min(above + below) > 0 else None

    return Answer(
        (arm,),
        lambda at: (FOUND_BY[of], FOUND_BY[than]),
        lambda results, at: _over(interval_of, shares(results, of), shares(results, than)),
    )


def divided(arm: str) -> Answer:
    """In how many percent of the arm's runs the columns divide the work, by the rule of `share_of_deals`."""

    def interval_of(found: list[dict[str, np.ndarray]]) -> Interval:
        is_so = [share_of_deals(arrays["kernels"]) < BY_CHANCE for arrays in found]
        if len(is_so) < 2:
            return mean_interval([100.0 * is_so[0]])
        return replace(count_interval(sum(is_so), len(is_so)), n=len(is_so))

    return Answer((arm,), lambda at: ("kernels",), lambda results, at: _over(interval_of, results.measured(arm, "kernels")))


def rounding(arm: str) -> Answer:
    """Points of error that counting adds when logits are rounded to bf16, where ties count as errors; by seed."""

    def interval_of(found: list[dict[str, np.ndarray]]) -> Interval:
        return mean_interval([float(100 * (a["rounded"] - a["wrong"]) / a["total"]) for a in found])

    name = "rounded/{0.split}".format
    return Answer((arm,), lambda at: (name(at),), lambda results, at: _over(interval_of, results.measured(arm, name(at))))


def colour_index(kernels_CcHW: np.ndarray) -> float:
    """Return the share outside the grey axis of the energy of all kernels."""
    return 1 - 3 * np.square(kernels_CcHW.mean(axis=1)).sum() / np.square(kernels_CcHW).sum()


def share_of_deals(kernels_CcHW: np.ndarray) -> float:
    """Return in what share of random deals the columns differ as much; less than one in twenty is a division."""
    draws = np.random.default_rng(0)

    def difference(kernels_CcHW: np.ndarray) -> float:
        first, second = map(colour_index, np.split(kernels_CcHW, 2))
        return abs(first - second)

    observed = difference(kernels_CcHW)
    return np.mean([difference(draws.permutation(kernels_CcHW)) >= observed for _ in range(1000)])


def first_epoch_below(line: float) -> "Callable[[Run], float]":
    """Return the function run -> first epoch at which the training error is `line` or less, interpolated; inf if never."""
    return lambda run: crossing_epoch(training_errors(run.metrics), line)


def first_epoch_of_loss(share: float) -> "Callable[[Run], float]":
    """Return the function run -> first epoch whose mean training loss is `share` of ln K or less; inf if there is none."""
    return lambda run: crossing_epoch(
        [(row["epoch"], row["loss"]) for row in run.history if row["loss"] is not None],
        share * math.log(run.config.net.num_classes),
    )


def training_errors(rows: Rows) -> list[tuple[int, float]]:
    """Return (epoch, top-1 error) over all training images with the weights after each epoch, from a run's metrics."""
    counted = (row for row in rows if row["split"] == "train" and row["k"] == 1 and row["views"] != "as trained")
    return [(row["epoch"], row["wrong"] / row["total"]) for row in counted]


def crossing_epoch(curve: Sequence[tuple[int, float]], line: float) -> float:
    """Return the first epoch at which a curve of (epoch, error) is at `line` or below, interpolated; inf if it never is."""
    first = next((i for i, (_, error) in enumerate(curve) if error <= line), None)
    if not first:  # never, or from the beginning
        return math.inf if first is None else float(curve[0][0])
    (before, above), (epoch, error) = curve[first - 1 : first + 1]
    return before + (epoch - before) * (above - line) / (above - error)
