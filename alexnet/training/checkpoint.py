"""Checkpoints: written whole or not at all, the previous one kept, verified, read without executing anything.

A training has `checkpoint.pt` and `checkpoint.previous.pt`; of a finished one only `weights.pt` stays (`keep_weights`). They
hold tensors and plain values only and are loaded with `weights_only=True`, so a file from a stranger can be wrong but cannot
run code. A digest over every value is kept with them, so that a file with one wrong bit is noticed, and the one before it
used. Whether there is a checkpoint is decided by `read`, and nowhere else.
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
from alexnet.config import UserError, differing_fields

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
    metrics: list[dict[str, Any]] = field(default_factory=list)  # rows {"epoch", "split", "views", "k", "wrong", "total"}
    history: list[dict[str, Any]] = field(default_factory=list)  # {"epoch", "images_seen", "loss"} of each, from epoch 0


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
    content |= {name: _on_cpu(content[name]) for name in ("weights", "velocities")}
    (folder / WEIGHTS).unlink(missing_ok=True)  # of a training that this one replaces
    # Why first: at every moment one of the two names has a whole checkpoint.
    if (folder / CURRENT).is_file():
        os.replace(folder / CURRENT, folder / PREVIOUS)
    _write(folder / CURRENT, content)


def read(folder: Path) -> Checkpoint | None:
    """Return the newest checkpoint in `folder` that is whole, or None; warn in a line of each that is not."""
    for name in (CURRENT, PREVIOUS):
        if (content := _read(folder / name)) is not None:
            try:
                return Checkpoint(**content | {"progress": Progress(**content["progress"])})
            except (TypeError, KeyError) as error:
                warnings.warn(f"{folder / name} is of another version ({error}) and is passed over.", stacklevel=2)
    return None


def keep_weights(folder: Path) -> None:
    """Of a training that has ended keep its weights, half of the disk's space, and delete the checkpoints.

    Nothing is deleted unless the weights can be read from their new place. Without a checkpoint nothing is done.
    """
    if (found := read(folder)) is None:
        return
    _write(folder / WEIGHTS, {"config": found.config, "weights": found.weights, "kept": found.kept})
    if _read(folder / WEIGHTS) is not None:
        for name in (CURRENT, PREVIOUS):
            (folder / name).unlink(missing_ok=True)


def read_weights(folder: Path) -> State | None:
    """Return the weights of the training in `folder`, ended or not; None where there are none that are whole."""
    content = _read(folder / WEIGHTS)
    if content is not None:
        return content["weights"]
    found = read(folder)
    return found.weights if found else None


def refuse_other_config(name: str, recorded: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Raise UserError, naming the fields that differ, unless both configs are equal."""
    fields = [f"{name} ({old!r} recorded, {new!r} asked)" for name, old, new in differing_fields(recorded, wanted)]
    if fields:
        raise UserError(
            f"run {name} was recorded under another config: {'; '.join(fields)}.\nStart another run (--seed, --name), "
            "or leave these options as recorded to continue this one."
        )


def weights_digest(weights: State) -> str:
    """Return the sha256 over all tensors in the order of their names: equal only when every bit is."""
    digest = hashlib.sha256()
    for name, weight in sorted(weights.items()):
        digest.update(name.encode())
        digest.update(weight.detach().cpu().contiguous().numpy().data)
    return digest.hexdigest()


def _digest(content: dict[str, Any]) -> str:
    """Return the sha256 over the names, dtypes, shapes and bits of all tensors and over all plain values."""
    states = {name: value for name, value in content.items() if name in ("weights", "velocities")}
    said: dict[str, Any] = {name: value for name, value in content.items() if name not in states}
    for name, state in states.items():
        said[name] = [{key: [str(t.dtype), list(t.shape)] for key, t in state.items()}, weights_digest(state)]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _on_cpu(state: State) -> State:
    return {name: tensor.detach().cpu() for name, tensor in state.items()}


def _write(file: Path, content: dict[str, Any]) -> None:
    with files.replacing(file) as stream:
        torch.save(content | {"digest": _digest(content)}, stream)


def _read(file: Path) -> dict[str, Any] | None:
    """Return the content of a file if it is there and whole, else None, with a warning if it is there."""
    if not file.is_file():
        return None
    try:
        content = torch.load(file, weights_only=True, map_location="cpu")
        digest = content.pop("digest")
        if _digest(content) == digest:
            return content
        why = "its digest is that of other values"
    except Exception as error:  # Why: a damaged file raises whatever its first wrong byte leads to.
        why = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no reason given'}"
    warnings.warn(f"{file} cannot be read and is passed over ({why[:200]}).", stacklevel=3)
    return None
