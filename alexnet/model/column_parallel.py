"""The columns of Figure 2 on two devices (paper 3.2), and replicas of the pair.

A rank is a process with a device. With one rank for each column, the exchange that `AlexNet` asks for goes over
`torch.distributed`, and nothing else of a column leaves its rank. Replicas of the pair see parts of a batch: ranks are a
mesh (replica x column), in which rank = replica * columns + column.

Going forward every rank gets the maps of all columns, before conv3, fc6 and fc7; going backward each gets the gradients
of its own maps from all ranks and adds them. At the logits the shares are added, and nothing goes backward: every rank
computes the one loss of the net, so it has the gradient of the sum already.

Shapes: N images, C maps, H, W pixels, K classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from alexnet.config import Net, UserError
from alexnet.model.presets import COLOURS, COLUMN_NAMES, CONV, NetConfig, num_columns_of, sides

# Why: a rank waits for every exchange. conv3, fc6 and fc7 need all maps at once, and going backward the gradients that an
# exchange waits for come out of the same operation as those of the weights, so nothing is left to compute meanwhile
# without cutting a layer's product in two, which would change its arithmetic.


@dataclass(frozen=True)
class Layout:
    """How a net is laid out over ranks."""

    columns: int = 1  # ranks that share a net: one for each of its columns, or 1 that has them all (`--devices`)
    replicas: int = 1  # nets that train on parts of the same batch (`--replicas`)

    @property
    def ranks(self) -> int:
        """How many ranks there are in all."""
        return self.columns * self.replicas

    @property
    def options(self) -> str:
        """The options of the command line that ask for this layout."""
        return f"--devices {self.columns} --replicas {self.replicas}"

    def names(self, net: Net | NetConfig, column: int) -> tuple[str, ...]:
        """Return the `names` with which `build` makes the columns of the ranks in place `column`.

        Raises UserError when the columns of the net cannot be shared out.
        """
        if self.columns == 1:
            return ()
        if self.columns != (has := num_columns_of(net)):
            spread = f"train it with --devices {has}, or with --devices 1 and" if has > 1 else "leave that out, or use"
            raise UserError(
                f"--devices {self.columns} puts one column on each device, and this net has {has}: "
                f"{spread} --replicas {self.columns}, which splits the batch."
            )
        return (COLUMN_NAMES[column],)

    def rows(self, replica: int, batch_size: int) -> slice:
        """Return which images of a batch a replica sees; `StepKey.first_image` is its `start`. Some are empty if need be."""
        return slice(replica * batch_size // self.replicas, (replica + 1) * batch_size // self.replicas)

    def mesh(self, device_type: str) -> DeviceMesh:
        """Return the mesh ("replica", "column") of all ranks, each of which has to ask for it."""
        return init_device_mesh(device_type, (self.replicas, self.columns), mesh_dim_names=("replica", "column"))


class ColumnExchange:
    """The exchange of a rank that has one column with the ranks of `group` that have the others, in order of column."""

    def __init__(self, group: ProcessGroup) -> None:
        self.group = group

    def concatenate(self, own: Sequence[Tensor]) -> Tensor:
        """Return the maps or features (N, C, ...) of all columns side by side, in the memory format of this one's."""
        (x,) = own
        return _Concatenate.apply(x, self.group)

    def add(self, own_NK: Sequence[Tensor]) -> Tensor:
        """Return the sum of the shares of the logits."""
        (x_NK,) = own_NK
        return _Add.apply(x_NK, self.group)


class _Concatenate(torch.autograd.Function):
    """Gather maps going forward; going backward, give each rank the gradients of its own maps and add those received."""

    @staticmethod
    def forward(ctx, own: Tensor, group: ProcessGroup) -> Tensor:
        ctx.group, ctx.maps_last = group, _has_maps_last(own)
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


def _has_maps_last(x: Tensor) -> bool:
    return x.ndim == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)


def _as_it_lies(x: Tensor, maps_last: bool) -> Tensor:
    # Why: what is sent has to be contiguous; this permutation only renames dimensions of a channels_last tensor.
    return (x.permute(0, 2, 3, 1) if maps_last else x).contiguous()


def exchanged_shapes(config: NetConfig) -> dict[str, tuple[int, ...]]:
    """Return what one column gives the others for each image, by the layer that sees it: conv3 (128, 13, 13), ..."""
    found: dict[str, tuple[int, ...]] = {}
    side, own = sides(config), (COLOURS, config.image_side, config.image_side)
    for name in config.layer_names:
        if name in config.shared:
            found[name] = own
        layer = getattr(config, name)
        if name in CONV:
            after = side.get(f"pool{name[-1]}", side.get(name, own[1]))
            own = (layer.kernels or own[0], after, after)
        elif name != "fc8":
            own = (layer.units,)
    return {**found, "fc8": (config.fc8.units,)}


def bytes_per_image(config: NetConfig, itemsize: int = 4) -> dict[tuple[str, str], int]:
    """Return the bytes that a rank sends for each image of a step, by (layer, "forward" or "backward").

    With n columns, maps * side^2 * itemsize * (n - 1) each way, itemsize being 4 in fp32 and 2 in bf16; for the logits,
    which are never shorter than fp32, K * itemsize * 2 (n - 1) / n forward (each rank sends its share to be added and then
    its part of the sums) and nothing backward.
    """
    others = config.columns - 1
    counts: dict[tuple[str, str], int] = {}
    for layer, (maps, *side) in exchanged_shapes(config).items():
        if layer == "fc8":
            counts[layer, "forward"] = 2 * others * maps * max(4, itemsize) // config.columns
        else:
            counts[layer, "forward"] = counts[layer, "backward"] = others * maps * (side[0] ** 2 if side else 1) * itemsize
    return counts


def gather_columns(own: dict[str, Tensor], num_classes: int, group: ProcessGroup) -> dict[str, list[Tensor]]:
    """Return the tensors of every column, in order of column, by name; `own` has those of the one column that lives here.

    Every rank of the group has to call it, and gets the same. Only column a has a bias of fc8 (of `num_classes` values).
    """
    found: dict[str, list[Tensor]] = {}
    for key, mine in own.items():
        if key != "fc8.bias":
            parts = mine.new_empty(dist.get_world_size(group), *mine.shape)
            dist.all_gather(list(parts), mine.contiguous(), group=group)
            found[key] = list(parts)
    mine = next(iter(own.values()))
    bias = own["fc8.bias"].clone() if "fc8.bias" in own else mine.new_empty(num_classes)
    dist.broadcast(bias, group=group, group_src=0)
    return {**found, "fc8.bias": [bias]}
