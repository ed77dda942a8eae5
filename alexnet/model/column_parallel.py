"""The columns of Figure 2 on two devices (paper 3.2), and replicas of the pair.

What columns tell each other is an *exchange*. With one rank for each column it goes over `torch.distributed`, and nothing
else of a column leaves its rank. Replicas of the pair see parts of a batch: rank = replica * columns + column.

Going forward every rank gets the maps of all columns; going backward each gets the gradients of its own maps from all ranks
and adds them. At the logits the shares are added, and nothing goes backward: every rank has the one loss of the net.

Shapes: N images, C maps, H, W pixels, K classes.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup

from alexnet.model.presets import NetConfig, outputs

# Why a rank waits for every exchange: the next layer needs all maps at once, and going backward the gradients that are sent
# come out of the same operation as those of the weights. To overlap, a layer's product would have to be cut in two.


@dataclass(frozen=True)
class Layout:
    """How a net is laid out over ranks."""

    columns: int = 1  # ranks that share a net: one for each of its columns, or 1 that has them all (`--devices`)
    replicas: int = 1  # nets that train on parts of the same batch (`--replicas`)

    @property
    def ranks(self) -> int:
        """How many ranks there are in all."""
        return self.columns * self.replicas


class Exchange:
    """The exchange of columns: of all of them here, or of one here and the others on the ranks of a group, in their order.

    Each call gets the tensors of the columns that live here. With a group, every rank of it has to call.
    """

    def __init__(self, group: Callable[[], ProcessGroup] | None = None) -> None:
        self.group = group  # Why asked for each time: a net that is still there must not keep a group alive.

    def concatenate(self, own: Sequence[Tensor]) -> Tensor:
        """Return the maps or features (N, C, ...) of every column side by side, in the memory format of the first."""
        if self.group:
            return _Concatenate.apply(*own, self.group())
        return torch.cat(list(own), dim=1) if len(own) > 1 else own[0]

    def add(self, own_NK: Sequence[Tensor]) -> Tensor:
        """Return the sum of every column's share of the logits."""
        return _Add.apply(*own_NK, self.group()) if self.group else sum(own_NK[1:], own_NK[0])

    def gather(self, own: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
        """Return the named tensors of every column; with a group, on the CPU."""
        if not self.group:
            return own
        found: list[dict[str, Tensor]] = [{}] * dist.get_world_size(self.group())
        dist.all_gather_object(found, {key: tensor.cpu() for key, tensor in own[0].items()}, group=self.group())
        return found


class _Concatenate(torch.autograd.Function):
    """Gather maps going forward; going backward, give each rank the gradients of its own maps and add those received."""

    @staticmethod
    def forward(ctx, own: Tensor, group: ProcessGroup) -> Tensor:
        ctx.group = group
        ctx.maps_last = own.ndim == 4 and not own.is_contiguous() and own.is_contiguous(memory_format=torch.channels_last)
        x = _as_it_lies(own, ctx.maps_last)
        parts = x.new_empty(dist.get_world_size(group), *x.shape)
        dist.all_gather(list(parts), x, group=group)
        whole = torch.cat(list(parts), dim=-1 if ctx.maps_last else 1)
        return whole.permute(0, 3, 1, 2) if ctx.maps_last else whole

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        whole = _as_it_lies(gradient, ctx.maps_last)
        parts = torch.stack(whole.chunk(dist.get_world_size(ctx.group), dim=-1 if ctx.maps_last else 1))
        received = torch.empty_like(parts)
        dist.all_to_all_single(received, parts, group=ctx.group)
        own = received.sum(0)
        return own.permute(0, 3, 1, 2) if ctx.maps_last else own, None


class _Add(torch.autograd.Function):
    """Add the shares of all ranks; the gradient of each is that of the sum."""

    @staticmethod
    def forward(ctx, own_NK: Tensor, group: ProcessGroup) -> Tensor:
        total_NK = own_NK.contiguous().clone()
        dist.all_reduce(total_NK, group=group)
        return total_NK

    @staticmethod
    def backward(ctx, gradient_NK: Tensor) -> tuple[Tensor | None, ...]:
        return gradient_NK, None


def _as_it_lies(x: Tensor, maps_last: bool) -> Tensor:
    # Why: what is sent has to be contiguous; this permutation only renames dimensions of a channels_last tensor.
    return (x.permute(0, 2, 3, 1) if maps_last else x).contiguous()


def exchanged_shapes(config: NetConfig) -> dict[str, tuple[int, ...]]:
    """Return what one column gives the others for each image, by the layer that sees it: conv3 (128, 13, 13), ..."""
    given = outputs(config)
    return {later: given[name] for name, later in pairwise(given) if later in config.shared} | {"fc8": given["fc8"]}


def bytes_per_image(config: NetConfig, itemsize: int = 4) -> dict[tuple[str, str], int]:
    """Return the bytes that a rank sends for each image of a step, by (layer, "forward" or "backward")."""
    others, given = config.columns - 1, exchanged_shapes(config)
    (classes,) = given.pop("fc8")
    ways = [(layer, way) for layer in given for way in ("forward", "backward")]
    counts = {(layer, way): others * math.prod(given[layer]) * itemsize for layer, way in ways}
    # Of the logits, which are never shorter than fp32, each rank sends its share to be added, then its part of the sums.
    return counts | {("fc8", "forward"): 2 * others * classes * max(4, itemsize) // config.columns}
