"""The numbers of the paper that follow from its net by arithmetic: sizes, neurons, parameters and views."""

import math
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
    """Return additions and multiplications by layer for an image of a step: matmuls with weights, forward and backward."""
    side = sides(config)
    return {
        # Why 2 for conv1: its input, the image, has no gradient.
        layer: 2 * math.prod(shape) * (side[layer] ** 2 if layer in CONV else 1) * (2 if layer == "conv1" else 3)
        for layer, shape in weight_shapes(config).items()
    }


def _printed_layers(config: NetConfig) -> Numbers:
    """Return what section 3.5 lists of every layer, all columns together."""
    found: Numbers = {"side of the input": config.image_side}
    for name, (count, seen, *_) in weight_shapes(config).items():
        if name in CONV:
            layer = getattr(config, name)
            found |= {f"kernels, {name}": count, f"side of a kernel, {name}": layer.side}
            found |= {f"maps of a kernel, {name}": seen, f"stride, {name}": layer.stride}
        else:
            found[f"units, {name}"] = count
    return found


def _of_the_paper() -> dict[str, Numbers]:
    """Return by claim the numbers that can be counted on its net."""
    net = presets.paper()
    parameters, neurons, one = layer_parameters(net), count_neurons(net), presets.one_column(net)
    conv = [name for name in parameters if name in CONV]
    counts = {**parameters, "all": sum(parameters.values()), "all, one-GPU net": sum(layer_parameters(one).values())}
    share = 100 * max(parameters[name] for name in conv) / counts["all"]  # percent
    return {
        "abstract-size": {"parameters": counts["all"], "neurons": sum(neurons.values())},
        "s1-shares": {"largest share of a convolutional layer": share},
        "s3.2-one-gpu-net": _printed_layers(one),
        "s3.4-pooling": {"side of a window": net.pooling.side, "stride": net.pooling.stride},
        "s3.5-layers": {
            "learned layers": len(parameters),
            "convolutional layers": len(conv),
            "fully-connected layers": len(parameters) - len(conv),
            "classes": net.num_classes,
        },
        "s3.5-architecture": _printed_layers(net),
        "s3.5-parameters": {f"parameters, {name}": count for name, count in counts.items()},
        "fig2-neurons": {"dimensions, input": COLOURS * net.image_side**2}
        | {f"neurons, {name}": count for name, count in neurons.items()},
        "s4-ten-bits": {"bits of a label": math.log2(net.num_classes)},
        "s4.1-patches": {"side of a patch": net.image_side, "factor": augment.num_views(augment.PAPER)},
    }


COMPUTED = _of_the_paper()  # by claim the numbers that follow from the preset `paper`, by the keys of its values


def word(claim: Claim, value: Value, number: float) -> Word:
    """Return the verdict on a value from the number counted on our net; a definition is held by construction."""
    if not value.is_close(number):
        return "arithmetic: false"
    return "by construction" if claim.kind == "definition" else "arithmetic: true"
