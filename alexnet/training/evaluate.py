"""Exact counts of errors (section 6)."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from alexnet.training.precision import autocast


def num_wrong(logits_NK: Tensor, labels_N: Tensor) -> int:
    """Return how many images have another class at least as probable as the true one: ties, and NaN, count against us."""
    true_N1 = logits_NK.gather(1, labels_N[:, None])
    return int(((logits_NK >= true_N1).sum(dim=1) != 1).sum())


@torch.no_grad()
def error_rate(net: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], precision: str = "fp32") -> float:
    """Return the fraction of images that `net` gets wrong, each seen once."""
    training = net.training
    net.eval()
    wrong = total = 0
    for images, labels in batches:
        with autocast(precision):
            logits = net(images)
        wrong += num_wrong(logits.float(), labels)
        total += len(labels)
    net.train(training)
    return wrong / total
