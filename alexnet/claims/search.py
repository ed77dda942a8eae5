"""The learning rate that makes a training fastest, and how fast that is (section 3.1).

The paper compares two activations "at learning rates chosen independently to make training as fast as possible" and
measures the first epoch at which the training error is 25 % or less.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from alexnet.claims import runs
from alexnet.claims.experiments import LINE, SEARCH_SEED, Study, studies_of
from alexnet.claims.runs import Metrics
from alexnet.config import RunConfig, Scale

# Gives the metrics of a run that need not go beyond the epoch (None: no bound), or None when it is not to be had.
MetricsOf = Callable[[RunConfig, int | None], Metrics | None]


@dataclass(frozen=True)
class Search:
    """The result of a search: the metrics at every rate tried, in the order of the rates, and the fastest rate."""

    metrics: dict[float, Metrics]
    best_rate: float | None
    bracketed: bool  # a slower rate was tried on either side of the best

    @property
    def crossings(self) -> dict[float, float]:
        """Rate -> crossing epoch; inf when the run was overtaken or never crossed."""
        return {rate: crossing_epoch(rows) for rate, rows in self.metrics.items()}


@dataclass(frozen=True)
class StudyResult:
    """A study's search, and the metrics of each seed at the rate that won (only the seeds that were to be had)."""

    study: Study
    search: Search
    metrics: dict[int, Metrics]

    @property
    def crossings(self) -> dict[int, float]:
        """Seed -> crossing epoch."""
        return {seed: crossing_epoch(rows) for seed, rows in self.metrics.items()}


def search_rate(study: Study, metrics_of: MetricsOf, max_places: int = 8) -> Search:
    """Find the rate at which `study` crosses the line first.

    The grid grows outward from the first rate until the fastest has a slower neighbour on either side. A run ends when
    another rate has crossed the line earlier than it can. Paper 3.1: rates are chosen independently, to make training as
    fast as possible.
    """
    tried: dict[int, float] = {}
    curves: dict[float, Metrics] = {}
    while (place := _next_place(tried)) is not None and len(tried) < max_places:
        fastest = min(tried.values(), default=math.inf)
        limit = math.ceil(fastest) if math.isfinite(fastest) else None
        metrics = metrics_of(study.config(study.rate(place), SEARCH_SEED), limit)
        if metrics is None:
            break
        tried[place], curves[study.rate(place)] = crossing_epoch(metrics), metrics
    curves = dict(sorted(curves.items()))
    if all(math.isinf(crossing) for crossing in tried.values()):
        return Search(curves, None, False)
    best = min(tried, key=lambda place: tried[place])
    return Search(curves, study.rate(best), best - 1 in tried and best + 1 in tried)


def _next_place(tried: dict[int, float]) -> int | None:
    """Return the place of the grid to try next, or None when the fastest has both its neighbours."""
    if not tried:
        return 0
    if all(math.isinf(crossing) for crossing in tried.values()):
        # Why: nothing crossed, most often because the rate was too high; look lower.
        return min(tried) - 1
    fastest = min(tried, key=lambda place: tried[place])
    for place in (fastest - 1, fastest + 1):
        if place not in tried:
            return place
    return None


def crossing_epoch(metrics: Metrics, line: float = LINE) -> float:
    """Return the first epoch at which the training error is `line` or less, interpolated between epochs; inf if none."""
    before: tuple[float, float] | None = None
    for row in metrics:
        epoch, error = row["epoch"], row["train_error"]
        if error <= line:
            if before is None:
                return float(epoch)
            return before[0] + (epoch - before[0]) * (before[1] - line) / (before[1] - error)
        before = (epoch, error)
    return math.inf


def run_study(study: Study, metrics_of: MetricsOf) -> StudyResult:
    """Search the rate of `study`, then get one run for each of its seeds at that rate.

    The seeds wait for a search that is complete: a rate that is not known to be the fastest has no runs.
    """
    search = search_rate(study, metrics_of)
    if search.best_rate is None or not search.bracketed:
        return StudyResult(study, search, {})
    found = {seed: metrics_of(study.config(search.best_rate, seed), None) for seed in study.seeds}
    return StudyResult(study, search, {seed: rows for seed, rows in found.items() if rows is not None})


def recorded(config: RunConfig, limit: int | None) -> Metrics | None:
    """Return the metrics of a run that is done, without training anything."""
    run = runs.read(config)
    return run.metrics if run is not None and run.is_done(limit) else None


def results(claim: str, scale: Scale) -> list[StudyResult]:
    """Return the results of every study of `claim` at `scale`.

    Missing runs are trained, unless `$ALEXNET_TRAIN` is 0: then the results are of what is recorded.
    """
    if not runs.training_allowed():
        return recorded_results(claim, scale)
    return [run_study(s, lambda c, limit: runs.get(c, epoch_limit=limit).metrics) for s in studies_of(claim, scale)]


def recorded_results(claim: str, scale: Scale) -> list[StudyResult]:
    """Return the results of every study of `claim` at `scale` as far as they are recorded."""
    return [run_study(study, recorded) for study in studies_of(claim, scale)]
