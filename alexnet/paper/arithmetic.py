"""The numbers of the paper that follow from its net by arithmetic: sizes, neurons, parameters and views.

`computed` gives them for a claim, counted on the preset `paper`; they have neither a scale nor an interval.
"""

import math
from collections.abc import Callable
from typing import Literal

from alexnet.model import presets
from alexnet.model.presets import COLOURS, CONV, NetConfig, count_neurons, sides, weight_shapes
from alexnet.paper.claims import Claim, Value
from alexnet.preprocessing import augment

Word = Literal["by construction", "arithmetic: true", "arithmetic: false"]
Numbers = dict[str, float]  # by the keys of a claim's values


def layer_parameters(config: NetConfig) -> dict[str, int]:
    """Return the learned values of every layer, biases included, all columns together."""
    return {layer: math.prod(shape) + shape[0] for layer, shape in weight_shapes(config).items()}


def operations(config: NetConfig) -> dict[str, int]:
    """Return the additions and multiplications of every layer for one image of a training step, all columns together.

    Matmuls with weights only: forward, to the weights' gradient, and to the input's, which conv1 has none of.
    """
    side = sides(config)
    return {
        layer: 2 * math.prod(shape) * (side[layer] ** 2 if layer in CONV else 1) * (2 if layer == "conv1" else 3)
        for layer, shape in weight_shapes(config).items()
    }


def maps_seen(config: NetConfig) -> dict[str, int]:
    """Return how many maps or features each kernel or unit of a layer sees."""
    return {layer: shape[1] for layer, shape in weight_shapes(config).items()}


def largest_share(config: NetConfig) -> float:
    """Return the largest share of a convolutional layer in the net's parameters, in percent."""
    counts = layer_parameters(config)
    return 100 * max(count for layer, count in counts.items() if layer in CONV) / sum(counts.values())


def _printed_layers(config: NetConfig) -> Numbers:
    """Return what section 3.5 lists of every layer, all columns together."""
    found: Numbers = {"side of the input": config.image_side}
    for name in filter(config.learns, config.layer_names):
        layer = getattr(config, name)
        if name not in CONV:
            found[f"units, {name}"] = layer.units * (1 if name == "fc8" else config.columns)
            continue
        found[f"kernels, {name}"] = layer.kernels * config.columns
        found[f"side of a kernel, {name}"] = layer.side
        found[f"maps of a kernel, {name}"] = maps_seen(config)[name]
        found[f"stride, {name}"] = layer.stride
    return found


def _layers(config: NetConfig) -> Numbers:
    names = list(filter(config.learns, config.layer_names))
    conv = sum(name in CONV for name in names)
    counts = {"learned layers": len(names), "convolutional layers": conv, "fully-connected layers": len(names) - conv}
    return counts | {"classes": config.fc8.units}


def _parameters(config: NetConfig) -> Numbers:
    counts = layer_parameters(config)
    sums = {"all": sum(counts.values()), "all, one-GPU net": sum(layer_parameters(presets.one_column(config)).values())}
    return {f"parameters, {name}": count for name, count in {**counts, **sums}.items()}


def _neurons(config: NetConfig) -> Numbers:
    counts = count_neurons(config)
    return {"dimensions, input": COLOURS * config.image_side**2} | {f"neurons, {name}": n for name, n in counts.items()}


# Claim -> its numbers that can be counted on the net.
COMPUTED: dict[str, Callable[[NetConfig], Numbers]] = {
    "abstract-size": lambda net: {
        "parameters": sum(layer_parameters(net).values()),
        "neurons": sum(count_neurons(net).values()),
    },
    "s1-shares": lambda net: {"largest share of a convolutional layer": largest_share(net)},
    "s3.2-one-gpu-net": lambda net: _printed_layers(presets.one_column(net)),
    "s3.4-pooling": lambda net: {"side of a window": net.pooling.side, "stride": net.pooling.stride},
    "s3.5-layers": _layers,
    "s3.5-architecture": _printed_layers,
    "s3.5-parameters": _parameters,
    "fig2-neurons": _neurons,
    "s4-ten-bits": lambda net: {"bits of a label": math.log2(net.fc8.units)},
    "s4.1-patches": lambda net: {"side of a patch": net.image_side, "factor": augment.num_views(augment.PAPER)},
}


def computed(claim: str) -> Numbers:
    """Return the numbers of a claim that follow from the preset `paper` by arithmetic, by the keys of its values."""
    return COMPUTED[claim](presets.paper()) if claim in COMPUTED else {}


def word(claim: Claim, value: Value, number: float) -> Word:
    """Return the verdict on a value from the number counted on our net, which has no interval and no scale.

    A definition is held by construction; where our net departs from its number, that is said as of arithmetic.
    """
    if not value.is_close(number):
        return "arithmetic: false"
    return "by construction" if claim.kind == "definition" else "arithmetic: true"
