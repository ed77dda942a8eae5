"""The learning rate that makes a training fastest, and how fast that is (section 3.1).

Rates are chosen "independently to make training as fast as possible", to the first epoch with a training error of 25 %.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from alexnet.config import RunConfig
from alexnet.experiments.answers import crossing_epoch, training_errors
from alexnet.files import Rows

RATE_STEP = 2.0  # between neighbours of the logarithmic grid
SEARCH_SEED = 0
MAX_PLACES = 8
GAVE_UP = "no rate that is faster than both its neighbours"
NEAR_TIE = 1.1  # a rate that crosses within so many times the fastest one's epochs is carried along

# Gives the metrics of a run that need not go beyond the epoch (None: no bound), or None when it is not to be had.
MetricsOf = Callable[[RunConfig, int | None], Rows | None]


@dataclass(frozen=True)
class Search:
    """The result of a search: the metrics at every rate tried, in the order of the rates, and the fastest rate."""

    metrics: dict[float, Rows]
    line: float
    best_rate: float | None
    bracketed: bool  # a slower rate was tried on either side of the best

    @property
    def ties(self) -> list[float]:
        """The other rates that one seed cannot tell from the best: fresh seeds run at them too."""
        fine = NEAR_TIE * self.crossings[self.best_rate] if self.bracketed else 0.0
        return [rate for rate, epoch in self.crossings.items() if epoch <= fine and rate != self.best_rate]

    @property
    def said(self) -> str:
        """How the search stands, in words."""
        if self.bracketed or len(self.metrics) < MAX_PLACES:
            return f"rate {self.best_rate:g}" if self.bracketed else "rate not found yet"
        return f"{GAVE_UP} among {MAX_PLACES} from {min(self.metrics):g} to {max(self.metrics):g}"

    @property
    def crossings(self) -> dict[float, float]:
        """Rate -> crossing epoch; inf when the run was overtaken or never crossed."""
        return {rate: crossing_epoch(training_errors(rows), self.line) for rate, rows in self.metrics.items()}


def search_rate(config_of: Callable[..., RunConfig], line: float, first_rate: float, metrics_of: MetricsOf) -> Search:
    """Find the rate at which the training error is at `line` soonest, where `config_of` makes a run of a rate and a seed.

    The grid grows outward from the first rate until the fastest has a slower neighbour on either side. A run ends when
    it can no longer nearly tie with the fastest, and the search after `MAX_PLACES` rates in any case (`said`).
    """
    tried: dict[int, float] = {}  # place on the grid -> crossing epoch
    metrics: dict[float, Rows] = {}
    while True:
        best = min(tried, key=tried.__getitem__, default=0)
        fastest = tried.get(best, math.inf)
        limit = math.ceil(NEAR_TIE * fastest) if math.isfinite(fastest) else None
        # Why lower: that nothing crossed is most often because the rate was too high.
        places = (best - 1, best + 1) if limit is not None else (min(tried, default=1) - 1,)
        missing, rows = [place for place in places if place not in tried], None
        if missing and len(tried) < MAX_PLACES:
            rate = first_rate * RATE_STEP ** missing[0]
            rows = metrics_of(config_of(rate, SEARCH_SEED), limit)
        if rows is None:
            best_rate = None if limit is None else first_rate * RATE_STEP**best
            return Search(dict(sorted(metrics.items())), line, best_rate, bracketed=not missing)
        tried[missing[0]], metrics[rate] = crossing_epoch(training_errors(rows), line), rows
