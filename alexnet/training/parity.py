"""Does bf16 train like fp32? A short trial of both on the run's own net, weights and batches."""

from collections.abc import Callable, Iterator
from itertools import chain, count, islice
from typing import Any

import torch

from alexnet.config import ColumnNet, RunConfig
from alexnet.model.layers import Moment
from alexnet.preprocessing.store import PreparedSet
from alexnet.training.crew import Crew
from alexnet.training.learner import Learner, to_device
from alexnet.training.measure import batches_of
from alexnet.training.precision import PARITY_STEPS, compare_losses

COLUMN_PARITY_STEPS = 12  # of the two-column net, which takes seconds a step; its first losses lie at ln K in any type


def parity_of(config: RunConfig, data: PreparedSet, device: torch.device | None = None) -> Callable[[], dict[str, Any]]:
    """Return the parity check of `config`'s net on a device: a call trains its first steps in both types."""
    crew = Crew(device)
    steps = COLUMN_PARITY_STEPS if isinstance(config.net, ColumnNet) else PARITY_STEPS
    size = config.optimiser.batch_size

    def losses_of(precision: str) -> Iterator[float]:
        learner, batches = Learner(config, precision, crew), batches_of(config, data, "train", crew.device)
        moments = ((epoch, step) for epoch in count() for step in range(batches.steps_per_epoch(size)))
        images = chain.from_iterable(batches.epoch(config.seed, epoch, size) for epoch in count())
        for (epoch, step), (x, y) in islice(zip(moments, images, strict=False), steps):
            yield learner.step(*to_device((x, y), crew.device), Moment(config.seed, epoch, step))[0].item()

    return lambda: compare_losses(losses_of, steps)
