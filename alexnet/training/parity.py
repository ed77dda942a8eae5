"""Does bf16 train like fp32? A short trial of both on the run's own net, weights and batches."""

from collections.abc import Callable, Iterator
from itertools import chain, count, islice
from typing import Any

from alexnet.config import RunConfig
from alexnet.preprocessing.batches import Batches
from alexnet.preprocessing.store import PreparedSet
from alexnet.training.loop import Learner
from alexnet.training.precision import PARITY_STEPS, compare_losses


def parity_of(config: RunConfig, data: PreparedSet) -> Callable[[], dict[str, Any]]:
    """Return the parity check of `config`'s net: a call trains the first `PARITY_STEPS` steps in both types."""

    def losses_of(precision: str) -> Iterator[float]:
        learner, batches = Learner(config, precision), Batches(data, "train")
        endless = (batches.epoch(config.seed, epoch, config.optimiser.batch_size) for epoch in count())
        for images, labels in islice(chain.from_iterable(endless), PARITY_STEPS):
            yield learner.step(images, labels)[0].item()

    return lambda: compare_losses(losses_of)
