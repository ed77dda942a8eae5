"""The nets (paper 3 and 4.2): what is known of one before it is built, and how it is built.

    presets.py          the two readings of the paper, every ablation, sizes and labels; needs no torch
    net.py              what every net can do (`Net`), and `build`, the one place that knows which class is for which config
    layers.py           the layers that torch does not have in the paper's form, and dropout's step keys
    alexnet.py          the network of Figure 2 as columns
    cifar.py            the nets of the author's cuda-convnet for CIFAR-10
    column_parallel.py  columns on ranks of their own
    weights.py          trained weights in a file
    kernels/            response normalisation in C and Triton

What needs torch is imported when it is first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from alexnet.model.presets import image_side_of, label, layers_of, num_columns_of

if TYPE_CHECKING:
    from alexnet.model.layers import StepKey
    from alexnet.model.net import Net, build, count_parameters

__all__ = ["Net", "StepKey", "build", "count_parameters", "image_side_of", "label", "layers_of", "num_columns_of"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("alexnet.model.net"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
