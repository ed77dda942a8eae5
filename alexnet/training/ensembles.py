"""Averages over nets: the rows "5 CNNs" and "7 CNNs" of Table 2.

Each net gives the probabilities (N, K) of the same images in the same order (`evaluate.probabilities`). The paper averages
them. The 2012 source adds them with coefficients tuned on the validation set in steps of .05 (avg-valid.py), so those rows
may have been tuned; both are here. Tuned weights flatter the images they were tuned on: count errors on others.

Weights are given as whole numbers of parts: (1, 1, 2) weighs a third net as much as the two others together.
"""

from collections.abc import Sequence
from itertools import permutations
from typing import Literal

import torch
from torch import Tensor

from alexnet.training.evaluate import NO_IMAGES, Errors, errors_of

STEPS = 20  # tuned weights are multiples of .05 and add up to 1
ROWS = 4096  # images mixed at once where only their errors are wanted: a mixture takes little memory


def average(nets_NK: Sequence[Tensor], parts: Sequence[int] = ()) -> Tensor:
    """Return the mean (N, K) of several nets' probabilities, float64, with weights in proportion to `parts` or equal.

    Raises ValueError for nets of different images or classes, and for parts that are not as many as the nets, negative,
    or all zero.
    """
    parts = _checked(nets_NK, parts)
    total_NK = torch.zeros((), dtype=torch.float64)
    for net_NK, factor in zip(nets_NK, parts, strict=True):
        if factor:  # Why: a net of weight zero has no say, even where it gives NaN.
            total_NK = total_NK + net_NK.double() * factor
    return total_NK / sum(parts)


def errors_of_average(nets_NK: Sequence[Tensor], labels_N: Tensor, parts: Sequence[int] = ()) -> Errors:
    """Count the errors of `average(nets_NK, parts)`, some thousand images at a time."""
    parts = _checked(nets_NK, parts)
    starts = range(0, len(labels_N), ROWS)
    mixed = (average([net[at : at + ROWS] for net in nets_NK], parts) for at in starts)
    return sum((errors_of(p, labels_N[at : at + ROWS]) for at, p in zip(starts, mixed, strict=True)), NO_IMAGES)


def tune_parts(
    nets_NK: Sequence[Tensor], labels_N: Tensor, lowest: Literal["top1", "top5"] = "top5"
) -> tuple[tuple[int, ...], Errors]:
    """Return weights with few errors on these images, as parts of 20 (steps of .05), and those errors.

    The search descends: from weights as equal as the steps allow it moves some of one net's weight to another, always the
    move that saves most errors (the other count decides between equals, then the order of the nets), until none saves any.
    So it takes 20 (n - 1) counts a move, where seven nets have 230,230 mixtures in all, and it ends where no transfer
    between two nets is better, which need not be the best of all. Exactly equal weights, (1, ..., 1), are returned unless
    the search finds fewer errors. Source 2012: avg-valid.py has steps of .05 too; this walk through them is ours.
    """
    count = len(_checked(nets_NK, ()))
    other = "top1" if lowest == "top5" else "top5"

    def cost(parts: tuple[int, ...]) -> tuple[int, int]:
        errors = errors_of_average(nets_NK, labels_N, parts)
        return getattr(errors, lowest).wrong, getattr(errors, other).wrong

    best = tuple(STEPS // count + (i < STEPS % count) for i in range(count))
    best_cost = cost(best)
    while moves := _moves(best):
        costs = [cost(move) for move in moves]
        if min(costs) >= best_cost:
            break
        best_cost = min(costs)
        best = moves[costs.index(best_cost)]
    equal = (1,) * count
    if cost(equal) <= best_cost:
        best = equal
    return best, errors_of_average(nets_NK, labels_N, best)


def _moves(parts: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Return every mixture to which one net's giving any of its parts to another leads."""
    pairs = list(permutations(range(len(parts)), 2))
    given = [(giver, taker, g) for giver, taker in pairs for g in range(1, parts[giver] + 1)]
    return [tuple(p - g * (i == giver) + g * (i == taker) for i, p in enumerate(parts)) for giver, taker, g in given]


def _checked(nets_NK: Sequence[Tensor], parts: Sequence[int]) -> Sequence[int]:
    shapes = {tuple(net.shape) for net in nets_NK}
    if len(shapes) != 1:
        raise ValueError(f"The nets must give probabilities of the same images and classes; their shapes are {shapes}.")
    parts = parts or (1,) * len(nets_NK)
    if len(parts) != len(nets_NK) or min(parts) < 0 or not any(parts):
        raise ValueError(f"`parts` (={parts}) must be {len(nets_NK)} numbers, none below 0 and one above.")
    return parts
