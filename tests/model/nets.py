"""Nets that are small enough for float64, and their images."""

from dataclasses import replace

import torch

from alexnet.model.alexnet import AlexNet
from alexnet.model.presets import with_classes, with_width


def small(config, side=99, num_classes=5):
    """A sixteenth of a net on small images: 3 to 12 kernels and 128 units a column."""
    return replace(with_classes(with_width(config, 1 / 16), num_classes), image_side=side)


def images(count, side=99, seed=0):
    """Noise with the sd of photographs' pixels."""
    return torch.randn(count, 3, side, side, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 70


def on_meta(config, **layout):
    """A net without memory, for counting."""
    with torch.device("meta"):
        return AlexNet(config, **layout)
