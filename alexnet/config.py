"""What a training is: frozen dataclasses with the unit or the reason beside each value.

A `RunConfig` says what decides the numbers of one training, and nothing else: not who asked for it, nor scale nor machine.
So equal trainings have equal configs, one hash and one folder.
"""

import dataclasses
import difflib
import hashlib
import json
import os
import re
import sys
import typing
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

Topology = Literal["19pct", "conv-local-13pct", "conv-local-11pct"]
Activation = Literal["relu", "tanh", "elu", "leaky_relu", "softplus", "abs-tanh", "sigmoid"]
Precision = Literal["auto", "fp32", "bf16", "tf32"]
Preset = Literal["paper", "source2012"]

PROJECT_DIR = Path(__file__).resolve().parents[1]


def home_dir() -> Path:
    """Return where data and results are by default: the checkout, or, installed without one, a folder of the user's."""
    if (PROJECT_DIR / "pyproject.toml").is_file():
        return PROJECT_DIR
    usual = Path.home() / ("Library/Application Support" if sys.platform == "darwin" else ".local/share")
    return Path(os.environ.get("XDG_DATA_HOME") or usual) / "alexnet"


class UserError(ValueError):
    """A mistake that is the user's to mend: the message says what, why, and the command that fixes it."""


def nearest(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean ...?` for an unknown word, or nothing when no known one is near."""
    matches = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {matches[0]!r}?" if matches else ""


@dataclass(frozen=True)
class CifarNet:
    """One of the small nets of the author's own cuda-convnet (paper 3.1, 3.3; `model/cifar.py`)."""

    topology: Topology = "19pct"
    activation: Activation = "relu"
    first_sd: float = 1e-4  # initial standard deviation of conv1's weights; the 2012 files have 1e-4, chosen with ReLU
    num_classes: int = 10
    width: float = 1.0  # multiplies the number of kernels; 1 is the 2012 net, less is for the scale toy
    image_side: int = 32  # pixels that the net sees: 32, or 24 with the crops of the 13 % and 11 % nets
    norms: bool | None = None  # conv-local-11pct without its two normalisations: False; None is as the topology has it
    norm_alpha: float | None = None  # of its two normalisations, in place of 0.001
    norm_beta: float | None = None  # in place of 0.75
    pooling: Literal["max", "average"] | None = None  # of all layers alike; None is as the topology has it


@dataclass(frozen=True)
class ColumnNet:
    """The network of Figure 2 (paper 3): a preset, its size, and the ablations applied to it (`model/presets.py`)."""

    preset: Preset = "source2012"  # paper: the text taken literally; source2012: config #145 of the 2012 code
    width: float = 1.0  # multiplies the kernels and units of every layer but the last; the scale small has 0.5
    num_classes: int = 1000
    ablation: str = ""  # applied in order and separated by spaces, such as "no-norm no-overlap"

    def __post_init__(self) -> None:
        object.__setattr__(self, "ablation", " ".join(self.ablation.split()))  # Why: other spaces are the same net


Net = CifarNet | ColumnNet


@dataclass(frozen=True)
class Optimiser:
    """How fast the weights move (paper 5)."""

    rate: float = 1e-3  # epsilon for weights; inputs are 0-255 minus the mean, hence smaller than the usual
    bias_rate_factor: float = 2.0  # Source 2012: epsB = 2 epsW in every CIFAR-10 file
    momentum: float = 0.9
    weight_decay: float = 0.0  # Figure 1: no regularisation of any kind
    batch_size: int = 128  # images of a step, over all replicas
    bias_decay: float | None = None  # None: biases do not decay, as in 2012; the paper's rule decays all parameters
    # (layer, decay) of layers whose weights decay at a rate of their own, as in the 2012 files of the CIFAR-10 nets
    layer_decay: tuple[tuple[str, float], ...] | None = None


@dataclass(frozen=True)
class Schedule:
    """When the rates drop (paper 5). The defaults are the 2012 run notes' of the net behind Table 1 (#145-2010)."""

    kind: Literal["fractions", "plateau"] = "fractions"  # plateau: by the validation error, as the paper says it was done
    factor: float = 0.1  # of each drop
    drops: tuple[float, ...] = (0.25, 0.55, 0.85)  # fractions of the epochs; a plateau uses only their number
    bias_drops: int = 1  # how many of the drops biases follow; the run notes keep their rate after the first
    conv1_drop: float | None = 0.73  # fraction at which conv1's rate drops once more ahead of the rest and colour noise ends
    conv1_freeze: float | None = 0.77  # fraction at which conv1 stops moving
    patience: int = 3  # plateau: epochs without a new lowest validation error before a drop; after the last drop, the end


@dataclass(frozen=True)
class Augmentation:
    """How an image is shown to the net (paper 4.1). The defaults are the paper's text."""

    crop_side: int = 224  # pixels of a view, out of 256; 24 of 32 in the CIFAR-10 nets of section 3.3
    random: bool = True  # whether training sees random crops and flips; if not, the central view always
    images_per_decision: int = 1  # consecutive images of an epoch that share offsets and flip; 2012: 32
    mean_crop: Literal["own", "central"] = "own"  # the part of the mean image that is subtracted from a crop
    noise: float = 0.1  # sd of the factors of the principal components' standard deviations; 0 is off
    divide: bool = False  # training images, by 1 + noise, so that they and test images have about one scale


@dataclass(frozen=True)
class RunConfig:
    """One training."""

    seed: int = 0
    data: str = "formula32"  # name of a prepared set
    net: Net = field(default_factory=CifarNet)
    optimiser: Optimiser = field(default_factory=Optimiser)
    epochs: int = 40  # passes through the training images, at most
    stop_at_train_error: float | None = None  # fraction; the training is complete once the training error is this low
    # auto: bf16 where the machine multiplies it faster, as the manifest records. tf32: fp32 whose products a CUDA device
    # rounds to 10 bits. fp32 is the reference.
    precision: Precision = "auto"
    schedule: Schedule | None = None  # None: the rate is constant
    augmentation: Augmentation | None = None  # None: images are shown whole
    start_from: "RunConfig | None" = None  # the training whose weights, all but the last layer's, this one begins with
    start_file: str | None = None  # `file_digest` of exported weights, all but the last layer's, that it begins with
    name: str | None = None  # of a training of one's own, which is then apart from equal ones

    def __post_init__(self) -> None:
        for part in filter(None, (self, self.net, self.optimiser, self.schedule, self.augmentation)):
            for name in RANGES.keys() & vars(part).keys():
                value = getattr(part, name)
                for number in value if isinstance(value, tuple) else (value,):
                    check_range(name, number[1] if isinstance(number, tuple) else number)
        if self.name is not None and not re.fullmatch(r"\w[\w.-]{,59}", self.name, re.ASCII):
            raise UserError(f"--name must be up to 60 letters, digits, dots, - and _, not {self.name!r}.")


# The least and the largest value of numbers, both included; what is beyond is a slip of the pen, or no training.
RANGES: dict[str, tuple[float, float]] = {
    "seed": (0, 2**31), "epochs": (1, 100_000), "batch_size": (1, 1_000_000), "width": (1e-3, 8), "num_classes": (1, 10**6),
    "rate": (0, 1e6), "bias_rate_factor": (0, 1e6), "momentum": (0, 0.9999), "weight_decay": (0, 1e6), "noise": (0, 1e3),
    "bias_decay": (0, 1e6), "layer_decay": (0, 1e6), "first_sd": (0, 1e6), "image_side": (1, 4096), "factor": (0, 1),
    "drops": (0, 1), "bias_drops": (0, 100), "conv1_drop": (0, 1), "conv1_freeze": (0, 1), "patience": (1, 100_000),
    "crop_side": (1, 4096), "images_per_decision": (1, 10**6), "stop_at_train_error": (0, 1), "threads": (1, 1024),
    "devices": (1, 8), "replicas": (1, 64), "processes": (1, 1024), "seeds": (1, 100), "top": (1, 10**6),
}  # fmt: skip


def check_range(name: str, number: float | None) -> None:
    """Raise UserError for a number that is not in the range of `name`, which is an option too."""
    low, high = RANGES[name]
    if number is not None and not low <= number <= high:
        raise UserError(f"--{name.replace('_', '-')} must be from {low:,.10g} to {high:,.10g}, not {number}.")


def file_digest(file: Path) -> str:
    """Return 16 hex digits that name the content of a file."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:16]


hints_of = cache(typing.get_type_hints)  # Why: it evaluates texts, and hashing configs is half of what a scorecard takes


def to_dict(value: Any, hint: Any = None) -> Any:
    """Return a config, or a value in it of the type `hint`, as plain values, without fields None by default and here."""
    if dataclasses.is_dataclass(value):  # Why without: a config keeps its hash when such a field is added to its class
        said = [f for f in dataclasses.fields(value) if f.default is not None or getattr(value, f.name) is not None]
        return {f.name: to_dict(getattr(value, f.name), hints_of(type(value))[f.name]) for f in said}
    if type(value) is int and float in (hint, *typing.get_args(hint)):
        return float(value)  # Why: a rate of 1 is a rate of 1.0, and the same run.
    return [to_dict(item) for item in value] if isinstance(value, tuple) else value


def from_dict(hint: Any, value: Any) -> Any:
    """Rebuild a config of class `hint`, or a value in it, from `to_dict`'s result. Raises UserError for no field's key."""
    if not isinstance(value, dict):
        return tuple(from_dict(None, item) for item in value) if isinstance(value, list) else value
    choices = {t: hints_of(t) for t in (hint, *typing.get_args(hint)) if dataclasses.is_dataclass(t)}
    cls = next((t for t, hints in choices.items() if value.keys() <= hints.keys()), next(iter(choices)))
    if unknown := sorted(value.keys() - choices[cls].keys()):
        raise UserError(f"{cls.__name__} has no field {unknown[0]!r}; it has {', '.join(choices[cls])}.")
    return cls(**{name: from_dict(choices[cls][name], item) for name, item in value.items()})


@cache
def config_hash(config: RunConfig, seed: bool = True) -> str:
    """Return 12 hex digits that name the config, or all of it but the seed: equal configs, equal hash, on any machine."""
    said = to_dict(config if seed else reseeded(config, 0))
    if not seed:
        del said["seed"]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:12]


def reseeded(config: RunConfig, seed: int) -> RunConfig:
    """Return the config with another seed, also of the training that it starts from, whose seed goes with its own."""
    return dataclasses.replace(config, seed=seed, start_from=config.start_from and reseeded(config.start_from, seed))


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
