"""Checkpoints: written whole or not at all, the previous one kept, read without executing anything.

`checkpoint.pt` holds tensors and plain numbers only and is loaded with `weights_only=True`, so a file from a stranger can
be wrong but cannot run code.
"""

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from alexnet.config import UserError, differing_fields

State = dict[str, Tensor]
CURRENT, PREVIOUS = "checkpoint.pt", "checkpoint.previous.pt"


@dataclass
class Progress:
    """Where a training stands: `step` batches into `epoch` (both count from 0), with the sums of the epoch so far."""

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0  # nats, summed over the epoch's images
    wrong: int = 0  # images of the epoch classified wrongly when they were trained on
    images_seen: int = 0
    diverged: str | None = None  # where the loss stopped being a number
    metrics: list[dict[str, Any]] = field(default_factory=list)  # one dictionary for each finished epoch


def save(folder: Path, config: dict[str, Any], progress: Progress, weights: State, velocities: State) -> None:
    """Write `folder/checkpoint.pt` atomically; the one that was there becomes `checkpoint.previous.pt`."""
    content = {"config": config, "progress": vars(progress), "weights": weights, "velocities": velocities}
    partial = folder / "checkpoint.partial"
    with partial.open("wb") as stream:
        torch.save(content, stream)
        stream.flush()
        os.fsync(stream.fileno())
    if (folder / CURRENT).exists():
        os.replace(folder / CURRENT, folder / PREVIOUS)
    os.replace(partial, folder / CURRENT)


def load(folder: Path, config: dict[str, Any], restore: Callable[[State, State], None]) -> Progress:
    """Hand weights and velocities of the newest readable checkpoint to `restore`, and return where the training stood.

    Without a checkpoint nothing is changed and a `Progress` at the start is returned. Raises UserError when the
    checkpoint was written under another config.
    """
    content = _newest(folder)
    if content is None:
        return Progress()
    refuse_other_config(str(folder), content["config"], config)
    restore(content["weights"], content["velocities"])
    return Progress(**content["progress"])


def refuse_other_config(name: str, recorded: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Raise UserError, naming the fields that differ, unless both configs are equal."""
    fields = [f"{name} ({old!r} recorded, {new!r} asked)" for name, old, new in differing_fields(recorded, wanted)]
    if fields:
        raise UserError(
            f"run {name} was recorded under another config: {'; '.join(fields)}.\nStart another run (--seed, --variant), "
            "or leave these options as recorded to continue this one."
        )


def discard(folder: Path) -> None:
    """Delete the checkpoints in `folder`."""
    for name in (CURRENT, PREVIOUS):
        (folder / name).unlink(missing_ok=True)


def _newest(folder: Path) -> dict[str, Any] | None:
    for name in (CURRENT, PREVIOUS):
        file = folder / name
        if not file.is_file():
            continue
        try:
            return torch.load(file, weights_only=True, map_location="cpu")
        except Exception as error:  # Why: a damaged file raises whatever its first wrong byte leads to.
            warnings.warn(f"{file} cannot be read ({type(error).__name__}); trying the one before it.", stacklevel=2)
    return None
