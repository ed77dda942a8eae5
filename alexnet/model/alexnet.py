"""The network of Figure 2: two columns that meet at four places (section 3).

A `Column` is one GPU's half. An `AlexNet` runs the columns it is given, layer by layer, and an *exchange* joins their maps
before conv3, fc6 and fc7 and adds their shares of the logits. The same layers also run merged, as grouped convolutions.

Parameters are named `columns.<names>.<layer>.weight` and `.bias`: `columns.a.conv2.weight` (128, 48, 5, 5). `names` is a
letter for a column and all the letters for columns merged: `columns.ab.conv2.weight` (256, 48, 5, 5). fc8 is a product in
each column, its bias in column a. A plain state has the merged tensors as `conv2.weight`, whatever the layout.

Shapes: N images, C maps, H, W pixels, D features, K classes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from alexnet.model import layers
from alexnet.model.column_parallel import Exchange
from alexnet.model.layers import StepKey
from alexnet.model.net import Net, Of, check_state
from alexnet.model.presets import CONV, NetConfig, weight_shapes


class Column(nn.Module):
    """One GPU's half of the net, or several halves merged: `names` has the letter of each."""

    def __init__(self, config: NetConfig, names: str) -> None:
        super().__init__()
        self.config, self.names = config, names
        merged = len(names)
        for name, (out, seen, *_) in weight_shapes(config).items():
            layer, here = getattr(config, name), out * merged // config.columns
            groups = 1 if name in ("conv1", *config.shared) else merged  # all columns see the image
            if name == "fc8":
                self.fc8 = layers.LogitsLinear(seen * merged // config.columns, out, bias=config.column_names[0] in names)
            elif name in CONV:
                kernels = here, layer.side, layer.stride, layer.padding
                self.add_module(name, layers.EdgeConv2d(seen * groups, *kernels, groups=groups))
            else:
                self.add_module(name, layers.GroupedLinear(seen * groups, here, groups))

    def run_layer(self, name: str, x: Tensor, key: StepKey | None = None) -> Tensor:
        """Return what the layer `name`, with all that follows it, makes of its input."""
        config = self.config
        if name not in CONV:
            x = x.flatten(1)
        if config.learns(name):
            x = self.get_submodule(name)(x)
        if name in CONV:
            for step in getattr(config, name).then.split():
                x = self._follow(step, x)
        elif name != "fc8":
            x = self._follow("activation", x)
            if config.dropout:
                x = layers.classic_dropout(x, config.dropout, self._kept(name, x, key) if self.training else None)
        return x

    def _follow(self, step: str, x: Tensor) -> Tensor:
        config = self.config
        if step == "activation":
            return layers.activate(x, config.activation)
        if step == "norm":
            return layers.response_normalise(x, config.norm, groups=len(self.names))
        if step == "map_norm":
            return layers.normalise_within_maps(x, config.map_norm)
        return layers.max_pool(x, config.pooling.side, config.pooling.stride)

    def _kept(self, name: str, x_ND: Tensor, key: StepKey | None) -> Tensor:
        if key is None:
            raise ValueError("A net with dropout needs a StepKey to train: its masks are a function of it.")
        shape = len(x_ND), x_ND.shape[1] // len(self.names)
        masks = [layers.dropout_mask(key, name, column, shape, self.config.dropout, x_ND.device) for column in self.names]
        return torch.cat(masks, dim=1)


class AlexNet(Net):
    """The columns that live here: all, `names=("ab",)` merged, or `("b",)`, one rank's, with an `exchange` to the other."""

    def __init__(self, config: NetConfig, names: Sequence[str] = (), exchange: Exchange | None = None) -> None:
        super().__init__()
        self.config, self.exchange = config, exchange or Exchange()
        self.image_side, self.layer_names = config.image_side, config.layer_names
        self.has_dropout = config.dropout > 0
        self.columns = nn.ModuleDict({own: Column(config, own) for own in names or config.column_names})

    def _run(self, images_NCHW: Tensor, last: str, key: StepKey | None = None) -> Tensor:
        seen = images_NCHW if self.config.input_divisor == 1 else images_NCHW / self.config.input_divisor
        own = [seen] * len(self.columns)
        for name in self.layer_names:
            if name in self.config.shared:
                own = [self.exchange.concatenate(own)] * len(own)
            own = [column.run_layer(name, x, key) for column, x in zip(self.columns.values(), own, strict=True)]
            if name == last:
                break
        return self.exchange.add(own) if last == "fc8" else self.exchange.concatenate(own)

    def initialise(self, seed: int) -> None:
        """As in `Net`. Draws depend on the seed, the layer and the column, so any layout starts from the same weights."""
        for column in self.columns.values():
            for name in filter(self.config.learns, self.layer_names):
                layer, preset = column.get_submodule(name), getattr(self.config, name)
                weights = layer.weight.chunk(len(column.names), _split_dim(f"{name}.weight"))
                for letter, weight in zip(column.names, weights, strict=True):
                    layers.initialise(weight, layer.bias, preset.sd, preset.bias, seed, f"{name}/{letter}")

    def plain_state(self, of: Of = Tensor.detach) -> dict[str, Tensor]:
        """As in `Net`. Raises ValueError for a net that lacks a column when no exchange reaches it."""
        own = [{key: of(parameter) for key, parameter in column.named_parameters()} for column in self.columns.values()]
        if not self.exchange.group and (here := "".join(self.columns)) != self.config.column_names:
            raise ValueError(f"The net has column {here} of {self.config.column_names}; a plain state needs all.")
        columns = self.exchange.gather(own)
        # Why the keys of the first: it alone has the bias of fc8.
        return {key: torch.cat([c[key] for c in columns if key in c], dim=_split_dim(key)) for key in columns[0]}

    def load_plain_state(self, state: dict[str, Tensor], into: Of = Tensor.detach) -> None:
        """As in `Net`."""
        with torch.device("meta"):
            whole = Column(self.config, self.config.column_names)
        check_state(state, whole)
        with torch.no_grad():
            for column in self.columns.values():
                place = self.config.column_names.index(column.names[0])
                for key, own in column.named_parameters():
                    dim = _split_dim(key)
                    size = own.shape[dim]
                    into(own).copy_(state[key].narrow(dim, place * (size // len(column.names)), size))


def _split_dim(key: str) -> int:
    """Say along which dimension columns share a tensor: their outputs, except in fc8, to which all add."""
    return 1 if key == "fc8.weight" else 0
