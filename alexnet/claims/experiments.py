"""From a claim to the runs that test it, at each scale.

Figure 1 compares two activations, each at the learning rate that makes its training fastest. A `Study` is one side of that
comparison: one net, one activation, a search for the rate, then fresh seeds at the rate that won.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from alexnet.claims.runs import Run
from alexnet.config import Activation, CifarNet, Optimiser, RunConfig, Scale, Topology

LINE = 0.25  # training error at which Figure 1 compares the nets (paper 3.1)
RATE_STEP = 2.0  # between neighbours of the logarithmic grid
SEARCH_SEED = 0  # the search has a seed of its own: the seeds that are reported did not choose the rate


@dataclass(frozen=True)
class Study:
    """One net with one activation at one scale: where the search for its rate begins, and which seeds are reported."""

    scale: Scale
    topology: Topology
    activation: Activation
    first_rate: float
    seeds: tuple[int, ...]
    epochs: int
    data: str
    width: float = 1.0

    @property
    def name(self) -> str:
        """The beginning of the variant of every run in the study."""
        return f"{self.topology}-{self.activation}"

    def config(self, rate: float, seed: int) -> RunConfig:
        """Return the run of this study at `rate` with `seed`."""
        return RunConfig(
            claim="fig1-relu",
            variant=f"{self.name}-rate-{rate:g}",
            scale=self.scale,
            seed=seed,
            data=self.data,
            net=CifarNet(topology=self.topology, activation=self.activation, width=self.width),
            optimiser=Optimiser(rate=rate),
            epochs=self.epochs,
            stop_at_train_error=LINE,
        )

    def rate(self, place: int) -> float:
        """Return the rate `place` steps above the first one of the grid."""
        return self.first_rate * RATE_STEP**place


# First rates: where short trials of four epochs learned fastest. The search leaves them if a neighbour is faster.
FIRST_RATES: dict[tuple[Topology, Activation], float] = {
    ("19pct", "relu"): 0.004,
    ("19pct", "tanh"): 0.016,
    ("conv-local-13pct", "relu"): 0.002,
    ("conv-local-13pct", "tanh"): 0.008,
}


def fig1_studies(scale: Scale) -> list[Study]:
    """Return Figure 1's studies at `scale`, the primary net first."""
    if scale == "toy":
        shared = {"seeds": (1, 2, 3), "epochs": 30, "data": "formula32", "width": 0.5}
        topologies: tuple[Topology, ...] = ("19pct",)
    else:
        shared = {"seeds": (1, 2, 3), "epochs": 60, "data": "cifar10"}
        topologies = ("19pct", "conv-local-13pct")
    return [
        Study(scale, topology, activation, FIRST_RATES[topology, activation], **shared)
        for topology in topologies
        for activation in ("relu", "tanh")
    ]


GetRun = Callable[[RunConfig, int | None], Run]


@dataclass(frozen=True)
class Search:
    """The result of a search: the crossing epoch at every rate tried (inf: none, or overtaken), and the fastest rate."""

    crossings: dict[float, float]
    best_rate: float | None
    bracketed: bool  # a slower rate was tried on either side of the best


def search_rate(study: Study, get: GetRun, max_places: int = 8) -> Search:
    """Find the rate at which `study` crosses the line first.

    The grid grows outward from the first rate until the fastest has a slower neighbour on either side. A run ends when
    another rate has crossed the line earlier than it can. `get(config, epoch_limit)` returns a run. Paper 3.1: rates are
    chosen independently, to make training as fast as possible.
    """
    tried: dict[int, float] = {}
    while (place := _next_place(tried)) is not None and len(tried) < max_places:
        fastest = min(tried.values(), default=math.inf)
        limit = math.ceil(fastest) if math.isfinite(fastest) else None
        run = get(study.config(study.rate(place), SEARCH_SEED), limit)
        tried[place] = crossing_epoch(run.metrics)
    fastest_place = min(tried, key=lambda place: tried[place])
    crossings = {study.rate(place): tried[place] for place in sorted(tried)}
    if math.isinf(tried[fastest_place]):
        return Search(crossings, None, False)
    bracketed = fastest_place - 1 in tried and fastest_place + 1 in tried
    return Search(crossings, study.rate(fastest_place), bracketed)


def _next_place(tried: dict[int, float]) -> int | None:
    """Return the place of the grid to try next, or None when the fastest has both its neighbours."""
    if not tried:
        return 0
    if all(math.isinf(crossing) for crossing in tried.values()):
        # Why: nothing crossed, perhaps because the rate was too high; look lower.
        return min(tried) - 1
    fastest = min(tried, key=lambda place: tried[place])
    for place in (fastest - 1, fastest + 1):
        if place not in tried:
            return place
    return None


def crossing_epoch(metrics: Iterable[dict], line: float = LINE) -> float:
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


def run_study(study: Study, get: GetRun) -> tuple[Search, list[Run]]:
    """Search the rate of `study`, then get one run for each of its seeds at that rate."""
    search = search_rate(study, get)
    if search.best_rate is None:
        return search, []
    return search, [get(study.config(search.best_rate, seed), None) for seed in study.seeds]
