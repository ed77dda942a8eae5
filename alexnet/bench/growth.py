"""How the time of an image in a training step grows with the net's width, the batch and the number of classes: measured."""

import statistics
from itertools import count
from typing import Any

import torch

from alexnet.bench.rows import Kind, seconds_of
from alexnet.config import ColumnNet, Optimiser, RunConfig
from alexnet.model.layers import Moment
from alexnet.training.learner import Learner

REPEATS = 3
BASE = {"width": 0.5, "batch": 128, "classes": 20}  # the net of the scale cpu; each row changes one of these
ROWS = (
    {},
    {"width": 0.25},
    {"width": 1.0},
    {"batch": 16},
    {"batch": 256},
    {"classes": 1000},
    {"classes": 10184},  # of the fall 2009 release (paper 6)
)


def seconds_per_image(kind: Kind) -> list[dict[str, Any]]:
    """Return, for the base and each change of it, the seconds of a training step (forward, backward, update) by image."""
    return [{**BASE, **change, "seconds": _step({**BASE, **change}, kind)} for change in ROWS]


def _step(of: dict[str, Any], kind: Kind) -> float:
    net, batch = ColumnNet("source2012", of["width"], of["classes"]), of["batch"]
    learner = Learner(RunConfig(net=net, optimiser=Optimiser(rate=0.001, batch_size=batch, weight_decay=5e-4)), kind)
    images = (torch.randn(batch, 3, 224, 224) * 50).to(memory_format=torch.channels_last)
    labels, steps = torch.arange(batch) % of["classes"], count()

    def step() -> None:
        learner.step(images, labels, Moment(0, 0, next(steps)))

    step()  # Why: the first compiles, and finds its memory
    return statistics.median(seconds_of(step) for _ in range(REPEATS)) / batch
