"""What nets are made of, as configs: two presets, every ablation, and the arithmetic that follows from them.

`paper()` is the text taken literally. `source2012()` is config #145 of the 2012 source, the net behind Tables 1 and 2. An
ablation takes a config and returns a config, so they compose: `with_width(without_layer(paper(), "conv4"), 0.5)`.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from alexnet.config import Activation, CifarNet, ColumnNet, Net, UserError, nearest

STEPS = ("activation", "norm", "map_norm", "pool")
CONV = ("conv1", "conv2", "conv3", "conv4", "conv5", "conv6")
FULL = ("fc6", "fc7", "fc8")
LAYERS = (*CONV, *FULL)
REMOVABLE = ("conv2", "conv3", "conv4", "conv5", "fc6", "fc7")
COLOURS = 3  # maps of an image
COLUMN_NAMES = "abcdefgh"  # Source 2012: the layers of the two GPUs end in a and b


@dataclass(frozen=True)
class ConvLayer:
    """A convolutional layer of one column and what follows it."""

    kernels: int  # in one column; 0: no convolution, only what follows
    side: int  # of a kernel
    stride: int = 1
    padding: int = 0  # zeros around the image; the paper prints none
    sd: float = 0.01  # of the initial weights
    bias: float = 0.0  # initial
    then: str = "activation"  # words of STEPS, in order


@dataclass(frozen=True)
class FullLayer:
    """A fully-connected layer of one column."""

    # Source 2012: fc8 stands on one GPU and sees the units of both (layers-145.cfg:294); the sum of products is the same.
    units: int  # in one column; 0: the layer is absent. For fc8 the classes, to which every column adds its product
    sd: float = 0.01
    bias: float = 1.0


@dataclass(frozen=True)
class ResponseNorm:
    """Response normalisation across kernel maps (paper 3.3; its values are those of layer-params-145.cfg:137-155)."""

    size: int = 5  # n: maps in the sum
    k: float = 2.0  # Source 2012: `minDiv`
    alpha: float = 1e-4
    beta: float = 0.75
    alpha_per_window: bool = False  # Source 2012: alpha is divided by n (layer.py:1183)


@dataclass(frozen=True)
class MapNorm:
    """Response normalisation over the neighbours in the same map; only the 2012 source has it (layers-145.cfg:107)."""

    size: int = 5  # side of the window
    k: float = 1.0
    alpha: float = 1e-3  # Source 2012: divided by size squared (layer.py:1183)
    beta: float = 0.75


@dataclass(frozen=True)
class Pooling:
    """Max pooling; windows overlap where side > stride (paper 3.4)."""

    side: int = 3  # z
    stride: int = 2  # s


@dataclass(frozen=True)
class NetConfig:
    """The network of Figure 2; counts are of one column. The defaults are the preset `paper`."""

    columns: int = 2
    image_side: int = 224
    input_divisor: float = 1.0  # of the pixels, which are 0-255 minus the mean; nets of today divide by some 60
    conv1: ConvLayer = ConvLayer(48, 11, stride=4, then="activation norm pool")
    conv2: ConvLayer = ConvLayer(128, 5, padding=2, bias=1.0, then="activation norm pool")
    conv3: ConvLayer = ConvLayer(192, 3, padding=1)
    conv4: ConvLayer = ConvLayer(192, 3, padding=1, bias=1.0)
    conv5: ConvLayer = ConvLayer(128, 3, padding=1, bias=1.0, then="activation pool")
    conv6: ConvLayer = ConvLayer(0, 3, then="")  # only in the nets of section 6 for the large sets
    fc6: FullLayer = FullLayer(2048)
    fc7: FullLayer = FullLayer(2048)
    fc8: FullLayer = FullLayer(1000, bias=0.0)
    exchange: str = "conv3 fc6 fc7"  # the layers that see the maps of every column; fc8 always adds over columns
    norm: ResponseNorm = ResponseNorm()
    map_norm: MapNorm = MapNorm()
    pooling: Pooling = Pooling()
    activation: Activation = "relu"
    dropout: float = 0.5  # probability that an output of fc6 or fc7 is zero in training

    @property
    def layer_names(self) -> tuple[str, ...]:
        """The layers present, in order; one without kernels is present while anything follows it."""
        return tuple(n for n in LAYERS if self.learns(n) or (n in CONV and getattr(self, n).then))

    def learns(self, name: str) -> bool:
        """Say whether the layer `name` has weights."""
        layer = getattr(self, name)
        return (layer.kernels if name in CONV else layer.units) > 0

    @property
    def num_classes(self) -> int:
        """The number of logits."""
        return self.fc8.units

    @property
    def column_names(self) -> str:
        """One letter for each column."""
        return COLUMN_NAMES[: self.columns]

    @property
    def shared(self) -> tuple[str, ...]:
        """The layers before which the columns exchange their maps."""
        return tuple(self.exchange.split())


def paper() -> NetConfig:
    """Return the net as the paper prints it; what it does not print, paddings and ceilings, is from layers-145.cfg."""
    return NetConfig()


def source2012() -> NetConfig:
    """Return config #145 of the 2012 source to the letter (layers-145.cfg)."""
    return replace(
        net := paper(),
        # Source 2012: layer 1 normalises signed values, and its neuron comes after the pooling (layers-145.cfg:35-54).
        conv1=replace(net.conv1, then="norm pool activation"),
        conv2=replace(net.conv2, then="activation norm map_norm pool"),
        conv3=replace(net.conv3, sd=0.03),
        conv4=replace(net.conv4, sd=0.03),
        conv5=replace(net.conv5, sd=0.03, then="pool activation"),
        norm=ResponseNorm(alpha_per_window=True),
    )


def one_column(config: NetConfig) -> NetConfig:
    """Return the net for one GPU: half the kernels, except in conv5; fc6 and fc7 stay (#145-half, paper 3.2)."""
    kept = ("conv5", "fc6", "fc7")
    return replace(_changed(config, kept, lambda layer: _resized(layer, config.columns)), columns=1)


def without_exchange(config: NetConfig) -> NetConfig:
    """Return columns that meet in the logits only: 160 kernels in conv2, 4096 units in fc6 (layers-150.cfg:65-68, 238)."""
    if config.columns < 2:
        raise UserError(f"`columns` (={config.columns}) must be at least 2.")
    return replace(config, exchange="", conv2=_resized(config.conv2, 1.25), fc6=_resized(config.fc6, 2))


def without_steps(config: NetConfig, *steps: str, layers: tuple[str, ...] = CONV) -> NetConfig:
    """Return the net without some of the steps that follow its convolutions."""
    return _changed(config, layers, lambda layer: _then(layer, (s for s in layer.then.split() if s not in steps)))


def without_overlap(config: NetConfig) -> NetConfig:
    """Return the net with 2x2 pooling and a final 6x6 as before: conv2 loses a pixel of padding, conv5 all (#147)."""
    conv2, conv5 = replace(config.conv2, padding=1), replace(config.conv5, padding=0)
    return replace(config, conv2=conv2, conv5=conv5, pooling=Pooling(2, 2))


def without_layer(config: NetConfig, name: str) -> NetConfig:
    """Remove a layer of `REMOVABLE` (paper 7); its pooling stays, for later maps' sides, and its exchange moves on."""
    layer, shared = getattr(config, name), set(config.shared)
    none = {"units": 0} if name in FULL else {"kernels": 0, "then": "pool" if "pool" in layer.then else ""}
    if name in shared:
        heir = next(later for later in LAYERS[LAYERS.index(name) + 1 :] if config.learns(later))
        shared = (shared | {heir}) - {name, "fc8"}
    return replace(config, **{name: replace(layer, **none)}, exchange=_in_order(shared))


def with_sixth_layer(config: NetConfig) -> NetConfig:
    """Return the net with a sixth layer over pool5 that sees every column (#146; paper 6). UserError without conv5."""
    # Source 2012: as many kernels as conv5, padding 1, sd 0.03 and bias 1, which are conv5's (layers-146-2009.cfg:258-269).
    if not config.learns("conv5"):
        raise UserError("There is no conv5 that conv6 could be like: write conv6 before no-conv5.")
    conv6 = replace(config.conv5, padding=1, then="activation")
    return replace(config, conv6=conv6, exchange=_in_order({"conv6", *config.shared}))


def with_classes(config: NetConfig, num_classes: int) -> NetConfig:
    """Return the net with `num_classes` outputs."""
    return replace(config, fc8=replace(config.fc8, units=num_classes))


def with_width(config: NetConfig, width: float) -> NetConfig:
    """Multiply the kernels and units of every layer but the last by `width`."""
    config = _changed(config, LAYERS[:-1], lambda layer: _resized(layer, width))
    # Why: the fan-in shrinks, and activities shall start at the same scale.
    return _changed(config, LAYERS[1:], lambda layer: replace(layer, sd=layer.sd / math.sqrt(width)))


def _changed(config: NetConfig, names: Iterable[str], change: Callable[..., Any]) -> NetConfig:
    return replace(config, **{name: change(getattr(config, name)) for name in names})


def _resized(layer: Any, by: float) -> Any:
    count = "kernels" if isinstance(layer, ConvLayer) else "units"
    old = getattr(layer, count)
    return replace(layer, **{count: max(1, round(old * by)) if old else 0})


def _then(layer: ConvLayer, steps: Iterable[str]) -> ConvLayer:
    return replace(layer, then=" ".join(steps))


def _in_order(names: set[str]) -> str:
    return " ".join(name for name in LAYERS if name in names)


ABLATIONS: dict[str, Callable[[NetConfig], NetConfig]] = {
    "one-column": one_column,
    "no-exchange": without_exchange,
    "no-norm": lambda config: without_steps(config, "norm", "map_norm"),  # all three of a column, as in #148
    "no-norm2": lambda config: without_steps(config, "norm", "map_norm", layers=("conv2",)),  # #167
    "no-overlap": without_overlap,
    "no-dropout": partial(replace, dropout=0.0),
    "tanh": partial(replace, activation="tanh"),
    "conv6": with_sixth_layer,
    **{f"no-{name}": partial(without_layer, name=name) for name in REMOVABLE},
    # These four, each alone, turn one detail of source2012 into the paper's; together they turn one preset into the other.
    "alpha-literal": lambda config: replace(config, norm=replace(config.norm, alpha_per_window=False)),
    "norm1-after-relu": lambda net: replace(net, conv1=_then(net.conv1, sorted(net.conv1.then.split(), key=STEPS.index))),
    "no-map-norm": lambda config: without_steps(config, "map_norm"),
    "sd-0.01": partial(_changed, names=CONV[2:], change=partial(replace, sd=0.01)),
    # What decides whether a training leaves its first plateau, and what a normalisation has to do.
    # Biases are changed in the layers where they begin at 1.
    "bias-0.1": partial(_changed, names=LAYERS, change=lambda layer: replace(layer, bias=layer.bias and 0.1)),
    "bias-0": partial(_changed, names=LAYERS, change=partial(replace, bias=0.0)),
    "inputs-over-60": partial(replace, input_divisor=60.0),
}
PRESETS: dict[str, Callable[[], NetConfig]] = {"paper": paper, "source2012": source2012}


def layers_of(net: ColumnNet) -> NetConfig:
    """Return the layers that `net` names; UserError for an ablation that is unknown or changes nothing of its preset."""
    config = PRESETS[net.preset]()
    for name in net.ablation.split():
        if name not in ABLATIONS:
            raise UserError(f"There is no ablation {name!r}{nearest(name, ABLATIONS)}. Known: {', '.join(ABLATIONS)}.")
        before, config = config, ABLATIONS[name](config)
        if config == before:
            raise UserError(f"The ablation {name!r} changes nothing of {net.preset} here: leave it out of {net.ablation!r}.")
    return with_classes(with_width(config, net.width), net.num_classes)


def image_side_of(net: Net) -> int:
    """Return the side in pixels of the images that `net` sees."""
    return net.image_side if isinstance(net, CifarNet) else layers_of(net).image_side


def num_columns_of(net: Net) -> int:
    """Return how many columns `net` has, each of which could have a device of its own."""
    return layers_of(net).columns if isinstance(net, ColumnNet) else 1


def label(net: Net) -> str:
    """Return a readable name for folders, such as `19pct-tanh` or `source2012-half-no-norm`; classes are not in it."""
    if isinstance(net, ColumnNet):
        widths = {1.0: "full", 0.5: "half", 0.125: "eighth"}
        return "-".join([net.preset, widths.get(net.width, f"width-{net.width:g}"), *net.ablation.split()])
    usual = CifarNet()
    said = {
        {True: "norms", False: "no-norms"}.get(net.norms): net.norms is not None,
        f"sd-{net.first_sd:g}": net.first_sd != usual.first_sd,
        f"{net.image_side}px": net.image_side != usual.image_side,
        f"width-{net.width:g}": net.width != usual.width,
        f"alpha-{net.norm_alpha}-beta-{net.norm_beta}": (net.norm_alpha, net.norm_beta) != (None, None),
        f"pooling-{net.pooling}": net.pooling is not None,
    }
    return "-".join([net.topology, net.activation, *(word for word, is_said in said.items() if is_said)])


def num_windows(side: int, window: int, stride: int, padding: int = 0) -> int:
    """Return how many windows cover `side` pixels, the last one over the edge if need be (2012 layer.py:1004, 1164)."""
    return 1 + math.ceil((2 * padding + side - window) / stride)


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


def outputs(config: NetConfig) -> dict[str, tuple[int, ...]]:
    """Return what one column's layers give, with all that follows them: conv1 (48, 27, 27), ... fc7 (2048,), fc8 (1000,)."""
    side, found = sides(config), {}
    maps, seen = COLOURS, config.image_side
    for name in config.layer_names:
        layer = getattr(config, name)
        if name in FULL:
            found[name] = (layer.units,)
        else:
            maps, seen = layer.kernels or maps, side.get(f"pool{name[-1]}", side.get(name, seen))
            found[name] = (maps, seen, seen)
    return found


def weight_shapes(config: NetConfig) -> dict[str, tuple[int, ...]]:
    """Return the shape of every layer's weights, all columns merged: conv2 (256, 48, 5, 5), fc6 (4096, 9216).

    After the outputs comes what each of them sees: maps of one column, or of all after an exchange and in fc8.
    """
    shape, found = (COLOURS,), {}
    for name, following in outputs(config).items():
        layer = getattr(config, name)
        maps = shape[0] * (config.columns if name == "fc8" or name in config.shared else 1)
        if name in FULL:
            found[name] = (layer.units * (1 if name == "fc8" else config.columns), maps * math.prod(shape[1:]))
        elif layer.kernels:
            found[name] = (layer.kernels * config.columns, maps, layer.side, layer.side)
        shape = following
    return found


def count_neurons(config: NetConfig) -> dict[str, int]:
    """Return the neurons of every layer with weights, all columns together, as in the caption of Figure 2."""
    side = sides(config)
    return {name: shape[0] * side.get(name, 1) ** 2 for name, shape in weight_shapes(config).items()}
