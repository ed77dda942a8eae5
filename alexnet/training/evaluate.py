"""Exact counts of errors, top-1 and top-5, from one view of each image or from ten (section 6).

Nothing is padded, and the counts are the same integers for any batch size and any number of workers and ranks: whatever
batches come in, a net is shown the images of a split in pieces of `CHUNK`, of which the last may be smaller, so that it
computes each image in the same company and to the same bits. A rank takes whole pieces (batches of `CHUNK` or a multiple of
it), and counts of parts are added as integers. The number of threads is the machine's, and may change last bits.

Shapes: N images, C maps, H, W pixels, K classes.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from alexnet.training.precision import autocast

CHUNK = 125  # images that a net sees at once; divides every validation and test set of the paper, and those of CIFAR-10

ViewBatches = Iterable[tuple[Iterable[Tensor], Tensor]]  # views, each (N, C, H, W) of the same images, and labels (N,)


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

    def __add__(self, other: "Count") -> "Count":
        return Count(self.wrong + other.wrong, self.total + other.total)


@dataclass(frozen=True)
class Errors:
    """Both errors of the paper's tables; those of two parts of a set add up to those of the whole."""

    top1: Count
    top5: Count

    def __add__(self, other: "Errors") -> "Errors":
        return Errors(self.top1 + other.top1, self.top5 + other.top5)


NO_IMAGES = Errors(Count(0, 0), Count(0, 0))


@torch.no_grad()
def count_errors(net: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], precision: str = "fp32") -> Count:
    """Count the images that `net` gets wrong, each seen once."""
    training, device = net.training, device_of(net)
    net.eval()
    wrong = total = 0
    for images, labels in batches:
        with autocast(precision, device.type):
            logits = net(images.to(device))
        wrong += num_wrong(logits.float(), labels.to(device))
        total += len(labels)
    net.train(training)
    return Count(wrong, total)


def errors_of(probabilities_NK: Tensor, labels_N: Tensor) -> Errors:
    """Count the images whose true class is not among the 1 and the 5 most probable, ties and NaN decided against us.

    A class that is not less probable than the true one goes before it. A true class without a probability (NaN) is wrong
    in both counts, even where there are no more than five classes. Paper 6.
    """
    top1, top5 = (Count(int(wrong.sum()), len(labels_N)) for wrong in _wrong(probabilities_NK, labels_N))
    return Errors(top1, top5)


def errors_by_class(probabilities_NK: Tensor, labels_N: Tensor) -> tuple[Errors, ...]:
    """Return the errors among the images of each of the K classes, in the order of the classes; they add up to the whole."""
    num_classes = probabilities_NK.shape[1]
    totals, wrong1, wrong5 = (
        torch.bincount(labels, minlength=num_classes).tolist()
        for labels in (labels_N, *(labels_N[wrong_N] for wrong_N in _wrong(probabilities_NK, labels_N)))
    )
    return tuple(Errors(Count(a, n), Count(b, n)) for a, b, n in zip(wrong1, wrong5, totals, strict=True))


def _wrong(probabilities_NK: Tensor, labels_N: Tensor) -> tuple[Tensor, Tensor]:
    true_N1 = probabilities_NK.gather(1, labels_N[:, None])
    ahead_N = (~(probabilities_NK < true_N1)).sum(dim=1) - 1  # without the true class itself
    unknown_N = true_N1.isnan()[:, 0]
    return (ahead_N >= 1) | unknown_N, (ahead_N >= 5) | unknown_N


def probabilities(net: nn.Module, batches: ViewBatches, precision: str = "fp32") -> tuple[Tensor, Tensor]:
    """Return the probabilities (N, K) that `net` gives the classes of every image, float64, and the labels (N,).

    They are the mean, over the views of an image, of the softmax outputs. The net is in evaluation mode while it is
    asked. Raises ValueError without images. Paper 4.1 and 6.
    """
    chunks = list(_probabilities(net, batches, precision))
    if not chunks:
        raise ValueError("There are no images among `batches`.")
    mean_NK, labels_N = zip(*chunks, strict=True)
    return torch.cat(mean_NK), torch.cat(labels_N)


def count_errors_over_views(net: nn.Module, batches: ViewBatches, precision: str = "fp32") -> Errors:
    """Count as `errors_of(*probabilities(...))` does, forgetting the probabilities of one piece before the next."""
    return sum((errors_of(*chunk) for chunk in _probabilities(net, batches, precision)), NO_IMAGES)


def _probabilities(net: nn.Module, batches: ViewBatches, precision: str) -> Iterator[tuple[Tensor, Tensor]]:
    for views, labels_N in in_chunks(batches):
        total_NK, num_views = torch.zeros((), dtype=torch.float64), 0
        for images in views:
            total_NK = total_NK + run(net, images, precision).double().softmax(dim=1)
            num_views += 1
        yield total_NK / num_views, labels_N.cpu()


def run(net: nn.Module, images: Tensor, precision: str = "fp32", ask: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """Return what `net`, or its method `ask`, makes of a piece of images in evaluation mode: fp32, on the processor.

    The mode is restored. The images get memory of their own in one layout, on which the bits of a product may depend.
    """
    layout = torch.channels_last if images.ndim == 4 else torch.contiguous_format
    device, training = device_of(net), net.training
    net.eval()
    try:
        with torch.no_grad(), autocast(precision, device.type):
            return (ask or net)(images.clone(memory_format=layout).to(device)).float().cpu()
    finally:
        net.train(training)


def device_of(net: nn.Module) -> torch.device:
    """Return where the weights of a net are; without weights, the processor."""
    return next((weight.device for weight in net.parameters()), torch.device("cpu"))


def in_chunks(batches: ViewBatches) -> Iterator[tuple[Iterable[Tensor], Tensor]]:
    """Yield the same images in pieces of `CHUNK`, the last one smaller; a batch of that size is passed on as it is."""
    held: list[tuple[list[Tensor], Tensor]] = []
    num_held = 0
    for views, labels_N in batches:
        if not held and len(labels_N) == CHUNK:
            yield views, labels_N
            continue
        held.append((list(views), labels_N))
        num_held += len(labels_N)
        if num_held >= CHUNK:
            pieces = _cut(held)
            held = [pieces.pop()] if num_held % CHUNK else []
            num_held %= CHUNK
            yield from pieces
    if num_held:
        yield from _cut(held)


def _cut(parts: list[tuple[list[Tensor], Tensor]]) -> list[tuple[list[Tensor], Tensor]]:
    """Join parts and cut them into pieces of `CHUNK`, of which the last may be smaller."""
    views, labels = zip(*parts, strict=True)
    joined = [torch.cat(view).split(CHUNK) for view in zip(*views, strict=True)]
    return list(zip(map(list, zip(*joined, strict=True)), torch.cat(labels).split(CHUNK), strict=True))
