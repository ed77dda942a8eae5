"""What is computed from the runs of an experiment's arms: gains, rates, ratios, each with an interval over seeds.

An answer names its arms and the artefacts that it needs of their runs; `interval` gets an `Evidence` and returns an
`Interval` in the unit of the claim's value (points, percent or a ratio), or None while runs are missing.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from alexnet.experiments.statistics import Interval, mean_interval, rate_interval, ratio_interval

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Where:
    """On which images an answer is measured, and in which views."""

    data: str  # the set here
    split: str
    views: str

    @property
    def artefact(self) -> str:
        """The name of the errors counted there."""
        return f"errors/{self.split}/{self.views}"


class Evidence(Protocol):
    """What finished runs of an experiment at a scale say; `report` of the runs themselves is not needed to answer."""

    def rates(self, arm: str, where: Where, top: int) -> dict[int, float]:
        """Return seed -> error in percent of the arm's finished runs."""

    def counts(self, arm: str, where: Where, top: int) -> dict[int, tuple[int, int]]:
        """Return seed -> (wrong, total)."""

    def metrics(self, arm: str) -> dict[int, Rows]:
        """Return seed -> the rows counted while the arm's runs were trained."""

    def epochs_allowed(self, arm: str) -> int:
        """Return the epochs after which a run of the arm ends in any case."""

    def family(self, control: str, where: Where, top: int) -> Mapping[str, Interval]:
        """Return, by arm, the simultaneous intervals of the differences to `control`, over all arms compared with it."""

    def probabilities(self, arm: str, where: Where) -> dict[int, Any]:
        """Return seed -> (probabilities (N, K), labels (N,))."""

    def measured(self, arm: str, artefact: str) -> dict[int, Any]:
        """Return seed -> what an artefact holds, by name."""


class Answer(Protocol):
    """One number of an experiment."""

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms it needs."""

    def artefacts(self, where: Where) -> tuple[str, ...]:
        """Return the names of what is measured of each run of its arms."""

    def interval(self, evidence: Evidence, where: Where) -> Interval | None:
        """Return the number with its interval, or None."""


@dataclass(frozen=True)
class Gain:
    """How many points of error less an arm has than another; all arms compared with the same control are its family."""

    without: str
    with_: str
    top: int

    @property
    def arms(self) -> tuple[str, ...]:
        """Both arms."""
        return self.without, self.with_

    def artefacts(self, where: Where) -> tuple[str, ...]:
        """The errors."""
        return (where.artefact,)

    def interval(self, evidence: Evidence, where: Where) -> Interval | None:
        """Return the mean difference of the error rates in points, with the interval of its family."""
        return evidence.family(self.with_, where, self.top).get(self.without)


@dataclass(frozen=True)
class Error:
    """The error rate of an arm in percent."""

    arm: str
    top: int

    @property
    def arms(self) -> tuple[str, ...]:
        """The arm."""
        return (self.arm,)

    def artefacts(self, where: Where) -> tuple[str, ...]:
        """The errors."""
        return (where.artefact,)

    def interval(self, evidence: Evidence, where: Where) -> Interval | None:
        """Return the mean over seeds; of a single run, the interval is that of the count."""
        counts = evidence.counts(self.arm, where, self.top)
        return rate_interval(list(counts.values())) if counts else None


@dataclass(frozen=True)
class ViewGain:
    """How many points of error an arm loses when it is shown more views; paired by seed."""

    arm: str
    few: str
    many: str
    top: int

    @property
    def arms(self) -> tuple[str, ...]:
        """The arm."""
        return (self.arm,)

    def artefacts(self, where: Where) -> tuple[str, ...]:
        """The errors in both kinds of views."""
        return tuple(Where(where.data, where.split, views).artefact for views in (self.few, self.many))

    def interval(self, evidence: Evidence, where: Where) -> Interval | None:
        """Return the mean over seeds of the paired differences, in points."""
        few, many = (evidence.rates(self.arm, Where(where.data, where.split, v), self.top) for v in (self.few, self.many))
        paired = [few[seed] - many[seed] for seed in sorted(few.keys() & many.keys())]
        return mean_interval(paired) if paired else None


@dataclass(frozen=True)
class Gap:
    """How much wider the gap between held-out and training error is in an arm than in another, in points; unpaired seeds.

    Both errors are counted with the final weights, in the same views, without dropout or noise.
    """

    of: str
    than: str
    top: int = 1

    @property
    def arms(self) -> tuple[str, ...]:
        """Both arms."""
        return self.of, self.than

    def artefacts(self, where: Where) -> tuple[str, ...]:
        """The errors on both splits."""
        return tuple(Where(where.data, split, "central").artefact for split in ("train", where.split))

    def interval(self, evidence: Evidence, where: Where) -> Interval | None:
        """Return the difference of the gaps over the seeds that both arms have."""
        gaps = []
        for arm in self.arms:
            seen, held = (
                evidence.rates(arm, Where(where.data, split, "central"), self.top) for split in ("train", where.split)
            )
            gaps.append({seed: held[seed] - seen[seed] for seed in seen.keys() & held.keys()})
        paired = [gaps[0][seed] - gaps[1][seed] for seed in sorted(gaps[0].keys() & gaps[1].keys())]
        return mean_interval(paired) if paired else None


@dataclass(frozen=True)
class Ratio:
    """How many times later, or larger, a number is in the runs of one arm than of another; paired by seed."""

    over: str
    under: str
    of: Callable[[Rows], float]

    @property
    def arms(self) -> tuple[str, ...]:
        """Both arms."""
        return self.over, self.under

    def artefacts(self, where: Where) -> tuple[str, ...]:
        """Nothing but what training counts."""
        return ()

    def interval(self, evidence: Evidence, where: Where) -> Interval | None:
        """Return the geometric mean of the ratios and the interval of their logarithms; seeds that never arrive censor."""
        over, under = ({seed: self.of(rows) for seed, rows in evidence.metrics(arm).items()} for arm in self.arms)
        seeds = sorted(over.keys() & under.keys())
        if not seeds:
            return None
        limits = tuple(float(evidence.epochs_allowed(arm)) for arm in self.arms)
        return ratio_interval([over[s] for s in seeds], [under[s] for s in seeds], limits=limits)


@dataclass(frozen=True)
class Ensemble:
    """The error rate in percent of the averaged predictions of several nets, the first seeds of one arm or more."""

    sources: tuple[str, ...]
    nets: int
    top: int

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms whose nets are averaged."""
        return self.sources

    def artefacts(self, where: Where) -> tuple[str, ...]:
        """The predictions."""
        return (f"predictions/{where.split}/{where.views}",)

    def interval(self, evidence: Evidence, where: Where) -> Interval | None:
        """Return the rate; there is one ensemble, so the interval is that of the count."""
        nets = [net for arm in self.sources for _, net in sorted(evidence.probabilities(arm, where).items())]
        if len(nets) < self.nets:
            return None
        wrong_N = wrong_of_mean(nets[: self.nets], self.top)
        return rate_interval([(int(wrong_N.sum()), len(wrong_N))])


@dataclass(frozen=True)
class EnsembleGain:
    """How many points of error less the averaged predictions of several nets make than one of them on average."""

    source: str
    nets: int
    top: int

    @property
    def arms(self) -> tuple[str, ...]:
        """The arm whose seeds are averaged."""
        return (self.source,)

    def artefacts(self, where: Where) -> tuple[str, ...]:
        """The predictions."""
        return (f"predictions/{where.split}/{where.views}",)

    def interval(self, evidence: Evidence, where: Where) -> Interval | None:
        """Return the gain; there is one ensemble, so the interval is over images, on which both are paired."""
        nets = [net for _, net in sorted(evidence.probabilities(self.source, where).items())][: self.nets]
        if len(nets) < self.nets:
            return None
        alone_N = sum(wrong_of_mean([net], self.top).astype(float) for net in nets) / len(nets)
        gained_N = 100 * (alone_N - wrong_of_mean(nets, self.top))
        half = 1.96 * float(gained_N.std(ddof=1)) / math.sqrt(len(gained_N))
        mean = float(gained_N.mean())
        return Interval(mean, mean - half, mean + half, 0.95, len(gained_N), "paired over images, of one ensemble")


@dataclass(frozen=True)
class NeighbourRatio:
    """How many times more of the nearest training images have a query's class by features than by pixels; by seed."""

    source: str
    layer: str

    @property
    def arms(self) -> tuple[str, ...]:
        """The arm."""
        return (self.source,)

    def artefacts(self, where: Where) -> tuple[str, ...]:
        """The neighbours."""
        return (f"neighbours/{self.layer}",)

    def interval(self, evidence: Evidence, where: Where) -> Interval | None:
        """Return the ratio of the two shares over seeds, on logarithms."""
        found = evidence.measured(self.source, self.artefacts(where)[0]).values()
        shares = [
            [float((n[f"{kind}_labels"] == n["labels"][:, None]).mean()) for kind in ("features", "pixels")] for n in found
        ]
        return ratio_interval(*zip(*shares, strict=True)) if shares else None


def wrong_of_mean(nets: Sequence[tuple[Any, Any]], top: int) -> Any:
    """Return for each image (N,) whether the nets' mean probabilities have its class below the first `top`; ties are wrong.

    Each net is (probabilities (N, K), labels (N,)) of the same images in the same order.
    """
    mean_NK = sum(probabilities.astype(float) for probabilities, _ in nets) / len(nets)
    labels_N = nets[0][1]
    true_N1 = mean_NK[range(len(labels_N)), labels_N][:, None]
    return (mean_NK >= true_N1).sum(axis=1) - 1 >= top


def first_epoch_below(line: float) -> Callable[[Rows], float]:
    """Return the function rows -> first epoch at which the training error is `line` or less, interpolated; inf if never."""

    def crossing(rows: Rows) -> float:
        return crossing_epoch(training_errors(rows), line)

    return crossing


def training_errors(rows: Rows) -> list[tuple[int, float]]:
    """Return (epoch, top-1 error) over all training images with the weights after each epoch, from a run's metrics."""
    return [
        (row["epoch"], row["wrong"] / row["total"])
        for row in rows
        if row["split"] == "train" and row["k"] == 1 and row["views"] != "as trained"
    ]


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


# As declarations read: gain("without", "with", top=1).
gain, error, view_gain, gap, ratio = Gain, Error, ViewGain, Gap, Ratio
ensemble, ensemble_gain, neighbour_ratio = Ensemble, EnsembleGain, NeighbourRatio
