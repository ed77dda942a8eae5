"""From a prepared set to what the net sees: raw 0-255 pixels minus the training-set mean image (section 2).

Small sets go to the net whole (`Batches`), photographs as views of them (`CroppedBatches`, section 4.1). Either way a batch
is a function of (seed, epoch, step) alone: float (N, 3, H, W) in channels_last layout, never divided by 255, and int64 (N,).
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from alexnet import randomness
from alexnet.config import Views
from alexnet.preprocessing import cutting, views
from alexnet.preprocessing.beside import Beside
from alexnet.preprocessing.memory import Reused
from alexnet.preprocessing.store import PreparedSet

Part = tuple[int, int]  # (r, R): the rows that replica r of R takes of every batch
WHOLE: Part = (0, 1)


def rows_of(total: int, part: Part) -> slice:
    """Return the rows of a batch of `total` images that belong to a part: equal shares, within one image."""
    own, parts = part
    return slice(own * total // parts, (own + 1) * total // parts)


class Batches:
    """Batches of one split, held in memory as uint8 and shown whole."""

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

    def epoch(
        self,
        seed: int,
        epoch: int,
        batch_size: int,
        first_step: int = 0,
        colour_noise: bool = True,
        part: Part = WHOLE,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the shuffled batches of `epoch` from `first_step` on, or this part's rows of each."""
        order = torch.from_numpy(randomness.batch_order(seed, epoch, len(self)))
        for step in range(first_step, self.steps_per_epoch(batch_size)):
            start, total = step * batch_size, min(batch_size, len(self) - step * batch_size)
            places = torch.arange(start, start + total)[rows_of(total, part)]
            yield self.take_augmented(order[places], places, seed, epoch, colour_noise)

    def take_augmented(
        self, indices: Tensor, places: Tensor, seed: int, epoch: int, colour_noise: bool
    ) -> tuple[Tensor, Tensor]:
        """Return the images at `indices` as they are shown at `places` of an epoch: here, as they are."""
        return self.take(indices)

    def in_order(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield every image once, in the set's order; the last batch may be smaller."""
        for start in range(0, len(self), batch_size):
            yield self.take(slice(start, start + batch_size))

    def views_in_order(self, batch_size: int, ten: bool, part: Part = WHOLE) -> Iterator[tuple[list[Tensor], Tensor]]:
        """Yield (views, labels) of every image once, or of every R-th batch: whole images have one view."""
        for start in range(part[0] * batch_size, len(self), part[1] * batch_size):
            images, labels = self.take(slice(start, start + batch_size))
            yield [images], labels


class CroppedBatches(Batches):
    """Batches of one split of photographs, left on disk: only the pixels that are shown are read, and travel to `device`."""

    def __init__(
        self, data: PreparedSet, split: str, reading: Views, crop_side: int, device: torch.device | None = None
    ) -> None:
        self.images, self.mean = data.splits[split].images, data.mean
        self.labels = torch.from_numpy(data.splits[split].labels)
        self.axes = views.colour_axes(data.covariance)
        # The reading decides the mean of test images too; a training on central views has no other difference from it.
        self.augmentation = replace(views.READINGS.get(reading, views.PAPER), crop_side=crop_side)
        self.random = reading in views.READINGS
        self.how = {"device": device, "memory": Reused()}

    def take(self, indices: Tensor | slice) -> tuple[Tensor, Tensor]:
        """Return the central views of the images at `indices`."""
        numbers = torch.arange(len(self))[indices]
        (central,) = self._views(numbers, ten=False)
        return central, self.labels[indices]

    def epoch(self, *args, **options) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches of an epoch, each made in the background while the one before it is used."""
        batches, beside = super().epoch(*args, **options), Beside(self.how["device"])
        with ThreadPoolExecutor(1) as background:
            following = background.submit(beside.run, next, batches, None)
            while (batch := following.result()) is not None:
                beside.hand_over(batch)
                following = background.submit(beside.run, next, batches, None)
                yield batch

    def take_augmented(
        self, indices: Tensor, places: Tensor, seed: int, epoch: int, colour_noise: bool
    ) -> tuple[Tensor, Tensor]:
        """Return one random view of each image, with colour noise if asked (paper 4.1); or the central view."""
        if not self.random:
            return self.take(indices)
        # Source 2012: without noise, images are not divided either: by 1 plus its deviation, then 0 (convdata_jpeg.py:179).
        how = self.augmentation if colour_noise else replace(self.augmentation, noise=0.0)
        numbers, at = indices.numpy(), places.numpy()
        shown = cutting.augment(self.images, numbers, self.mean, self.axes, how, seed, epoch, at, **self.how)
        return shown, self.labels[indices]

    def views_in_order(self, batch_size: int, ten: bool, part: Part = WHOLE) -> Iterator[tuple[list[Tensor], Tensor]]:
        """Yield (views, labels) of every image once, or of every R-th batch: ten views or the central one (paper 4.1)."""
        for start in range(part[0] * batch_size, len(self), part[1] * batch_size):
            numbers = torch.arange(start, min(start + batch_size, len(self)))
            yield self._views(numbers, ten), self.labels[numbers]

    def _views(self, numbers: Tensor, ten: bool) -> list[Tensor]:
        return list(cutting.fixed_views(self.images, numbers.numpy(), self.mean, self.augmentation, ten, **self.how))
