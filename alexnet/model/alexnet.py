"""The network of Figure 2: two columns that meet at four places (section 3).

A `Column` is one GPU's half. An `AlexNet` runs the columns it is given, layer by layer, and an *exchange* joins their maps
before conv3, fc6 and fc7 and adds their shares of the logits. The exchange is an object from outside: joining tensors of one
device here, something else where the other column lives elsewhere. The same layers also run merged, as grouped convolutions.

Parameters are named `columns.<names>.<layer>.weight` and `.bias`: `columns.a.conv2.weight` (128, 48, 5, 5). `names` is a
letter for a column and all the letters for columns merged: `columns.ab.conv2.weight` (256, 48, 5, 5). fc8 is a product in
each column, its bias in column a. A plain state has the merged tensors as `conv2.weight`, whatever the layout.

Shapes: N images, C maps, H, W pixels, D features, K classes.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed import ProcessGroup

from alexnet.model import layers
from alexnet.model.column_parallel import gather_columns
from alexnet.model.layers import StepKey
from alexnet.model.net import Net, Of, check_state
from alexnet.model.presets import COLOURS, CONV, NetConfig, sides


class Exchange(Protocol):
    """What columns tell each other. Each call gets the tensors of the columns that live here, in order."""

    def concatenate(self, own: Sequence[Tensor]) -> Tensor:
        """Return the maps or features (N, C, ...) of every column of the net, in order of column."""

    def add(self, own_NK: Sequence[Tensor]) -> Tensor:
        """Return the sum of every column's share of the logits."""


class LocalExchange:
    """The exchange of columns that all live here."""

    def concatenate(self, own: Sequence[Tensor]) -> Tensor:
        """Return the tensors side by side along their second dimension."""
        return torch.cat(list(own), dim=1) if len(own) > 1 else own[0]

    def add(self, own_NK: Sequence[Tensor]) -> Tensor:
        """Return the sum of the shares, added in order."""
        total = own_NK[0]
        for share in own_NK[1:]:
            total = total + share
        return total


class Column(nn.Module):
    """One GPU's half of the net, or several halves merged: `names` has the letter of each."""

    def __init__(self, config: NetConfig, names: str) -> None:
        super().__init__()
        self.config, self.names = config, names
        merged = len(names)
        maps, groups = COLOURS, 1  # what the next layer sees, and in how many parts; all columns see the image
        side = list(sides(config).values())[-1]  # of the maps that the first fully-connected layer sees
        for name in config.layer_names:
            if name in config.shared:
                maps, groups = maps // merged * config.columns, 1
            if not config.learns(name):
                continue
            layer = getattr(config, name)
            if name == "fc8":
                self.fc8 = layers.LogitsLinear(maps * side**2, layer.units, bias=config.column_names[0] in names)
            elif name in CONV:
                out = layer.kernels * merged
                conv = layers.EdgeConv2d(maps, out, layer.side, layer.stride, layer.padding, groups=groups)
                self.add_module(name, conv)
                maps, groups = out, merged
            else:
                out = layer.units * merged
                self.add_module(name, layers.GroupedLinear(maps * side**2, out, groups))
                maps, groups, side = out, merged, 1

    def run_layer(self, name: str, x: Tensor, key: StepKey | None = None) -> Tensor:
        """Return what the layer `name`, with all that follows it, makes of its input."""
        if name not in CONV:
            x = x.flatten(1)
        if self.config.learns(name):
            x = self.get_submodule(name)(x)
        if name in CONV:
            for step in getattr(self.config, name).then.split():
                x = self._follow(step, x)
        elif name != "fc8":
            x = self._drop(name, self._follow("activation", x), key)
        return x

    def _follow(self, step: str, x: Tensor) -> Tensor:
        config = self.config
        if step == "activation":
            return F.relu(x, inplace=True) if config.activation == "relu" else layers.tanh_in_fp32(x)
        if step == "norm":
            return layers.response_normalise(x, config.norm, groups=len(self.names))
        if step == "map_norm":
            return layers.normalise_within_maps(x, config.map_norm)
        return layers.max_pool(x, config.pooling.side, config.pooling.stride)

    def _drop(self, name: str, x_ND: Tensor, key: StepKey | None) -> Tensor:
        if not self.config.dropout:
            return x_ND
        if not self.training:
            return layers.classic_dropout(x_ND, self.config.dropout, None)
        if key is None:
            raise ValueError(
                "A net with dropout needs a StepKey(seed, epoch, step) to train: its masks are a function of it."
            )
        shape = len(x_ND), x_ND.shape[1] // len(self.names)
        masks = [layers.dropout_mask(key, name, column, shape, self.config.dropout, x_ND.device) for column in self.names]
        return layers.classic_dropout(x_ND, self.config.dropout, torch.cat(masks, dim=1) if len(masks) > 1 else masks[0])


class AlexNet(Net):
    """The columns of a net that live here; `names` has the letters of each, all columns of the config by default.

    `names=("ab",)` merges two columns into grouped convolutions; `names=("b",)` is one rank's share, with an `exchange` that
    reaches the other.
    """

    def __init__(self, config: NetConfig, names: Sequence[str] = (), exchange: Exchange | None = None) -> None:
        super().__init__()
        self.config = config
        self.image_side, self.layer_names = config.image_side, config.layer_names
        self.num_columns, self.has_dropout = config.columns, config.dropout > 0
        self.exchange = exchange or LocalExchange()
        self.columns = nn.ModuleDict({own: Column(config, own) for own in names or config.column_names})

    def forward(self, images_NCHW: Tensor, key: StepKey | None = None) -> Tensor:
        """As in `Net`."""
        return self.exchange.add(self._run(images_NCHW, "fc8", key))

    def features(self, images_NCHW: Tensor, layer: str) -> Tensor:
        """As in `Net`; columns are side by side along the second dimension."""
        self._need_layer(layer)
        return self.exchange.concatenate(self._run(images_NCHW, layer))

    def _run(self, images_NCHW: Tensor, last: str, key: StepKey | None = None) -> list[Tensor]:
        own = [images_NCHW] * len(self.columns)
        for name in self.layer_names:
            if name in self.config.shared:
                own = [self.exchange.concatenate(own)] * len(own)
            own = [column.run_layer(name, x, key) for column, x in zip(self.columns.values(), own, strict=True)]
            if name == last:
                break
        return own

    def initialise(self, seed: int) -> None:
        """As in `Net`. Draws depend on the seed, the layer and the column, so any layout starts from the same weights."""
        for column in self.columns.values():
            for name in filter(self.config.learns, self.layer_names):
                layer, preset = column.get_submodule(name), getattr(self.config, name)
                weights = layer.weight.chunk(len(column.names), _split_dim(f"{name}.weight"))
                for letter, weight in zip(column.names, weights, strict=True):
                    layers.initialise(weight, layer.bias, preset.sd, preset.bias, seed, f"{name}/{letter}")

    def plain_state(self, of: Of = Tensor.detach, group: ProcessGroup | None = None) -> dict[str, Tensor]:
        """As in `Net`. Raises ValueError for a net that lacks a column when no group has it."""
        parts: dict[str, list[Tensor]] = {}
        for column in self.columns.values():
            for key, parameter in column.named_parameters():
                parts.setdefault(key, []).append(of(parameter))
        if (here := "".join(self.columns)) != self.config.column_names:
            if group is None:
                raise ValueError(
                    f"The net has column {here} of {self.config.column_names}: a plain state needs all of them."
                )
            parts = gather_columns({key: part for key, (part,) in parts.items()}, self.config.fc8.units, group)
        return {key: torch.cat(values, dim=_split_dim(key)) for key, values in parts.items()}

    def load_plain_state(self, state: dict[str, Tensor], into: Of = Tensor.detach) -> None:
        """As in `Net`."""
        shapes: dict[str, tuple[int, ...]] = {}
        copies: list[tuple[str, nn.Parameter, int, int]] = []
        for column in self.columns.values():
            for key, own in column.named_parameters():
                dim, shape = _split_dim(key), list(own.shape)
                share = shape[dim] // len(column.names)
                if key != "fc8.bias":
                    shape[dim] = share * self.num_columns
                shapes[key] = tuple(shape)
                copies.append((key, own, dim, self.config.column_names.index(column.names[0]) * share))
        check_state(state, shapes, ignored="fc8.bias")
        with torch.no_grad():
            for key, own, dim, first in copies:
                into(own).copy_(state[key].narrow(dim, first, own.shape[dim]))


def _split_dim(key: str) -> int:
    """Say along which dimension columns share a tensor: their outputs, except in fc8, to which all add."""
    return 1 if key == "fc8.weight" else 0
