"""From a prepared set to what the net sees: raw 0-255 pixels minus the training-set mean image (section 2)."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from alexnet import randomness
from alexnet.preprocessing.store import PreparedSet


class Batches:
    """Batches of one split, held in memory as uint8.

    Images come as float (N, 3, H, W) in channels_last layout, never divided by 255; labels as
    int64 (N,). Every batch is a function of (seed, epoch, step) alone.
    """

    def __init__(self, data: PreparedSet, split: str) -> None:
        self.images_NHWC = torch.from_numpy(np.array(data.splits[split].images))
        self.labels = torch.from_numpy(data.splits[split].labels)
        self.mean_HWC = torch.from_numpy(data.mean)

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: Tensor | slice) -> tuple[Tensor, Tensor]:
        """Return the images and labels at `indices`."""
        pixels = self.images_NHWC[indices].float().sub_(self.mean_HWC)
        return pixels.permute(0, 3, 1, 2), self.labels[indices]

    def steps_per_epoch(self, batch_size: int) -> int:
        """Return the number of batches in an epoch; the last one holds what is left and may be smaller."""
        return -(-len(self) // batch_size)

    def epoch(self, seed: int, epoch: int, batch_size: int, first_step: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the shuffled batches of `epoch` from `first_step` on."""
        order = torch.from_numpy(randomness.batch_order(seed, epoch, len(self)))
        for step in range(first_step, self.steps_per_epoch(batch_size)):
            yield self.take(order[step * batch_size : (step + 1) * batch_size])

    def in_order(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield every image once, in the set's order; the last batch may be smaller."""
        for start in range(0, len(self), batch_size):
            yield self.take(slice(start, start + batch_size))
