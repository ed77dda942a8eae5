"""Which scale this machine is ready for, and what the next one would need."""

from dataclasses import dataclass
from typing import Literal

import torch

from alexnet.claims.runs import runs_dir
from alexnet.config import SCALES, Scale
from alexnet.preprocessing import store

ScaleChoice = Literal["auto", "toy", "cpu", "paper"]
ILSVRC_SETS = ("ilsvrc2010", "ilsvrc2012")

DESCRIPTIONS: dict[Scale, str] = {
    "toy": "images made by formula (a stand-in), small nets, minutes, no network",
    "cpu": "real CIFAR-10 with the nets of 2012, hours on a laptop, resumable",
    "paper": "ILSVRC and CIFAR-10, two GPUs, the full schedule",
}


@dataclass(frozen=True)
class Readiness:
    """A scale and what this machine lacks for it; ready when nothing."""

    scale: Scale
    lacks: tuple[str, ...]


def readiness() -> list[Readiness]:
    """Return for each scale, smallest first, what this machine lacks."""
    cifar = () if store.is_prepared("cifar10") else ("CIFAR-10 (alexnet prepare cifar10 [--source DIR])",)
    devices = torch.cuda.device_count()
    gpus = () if devices >= 2 else (f"two CUDA devices (found {devices})",)
    ilsvrc = () if any(map(store.is_prepared, ILSVRC_SETS)) else ("a prepared ILSVRC set (your own copy of ImageNet)",)
    return [Readiness("toy", ()), Readiness("cpu", cifar), Readiness("paper", (*cifar, *gpus, *ilsvrc))]


def choose(wanted: ScaleChoice) -> tuple[Scale, str]:
    """Return the scale to run and a sentence that says why and what the next larger one would need.

    "auto" is `paper` on a machine with two CUDA devices and a prepared ILSVRC set, else `toy`.
    """
    states = {state.scale: state for state in readiness()}
    if wanted == "auto":
        scale: Scale = "toy" if states["paper"].lacks else "paper"
        why = "this machine lacks what the scale paper needs" if scale == "toy" else "two GPUs and ImageNet are here"
    else:
        scale, why = wanted, "asked for"
    following: dict[Scale, Scale] = {"toy": "cpu", "cpu": "paper"}
    sentence = f"Scale {scale} ({DESCRIPTIONS[scale]}): {why}."
    if scale in following:
        larger = states[following[scale]]
        needs = "; ".join(larger.lacks) if larger.lacks else "nothing that is not here, only time"
        sentence += f" The next larger one, SCALE={larger.scale} ({DESCRIPTIONS[larger.scale]}), would need: {needs}."
    return scale, sentence


def recorded() -> Scale:
    """Return the largest scale of which any run is recorded, or toy."""
    for scale in reversed(SCALES):
        if any((runs_dir() / scale).glob("*/*/seed-*/manifest.json")):
            return scale
    return "toy"
