"""Checkpoints: written whole or not at all, verified, read without executing anything.

A training has `checkpoint.pt` and `checkpoint.previous.pt`; of a finished one only `weights.pt` stays. They hold tensors,
plain values, and a digest over every bit, so that the one before a damaged one is used.
"""

import hashlib
import json
import os
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from alexnet import files

State = dict[str, Tensor]
CURRENT, PREVIOUS, WEIGHTS = "checkpoint.pt", "checkpoint.previous.pt", "weights.pt"


@dataclass
class Progress:
    """Where a training stands: `step` batches into `epoch` (both count from 0), with the sums of the epoch so far."""

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0  # nats, summed over the epoch's images
    wrong: int = 0  # images of the epoch classified wrongly when they were trained on
    images_seen: int = 0
    diverged: str | None = None  # where the loss stopped being a number
    metrics: files.Rows = field(default_factory=list)  # rows {"epoch", "split", "views", "k", "wrong", "total"}
    history: files.Rows = field(default_factory=list)  # {"epoch", "images_seen", "loss"} of each, from epoch 0


@dataclass
class Checkpoint:
    """A training at one moment."""

    config: dict[str, Any]
    progress: Progress
    weights: State
    velocities: State
    kept: dict[str, Any] = field(default_factory=dict)  # plain values that the run must keep when it resumes: threads, ...


def save(folder: Path, checkpoint: Checkpoint) -> None:
    """Write `folder/checkpoint.pt`; the one that was there becomes `checkpoint.previous.pt`."""
    content = vars(checkpoint) | {"progress": vars(checkpoint.progress)}
    for name in ("weights", "velocities"):
        content[name] = {key: tensor.detach().cpu() for key, tensor in content[name].items()}
    (folder / WEIGHTS).unlink(missing_ok=True)  # of a training that this one replaces
    if (folder / CURRENT).is_file():  # Why first: at every moment one of the two names has a whole checkpoint.
        os.replace(folder / CURRENT, folder / PREVIOUS)
    _write(folder / CURRENT, content)


def read(folder: Path) -> Checkpoint | None:
    """Return the newest checkpoint in `folder` that is whole, or None; warn in a line of each that is not."""
    for name in (CURRENT, PREVIOUS):
        if (content := _read(folder / name)) is not None:
            try:
                return Checkpoint(**content | {"progress": Progress(**content["progress"])})
            except (TypeError, KeyError) as error:
                warnings.warn(f"{folder / name} is of another version and is passed over ({error}).", stacklevel=2)
    return None


def keep_weights(folder: Path) -> None:
    """Of a training that has ended keep its weights, half of the disk's space, and delete the checkpoints, if any."""
    if found := read(folder):
        _write(folder / WEIGHTS, {"config": found.config, "weights": found.weights, "kept": found.kept})
        for name in (CURRENT, PREVIOUS):
            (folder / name).unlink(missing_ok=True)


def read_weights(folder: Path) -> State | None:
    """Return the weights of the training in `folder`, ended or not; None where there are none that are whole."""
    if content := _read(folder / WEIGHTS):
        return content["weights"]
    return found.weights if (found := read(folder)) else None


def weights_digest(weights: State) -> str:
    """Return the sha256 over all tensors in the order of their names: equal only when every bit is."""
    digest = hashlib.sha256()
    for name, weight in sorted(weights.items()):
        digest.update(name.encode())
        digest.update(weight.detach().cpu().contiguous().numpy().data)
    return digest.hexdigest()


def _digest(content: dict[str, Any]) -> str:
    said = dict(content)
    for name in said.keys() & {"weights", "velocities"}:
        shapes = {key: [str(tensor.dtype), list(tensor.shape)] for key, tensor in content[name].items()}
        said[name] = [shapes, weights_digest(content[name])]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _write(file: Path, content: dict[str, Any]) -> None:
    with files.replacing(file) as stream:
        torch.save(content | {"digest": _digest(content)}, stream)


def _read(file: Path) -> dict[str, Any] | None:
    why = "its digest is that of other values"
    try:
        content = torch.load(file, weights_only=True, map_location="cpu")  # executes nothing
        if content.pop("digest") == _digest(content):
            return content
    except FileNotFoundError:
        return None
    except Exception as error:  # Why: a damaged file raises whatever its first wrong byte leads to.
        why = repr(error).splitlines()[0][:200]
    warnings.warn(f"{file} cannot be read and is passed over ({why}).", stacklevel=3)
    return None
