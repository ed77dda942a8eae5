"""From a claim to the runs that test it, at each scale.

Figure 1 compares two activations, each at the learning rate that makes its training fastest. A `Study` is one side of that
comparison: one net, one activation, a search for the rate, then fresh seeds at the rate that won. The other claims have
fixed runs.
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from alexnet.config import (
    Activation,
    CifarNet,
    ColumnNet,
    Optimiser,
    Precision,
    Preset,
    RunConfig,
    Scale,
    Schedule,
    Topology,
    UserError,
    nearest,
)

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
    precision: Precision = "auto"

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
            precision=self.precision,
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
        # Small, so that it ends in minutes; a parity check of bf16 would take as long as the training.
        shared |= {"width": 0.5, "batch_size": 64, "precision": "fp32"}
    else:
        shared = {"seeds": (1, 2, 3), "epochs": 60, "data": "cifar10"}
    beginnings = TOY_BEGINNINGS if scale == "toy" else BEGINNINGS
    return [
        Study(scale, topology, activation, rate, expected_epochs=expected, **shared)
        for (topology, activation), (rate, expected) in beginnings.items()
    ]


# What the text leaves open is the 2012 log's or a guess: "the validation error stops improving" is three epochs without a
# new lowest value.
SCHEDULES: dict[Preset, Schedule] = {
    "source2012": Schedule(),
    "paper": Schedule(kind="plateau", bias_drops=3, conv1_drop=None, conv1_freeze=None),
}
# Paper 5: equal rates, and the update rule decays whatever it moves. Source 2012: biases at twice the rate, without decay.
OPTIMISERS: dict[Preset, Optimiser] = {
    "source2012": Optimiser(rate=0.01, bias_rate_factor=2.0, weight_decay=5e-4),
    "paper": Optimiser(rate=0.01, bias_rate_factor=1.0, weight_decay=5e-4, bias_decay=5e-4),
}
# At each scale the variant, its preset, width and epochs; and the set with its classes and the images of a step.
ARCHITECTURE: dict[Scale, list[tuple[str, Preset, float, int]]] = {
    "toy": [("source2012-eighth", "source2012", 0.125, 4), ("paper-eighth", "paper", 0.125, 4)],
    "cpu": [
        ("source2012-half", "source2012", 0.5, 30),
        ("paper-half", "paper", 0.5, 12),
        ("source2012-full", "source2012", 1.0, 30),
    ],
    "paper": [("source2012", "source2012", 1.0, 90), ("paper", "paper", 1.0, 90)],
}
PHOTOGRAPHS: dict[Scale, tuple[str, int, int]] = {
    "toy": ("formula256", 20, 32),
    "cpu": ("imagenet20", 20, 128),
    "paper": ("ilsvrc2012", 1000, 128),
}


def architecture_runs(scale: Scale) -> list[RunConfig]:
    """Return the trainings of the two-column net as each preset has it, at the width that the scale affords."""
    data, num_classes, batch_size = PHOTOGRAPHS[scale]
    return [
        RunConfig(
            claim="s3.5-architecture",
            variant=variant,
            scale=scale,
            data=data,
            net=ColumnNet(preset, width, num_classes),
            optimiser=replace(OPTIMISERS[preset], batch_size=batch_size),
            epochs=epochs,
            schedule=SCHEDULES[preset],
            augmentation=preset,
        )
        for variant, preset, width, epochs in ARCHITECTURE[scale]
    ]


PARITY = "bf16-parity"  # a question of ours: does the net train in bf16 as in fp32?


def parity_runs(scale: Scale) -> list[RunConfig]:
    """Return two short trainings that differ in their precision alone."""
    config = replace(architecture_runs(scale)[0], claim=PARITY, epochs=2 if scale == "toy" else 5)
    return [replace(config, variant=precision, precision=precision) for precision in ("fp32", "bf16")]


# Every claim that has runs: those with a search for a rate, and those whose runs are fixed. A later chapter adds its line.
STUDIES: dict[str, Callable[[Scale], list[Study]]] = {"fig1-relu": fig1_studies}
RUNS: dict[str, Callable[[Scale], list[RunConfig]]] = {"s3.5-architecture": architecture_runs, PARITY: parity_runs}
CLAIMS = (*STUDIES, *RUNS)
IN_BOOK = ("fig1-relu",)  # the claims that a chapter shows, which `make reproduce` trains; the others train when named


def studies_of(claim: str, scale: Scale) -> list[Study]:
    """Return the studies that test `claim` at `scale`. Raises UserError for a claim without runs."""
    _check(claim)
    return STUDIES[claim](scale) if claim in STUDIES else []


def runs_of(claim: str, scale: Scale) -> list[RunConfig]:
    """Return the fixed runs that test `claim` at `scale`. Raises UserError for a claim without runs."""
    _check(claim)
    return RUNS[claim](scale) if claim in RUNS else []


def _check(claim: str) -> None:
    if claim not in CLAIMS:
        raise UserError(f"No runs are defined for claim {claim!r}{nearest(claim, CLAIMS)}. With runs: {', '.join(CLAIMS)}.")


def config_named(claim: str, scale: Scale, variant: str, seed: int) -> RunConfig:
    """Return the config of the run with this name. Raises UserError, with the nearest name, when the claim has none."""
    studies = studies_of(claim, scale)
    if not studies:
        fixed = {config.variant: config for config in runs_of(claim, scale)}
        if variant not in fixed:
            raise UserError(
                f"{claim} has no variant {variant!r} at scale {scale}{nearest(variant, fixed)}. Known: {', '.join(fixed)}."
            )
        return replace(fixed[variant], seed=seed)
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
