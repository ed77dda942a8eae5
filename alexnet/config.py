"""What a run is: frozen dataclasses with the unit or the reason beside each value.

A `RunConfig` says everything that decides the numbers of one training. What only decides where and how fast it runs
(threads, folders, progress bars) is not here, so that the hash of a config names an experiment, not a machine.
"""

import dataclasses
import hashlib
import json
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Scale = Literal["toy", "cpu", "paper"]
Topology = Literal["19pct", "conv-local-13pct"]
Activation = Literal["relu", "tanh"]
Precision = Literal["auto", "fp32", "bf16"]

PROJECT_DIR = Path(__file__).resolve().parents[1]
SCALES: tuple[Scale, ...] = typing.get_args(Scale)


class UserError(ValueError):
    """A mistake that is the user's to mend: the message says what, why, and the command that fixes it."""


@dataclass(frozen=True)
class CifarNet:
    """One of the small nets of Figure 1 (paper 3.1): no normalisation, no dropout, no augmentation."""

    topology: Topology = "19pct"  # three conv layers and softmax, or two conv, two locally connected and softmax
    activation: Activation = "relu"
    first_sd: float = 1e-4  # initial deviation of conv1's weights; the 2012 files have 1e-4, tuned for ReLU
    num_classes: int = 10
    width: float = 1.0  # multiplies the number of kernels; 1 is the 2012 net, less is for the scale toy


@dataclass(frozen=True)
class Optimiser:
    """How fast the weights move (paper 5)."""

    rate: float = 1e-3  # epsilon for weights; inputs are 0-255 minus the mean, hence smaller than the usual
    bias_rate_factor: float = 2.0  # Source 2012: epsB = 2 epsW in every CIFAR-10 file
    momentum: float = 0.9
    weight_decay: float = 0.0  # Figure 1: no regularisation of any kind
    batch_size: int = 128


@dataclass(frozen=True)
class RunConfig:
    """One training: which claim it serves, on which data, with which net, for how long."""

    claim: str = "fig1-relu"
    variant: str = "base"
    scale: Scale = "toy"
    seed: int = 0
    data: str = "formula32"  # name of a prepared set
    net: CifarNet = field(default_factory=CifarNet)
    optimiser: Optimiser = field(default_factory=Optimiser)
    epochs: int = 40  # passes through the training images, at most
    stop_at_train_error: float | None = None  # fraction; the run is complete once the training error is this low
    precision: Precision = "auto"  # auto: bf16 where the machine multiplies it faster and a parity check passes

    @property
    def name(self) -> str:
        """Claim, variant and seed: the run's name and its folder below `runs/<scale>/`."""
        return f"{self.claim}/{self.variant}/seed-{self.seed}"


def to_dict(config: Any) -> dict[str, Any]:
    """Return a config as nested plain dictionaries."""
    return dataclasses.asdict(config)


def from_dict(cls: type, values: dict[str, Any]) -> Any:
    """Rebuild a config of class `cls` from `to_dict`'s result. Raises UserError for a key that is no field."""
    fields = {f.name: f for f in dataclasses.fields(cls)}
    unknown = set(values) - set(fields)
    if unknown:
        raise UserError(f"{cls.__name__} has no field {sorted(unknown)[0]!r}; it has {', '.join(fields)}.")
    hints = typing.get_type_hints(cls)
    nested = {k: from_dict(hints[k], v) if dataclasses.is_dataclass(hints[k]) else v for k, v in values.items()}
    return cls(**nested)


def config_hash(config: Any) -> str:
    """Return 12 hex digits that name the config: equal configs, equal hash, on any machine."""
    return hashlib.sha256(json.dumps(to_dict(config), sort_keys=True).encode()).hexdigest()[:12]


def differing_fields(recorded: dict[str, Any], wanted: dict[str, Any], prefix: str = "") -> list[tuple[str, Any, Any]]:
    """Return (dotted name, recorded value, wanted value) of every field in which two configs differ."""
    found = []
    for key in sorted(recorded.keys() | wanted.keys()):
        old, new = recorded.get(key), wanted.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            found += differing_fields(old, new, f"{prefix}{key}.")
        elif old != new:
            found.append((f"{prefix}{key}", old, new))
    return found
