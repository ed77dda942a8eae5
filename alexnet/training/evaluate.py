"""Exact counts of errors (section 6)."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from alexnet.training.precision import autocast


def num_wrong(logits_NK: Tensor, labels_N: Tensor) -> int:
    """Return for how many images the true class is not more probable than every other: ties and NaN count against us."""
    true_N1 = logits_NK.gather(1, labels_N[:, None])
    num_below_N = (logits_NK < true_N1).sum(dim=1)
    return int((num_below_N != logits_NK.shape[1] - 1).sum())


@dataclass(frozen=True)
class Count:
    """How many of `total` images were classified wrongly."""

    wrong: int
    total: int

    @property
    def rate(self) -> float:
        """The error as a fraction."""
        return self.wrong / self.total


@torch.no_grad()
def count_errors(net: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], precision: str = "fp32") -> Count:
    """Count the images that `net` gets wrong, each seen once."""
    training = net.training
    net.eval()
    wrong = total = 0
    for images, labels in batches:
        with autocast(precision):
            logits = net(images)
        wrong += num_wrong(logits.float(), labels)
        total += len(labels)
    net.train(training)
    return Count(wrong, total)
