"""bf16 against fp32 on a whole training: two recorded runs that differ in nothing else. `--precision auto` relies on them.

The short trial of `training/parity.py` is made before every run; whether nets of both types end alike, only trainings show.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Protocol

from alexnet.claims.experiments import PARITY, runs_of
from alexnet.claims.record import Metrics
from alexnet.config import RunConfig, Scale, UserError
from alexnet.preprocessing.datasets import expected_counts

SCALES: tuple[Scale, ...] = ("paper", "cpu")  # of photographs, the larger first


class Recorded(Protocol):
    """What is needed of a run."""

    @property
    def status(self) -> str:
        """How it ended."""

    @property
    def metrics(self) -> Metrics:
        """A line for each epoch."""

    @property
    def manifest(self) -> dict[str, Any]:
        """What it was trained on, in parts."""


@dataclass(frozen=True)
class Pair:
    """The errors of both runs after each epoch, in one view, on the same validation images."""

    fp32: RunConfig
    bf16: RunConfig
    errors: dict[str, list[float]]  # by type
    images: int
    machines: tuple[str, ...]  # that they were trained on, one if it was the same

    def differences(self) -> list[tuple[float, float]]:
        """Return error in bf16 minus error in fp32 after each epoch, and the half-width of its interval."""
        pairs = zip(self.errors["bf16"], self.errors["fp32"], strict=True)
        return [(bf16 - fp32, half_width((bf16, fp32), self.images)) for bf16, fp32 in pairs]


def half_width(errors: Sequence[float], images: int, confidence: float = 0.95) -> float:
    """Return half of the interval of a difference of two error rates, each counted on `images` images.

    As if the images were others for each rate: they are the same, so it is wide rather than narrow. What another seed would
    change is not in it.
    """
    variance = sum(error * (1 - error) for error in errors) / images
    return NormalDist().inv_cdf((1 + confidence) / 2) * math.sqrt(variance)


def recorded(read: Callable[[RunConfig], Recorded | None]) -> Pair | None:
    """Return the pair of the largest scale at which both runs are finished, or None. `read` is that of `runs`."""
    for scale in SCALES:
        configs = {config.precision: config for config in runs_of(PARITY, scale)}
        errors, machines = {}, []
        for precision, config in configs.items():
            with suppress(UserError):  # Why: a run of this name with other options is no evidence, and no obstacle either
                run = read(config)
                if run is not None and run.status == "finished":
                    errors[precision] = [line["val_error"] for line in run.metrics]
                    machines += [_machine(part) for part in run.manifest["parts"]]
        if len(errors) == len(configs):
            return Pair(
                configs["fp32"],
                configs["bf16"],
                errors,
                expected_counts(configs["fp32"].data)["val"],
                tuple(dict.fromkeys(machines)),
            )
    return None


def _machine(part: dict[str, Any]) -> str:
    """Return the device of a part of a training, or the processor."""
    if part.get("device", "cpu") != "cpu":
        return part["device"]
    return f"{part['hardware']['processor']}, {part['hardware']['cpu_capability']}"


def in_words(pair: Pair | None) -> str:
    """Return what is recorded in a line, for a manifest."""
    if pair is None:
        return f"no training in both types is recorded; alexnet train {PARITY} --scale cpu makes it"
    difference, half = pair.differences()[-1]
    fp32, bf16 = (f"{pair.errors[precision][-1]:.2%}" for precision in ("fp32", "bf16"))
    runs = f"{pair.fp32.scale}/{pair.fp32.name} has {fp32} and {pair.bf16.name} {bf16}"
    found = f"{runs} after {pair.fp32.epochs} epochs, a difference of {100 * difference:+.2f} +- {100 * half:.2f} points"
    return f"{found} (on {' and '.join(pair.machines)})"
