"""From a claim to the runs that test it, at each scale.

Figure 1 compares two activations, each at the learning rate that makes its training fastest. A `Study` is one side of that
comparison: one net, one activation, a search for the rate, then fresh seeds at the rate that won.
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from alexnet.config import Activation, CifarNet, Optimiser, RunConfig, Scale, Topology, UserError, nearest

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
    expected_epochs: float  # to the line, for a plan
    width: float = 1.0
    batch_size: int = Optimiser.batch_size

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
            optimiser=Optimiser(rate=rate, batch_size=self.batch_size),
            epochs=self.epochs,
            stop_at_train_error=LINE,
        )

    def rate(self, place: int) -> float:
        """Return the rate `place` steps above the first one of the grid."""
        return self.first_rate * RATE_STEP**place


# For each net and activation: a first guess of the rate, from which the search walks to the fastest, and the epochs to the
# line that a plan supposes before anything has run. Neither decides a result.
BEGINNINGS: dict[tuple[Topology, Activation], tuple[float, float]] = {
    ("19pct", "relu"): (0.004, 6),
    ("19pct", "tanh"): (0.016, 30),
    ("conv-local-13pct", "relu"): (0.002, 4),
    ("conv-local-13pct", "tanh"): (0.008, 15),
}
TOY_BEGINNINGS: dict[tuple[Topology, Activation], tuple[float, float]] = {
    ("19pct", "relu"): (0.002, 3),
    ("19pct", "tanh"): (0.032, 5),
}


def fig1_studies(scale: Scale) -> list[Study]:
    """Return Figure 1's studies at `scale`, the primary net first."""
    if scale == "toy":
        shared: dict[str, Any] = {"seeds": (1, 2, 3), "epochs": 30, "data": "formula32"}
        shared |= {"width": 0.5, "batch_size": 64}  # small, so that it ends in minutes
    else:
        shared = {"seeds": (1, 2, 3), "epochs": 60, "data": "cifar10"}
    beginnings = TOY_BEGINNINGS if scale == "toy" else BEGINNINGS
    return [
        Study(scale, topology, activation, rate, expected_epochs=expected, **shared)
        for (topology, activation), (rate, expected) in beginnings.items()
    ]


# Every claim that has runs. A later chapter adds its own line.
STUDIES: dict[str, Callable[[Scale], list[Study]]] = {"fig1-relu": fig1_studies}


def studies_of(claim: str, scale: Scale) -> list[Study]:
    """Return the studies that test `claim` at `scale`. Raises UserError for a claim without runs."""
    if claim not in STUDIES:
        raise UserError(
            f"No runs are defined for claim {claim!r}{nearest(claim, STUDIES)}. With runs: {', '.join(STUDIES)}."
        )
    return STUDIES[claim](scale)


def config_named(claim: str, scale: Scale, variant: str, seed: int) -> RunConfig:
    """Return the config of the run with this name. Raises UserError, with the nearest name, when no study has it."""
    studies = studies_of(claim, scale)
    for study in studies:
        prefix = f"{study.name}-rate-"
        with contextlib.suppress(ValueError):
            if variant.startswith(prefix):
                return study.config(float(variant.removeprefix(prefix)), seed)
    known = [study.config(study.first_rate, seed).variant for study in studies]
    raise UserError(
        f"{claim} has no variant {variant!r} at scale {scale}{nearest(variant, known)}. Known: {', '.join(known)} and the "
        "same at other rates."
    )
