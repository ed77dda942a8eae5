"""The numbers of the paper that follow from its net by arithmetic: sizes, neurons, parameters and views.

`computed` gives them for a claim, from the preset `paper`; they have neither a scale nor an interval.
"""

import math
from collections.abc import Callable

import torch

from alexnet.paper import Value
from alexnet.claims.verdicts import Word
from alexnet.model import presets
from alexnet.model.alexnet import COLOURS, AlexNet, count_neurons, sides
from alexnet.model.presets import CONV, NetConfig
from alexnet.preprocessing.views import PAPER as PAPER_VIEWS


def count_parameters(config: NetConfig) -> dict[str, int]:
    """Return the learned values of every layer, biases included, all columns together."""
    with torch.device("meta"):
        net = AlexNet(config)
    counts = dict.fromkeys(filter(config.learns, config.layer_names), 0)
    for name, parameter in net.named_parameters():
        counts[name.split(".")[-2]] += parameter.numel()
    return counts


def operations(config: NetConfig) -> dict[str, int]:
    """Return the additions and multiplications of every layer for one image of a training step, all columns together.

    Products with weights only: forward, to the weights' gradient, and to the input's, which conv1 has none of.
    """
    side = sides(config)
    with torch.device("meta"):
        net = AlexNet(config)
    counts = dict.fromkeys(filter(config.learns, config.layer_names), 0)
    for name, weight in net.named_parameters():
        layer = name.split(".")[-2]
        if weight.ndim > 1:
            places = side[layer] ** 2 if layer in CONV else 1
            counts[layer] += 2 * weight.numel() * places * (2 if layer == "conv1" else 3)
    return counts


def maps_seen(config: NetConfig) -> dict[str, int]:
    """Return how many maps or features each kernel or unit of a layer sees."""
    with torch.device("meta"):
        (column,) = AlexNet(config, (config.column_names,)).columns.values()
    return {name: layer.weight.shape[1] for name, layer in column.named_children()}


def printed_layers(config: NetConfig) -> dict[tuple[str, str], float]:
    """Return what section 3.5 lists of every layer, all columns together, by (name, layer) of the claim's values."""
    found: dict[tuple[str, str], float] = {("side of the input", ""): config.image_side}
    for name in filter(config.learns, config.layer_names):
        layer = getattr(config, name)
        if name not in CONV:
            found["units", name] = layer.units * (1 if name == "fc8" else config.columns)
            continue
        found["kernels", name] = layer.kernels * config.columns
        found["side of a kernel", name] = layer.side
        found["maps of a kernel", name] = maps_seen(config)[name]
        found["stride", name] = layer.stride
    return found


def _sizes() -> dict[tuple[str, str], float]:
    neurons, parameters = count_neurons(presets.paper()), count_parameters(presets.paper())
    return {("parameters", ""): sum(parameters.values()), ("neurons", ""): sum(neurons.values())}


def _layers() -> dict[tuple[str, str], float]:
    config = presets.paper()
    names = [name for name in config.layer_names if config.learns(name)]
    conv = sum(name in CONV for name in names)
    counts = {"learned layers": len(names), "convolutional layers": conv, "fully-connected layers": len(names) - conv}
    return {(name, ""): count for name, count in {**counts, "classes": config.fc8.units}.items()}


def _parameters() -> dict[tuple[str, str], float]:
    counts = count_parameters(presets.paper())
    one = count_parameters(presets.one_column(presets.paper()))
    sums = {"all": sum(counts.values()), "all, one-GPU net": sum(one.values())}
    return {("parameters", name): count for name, count in {**counts, **sums}.items()}


def _neurons() -> dict[tuple[str, str], float]:
    config = presets.paper()
    neurons = {("neurons", name): float(count) for name, count in count_neurons(config).items()}
    return {("dimensions", "input"): COLOURS * config.image_side**2, **neurons}


def largest_share() -> float:
    """Return the largest share of a convolutional layer in the net's parameters, in percent."""
    counts = count_parameters(presets.paper())
    return 100 * max(counts[name] for name in CONV if name in counts) / sum(counts.values())


# Claim -> its numbers that are arithmetic, by (name, subject) of its values.
COMPUTED: dict[str, Callable[[], dict[tuple[str, str], float]]] = {
    "abstract-size": _sizes,
    "s1-depth": lambda: {("largest share of a convolutional layer", ""): largest_share()},
    "s3.2-one-gpu-net": lambda: printed_layers(presets.one_column(presets.paper())),
    "s3.4-pooling": lambda: {
        ("side of a window", ""): presets.paper().pooling.side,
        ("stride", ""): presets.paper().pooling.stride,
    },
    "s3.5-layers": _layers,
    "s3.5-architecture": lambda: printed_layers(presets.paper()),
    "s3.5-parameters": _parameters,
    "fig2-neurons": _neurons,
    "s4-ten-bits": lambda: {("bits of a label", ""): math.log2(presets.paper().fc8.units)},
    "s4.1-patches": lambda: {
        ("side of a patch", ""): PAPER_VIEWS.crop_side,
        ("factor", ""): PAPER_VIEWS.num_views(),
    },
}


def computed(claim: str) -> dict[tuple[str, str], float]:
    """Return the numbers of a claim that follow from the preset `paper` by arithmetic, by (name, subject) of its values."""
    return COMPUTED[claim]() if claim in COMPUTED else {}


def word(value: Value, number: float) -> Word:
    """Return the verdict on a value of the paper from a computed number, which has no interval and no scale."""
    if value.is_close(number):
        return "agrees"
    return "lower than the paper" if number < value.paper else "higher than the paper"
