"""Does bf16 train like fp32? A short trial of both on the run's own net, weights and batches."""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from alexnet.config import RunConfig
from alexnet.preprocessing.store import PreparedSet
from alexnet.training.loop import Training
from alexnet.training.precision import PARITY_STEPS, compare_losses


def parity_of(config: RunConfig, data: PreparedSet) -> Callable[[], dict[str, Any]]:
    """Return the parity check of `config`'s net: a call trains the first `PARITY_STEPS` steps in both types."""

    def losses_of(precision: str) -> Iterator[float]:
        training = Training(config, data, None, precision)
        epochs = (
            batch
            for epoch in range(PARITY_STEPS)
            for batch in training.train_batches.epoch(config.seed, epoch, config.optimiser.batch_size)
        )
        for images, labels in islice(epochs, PARITY_STEPS):
            yield training.step(images, labels)[0].item()

    return lambda: compare_losses(losses_of)
