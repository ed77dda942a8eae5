"""The network of Figure 2: two columns that meet at four places (section 3).

A `Column` is one GPU's half. An `AlexNet` runs the columns it is given, layer by layer, and an *exchange* joins their maps
before conv3, fc6 and fc7 and adds their shares of the logits. The exchange is an object from outside: joining tensors of one
device here, something else where the other column lives elsewhere. The same layers also run merged, as grouped convolutions.

Parameters are named `columns.<names>.<layer>.weight` and `.bias`: `columns.a.conv2.weight` (128, 48, 5, 5). `names` is a
letter for a column and all the letters for columns merged: `columns.ab.conv2.weight` (256, 48, 5, 5). fc8 is a product in
each column, its bias in column a. A *plain* state has the merged tensors as `conv2.weight`, whatever the layout.

Shapes: N images, C maps, H, W pixels, D features, K classes.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexnet.model import layers
from alexnet.model.layers import Moment, num_windows
from alexnet.model.presets import CONV, ConvLayer, NetConfig

COLOURS = 3


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


def sides(config: NetConfig) -> dict[str, int]:
    """Return the side of the maps after every convolution and pooling: conv1 55, pool1 27, ... pool5 6."""
    side, found = config.image_side, {}
    for name in CONV:
        layer: ConvLayer = getattr(config, name)
        if layer.kernels:
            side = found[name] = num_windows(side, layer.side, layer.stride, layer.padding)
        if "pool" in layer.then.split():
            side = found[f"pool{name[-1]}"] = num_windows(side, config.pooling.side, config.pooling.stride)
    return found


def count_neurons(config: NetConfig) -> dict[str, int]:
    """Return the neurons of every layer with weights, all columns together, as in the caption of Figure 2."""
    side = sides(config)
    conv = {name: getattr(config, name).kernels * config.columns * side[name] ** 2 for name in CONV if name in side}
    full = {name: getattr(config, name).units * config.columns for name in ("fc6", "fc7") if config.learns(name)}
    return {**conv, **full, "fc8": config.fc8.units}


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
                self.fc8 = nn.Linear(maps * side**2, layer.units, bias=config.column_names[0] in names)
            elif name in CONV:
                out = layer.kernels * merged
                conv = layers.EdgeConv2d(maps, out, layer.side, layer.stride, layer.padding, groups=groups)
                self.add_module(name, conv)
                maps, groups = out, merged
            else:
                out = layer.units * merged
                self.add_module(name, layers.GroupedLinear(maps * side**2, out, groups))
                maps, groups, side = out, merged, 1

    def run_layer(self, name: str, x: Tensor, at: Moment | None = None) -> Tensor:
        """Return what the layer `name`, with all that follows it, makes of its input."""
        if name not in CONV:
            x = x.flatten(1)
        if self.config.learns(name):
            x = self.get_submodule(name)(x)
        if name in CONV:
            for step in getattr(self.config, name).then.split():
                x = self._follow(step, x)
        elif name != "fc8":
            x = self._drop(name, self._follow("activation", x), at)
        return x

    def _follow(self, step: str, x: Tensor) -> Tensor:
        config = self.config
        if step == "activation":
            return F.relu(x, inplace=True) if config.activation == "relu" else layers.wide_tanh(x)
        if step == "norm":
            return layers.response_normalise(x, config.norm, groups=len(self.names))
        if step == "map_norm":
            return layers.normalise_within_maps(x, config.map_norm)
        return layers.max_pool(x, config.pooling.side, config.pooling.stride)

    def _drop(self, name: str, x_ND: Tensor, at: Moment | None) -> Tensor:
        if not self.config.dropout:
            return x_ND
        if not self.training:
            return layers.classic_dropout(x_ND, self.config.dropout, None)
        if at is None:
            raise ValueError("A net with dropout trains at a Moment(seed, epoch, step), of which its masks are a function.")
        shape = len(x_ND), x_ND.shape[1] // len(self.names)
        masks = [layers.dropout_mask(at, name, column, shape, self.config.dropout, x_ND.device) for column in self.names]
        return layers.classic_dropout(x_ND, self.config.dropout, torch.cat(masks, dim=1) if len(masks) > 1 else masks[0])


class AlexNet(nn.Module):
    """The columns of a net that live here; `names` has the letters of each, all columns of the config by default.

    `names=("ab",)` merges two columns into grouped convolutions; `names=("b",)` is one rank's share, with an `exchange` that
    reaches the other. Weights are uninitialised: see `build_alexnet`.
    """

    def __init__(self, config: NetConfig, names: Sequence[str] = (), exchange: Exchange | None = None) -> None:
        super().__init__()
        self.config = config
        self.exchange = exchange or LocalExchange()
        self.columns = nn.ModuleDict({own: Column(config, own) for own in names or config.column_names})

    def forward(self, images_NCHW: Tensor, at: Moment | None = None) -> Tensor:
        """Return the (N, K) logits of images of raw 0-255 pixels minus the mean; `at` is needed to train with dropout."""
        return self.exchange.add(self._run(images_NCHW, "fc8", at))

    def features(self, images_NCHW: Tensor, layer: str) -> Tensor:
        """Return every column's outputs of `layer` with all that follows it, side by side."""
        if layer not in self.config.layer_names[:-1]:
            raise ValueError(f"`layer` (={layer!r}) must be one of {', '.join(self.config.layer_names[:-1])}.")
        return self.exchange.concatenate(self._run(images_NCHW, layer))

    def _run(self, images_NCHW: Tensor, last: str, at: Moment | None = None) -> list[Tensor]:
        own = [images_NCHW] * len(self.columns)
        for name in self.config.layer_names:
            if name in self.config.shared:
                own = [self.exchange.concatenate(own)] * len(own)
            own = [column.run_layer(name, x, at) for column, x in zip(self.columns.values(), own, strict=True)]
            if name == last:
                break
        return own


def build_alexnet(
    config: NetConfig, seed: int, names: Sequence[str] = (), exchange: Exchange | None = None, grouped: bool = False
) -> AlexNet:
    """Build a net with its initial weights for `seed`; `grouped` merges the columns.

    Draws depend on the seed, the layer and the column, so any layout starts from the same weights.
    """
    with torch.device("meta"):
        net = AlexNet(config, (config.column_names,) if grouped else names, exchange)
    net.to_empty(device="cpu")
    for column in net.columns.values():
        for name in filter(config.learns, config.layer_names):
            layer, preset = column.get_submodule(name), getattr(config, name)
            weights = layer.weight.chunk(len(column.names), _split_dim(f"{name}.weight"))
            for letter, weight in zip(column.names, weights, strict=True):
                layers.initialise(weight, layer.bias, preset.sd, preset.bias, seed, f"{name}/{letter}")
    # Why: channels_last makes pooling four times faster and the convolutions no slower.
    return net.to(memory_format=torch.channels_last)


def plain_state(net: AlexNet, of: Callable[[nn.Parameter], Tensor] = Tensor.detach) -> dict[str, Tensor]:
    """Return the weights, or what `of` gives for each of them, under single-stream names.

    Raises ValueError for a net that lacks a column.
    """
    if (here := "".join(net.columns)) != net.config.column_names:
        raise ValueError(f"The net has column {here} of {net.config.column_names}: a plain state needs all of them.")
    parts: dict[str, list[Tensor]] = {}
    for column in net.columns.values():
        for key, parameter in column.named_parameters():
            parts.setdefault(key, []).append(of(parameter))
    return {key: torch.cat(values, dim=_split_dim(key)) for key, values in parts.items()}


@torch.no_grad()
def load_plain_state(net: AlexNet, state: dict[str, Tensor], into: Callable[[nn.Parameter], Tensor] = Tensor.detach) -> None:
    """Copy a plain state into the weights of a net, or what `into` gives for each; any layout takes its own columns' part.

    Raises ValueError, before anything is copied, if a tensor is missing, is left over or has another shape.
    """
    copies: list[tuple[Tensor, Tensor]] = []
    for column in net.columns.values():
        for key, own in column.named_parameters():
            if key not in state:
                raise ValueError(f"The state has no {key!r}; it has {', '.join(state)}.")
            dim, shape = _split_dim(key), list(own.shape)
            if key != "fc8.bias":
                shape[dim] = shape[dim] // len(column.names) * net.config.columns
            if list(state[key].shape) != shape:
                raise ValueError(f"{key} has shape {tuple(state[key].shape)}, the net has {tuple(shape)}.")
            first = net.config.column_names.index(column.names[0]) * (own.shape[dim] // len(column.names))
            copies.append((into(own), state[key].narrow(dim, first, own.shape[dim])))
    if unknown := set(state) - {key for c in net.columns.values() for key, _ in c.named_parameters()} - {"fc8.bias"}:
        raise ValueError(f"The state has {sorted(unknown)[0]!r}, which the net lacks.")
    for own, given in copies:
        own.copy_(given)


def _split_dim(key: str) -> int:
    """Say along which dimension columns share a tensor: their outputs, except in fc8, to which all add."""
    return 1 if key == "fc8.weight" else 0
