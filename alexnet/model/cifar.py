"""The CIFAR-10 nets behind Figure 1 (section 3.1).

The paper says only "a four-layer convolutional network". Two nets of the author's own cuda-convnet fit that name; both
are here, without normalisation and with ReLU or tanh:

    19pct             conv 32 5x5, max 3/2 | conv 32 5x5, avg 3/2 | conv 64 5x5, avg 3/2 | fc 10          89,578 parameters
    conv-local-13pct  conv 64 5x5, max 3/2 | conv 64 5x5, max 3/2 | local 32 3x3 | local 32 3x3 | fc 10   1,901,386

Shapes: N images, C maps, H, W pixels, K classes, P = H * W places.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexnet import randomness
from alexnet.config import CifarNet
from alexnet.model.layers import wide_tanh

IMAGE_SIDE = 32


class Tanh(nn.Module):
    """tanh as a layer, saturating no sooner in bf16 than in fp32 (`layers.wide_tanh`)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return tanh(x) in the type of x."""
        return wide_tanh(x)


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"relu": partial(nn.ReLU, inplace=True), "tanh": Tanh}


class LocallyConnected2d(nn.Module):
    """A 3x3 convolution whose weights are not shared: every place has kernels and biases of its own.

    Zero padding of one pixel keeps the side. `weight` is (P, 9 * C_in, C_out), taps row by row with the maps fastest;
    `bias` is (P, 1, C_out). Source 2012: layers of type `local` in the conv-local files.
    """

    def __init__(self, in_maps: int, out_maps: int, side: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(side * side, 9 * in_maps, out_maps))
        self.bias = nn.Parameter(torch.zeros(side * side, 1, out_maps))

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Return the (N, C_out, H, W) products of each place's own kernels."""
        N, C, H, W = x_NCHW.shape
        padded_HWNC = F.pad(x_NCHW, (1, 1, 1, 1)).permute(2, 3, 0, 1)
        taps = [padded_HWNC[i : i + H, j : j + W] for i in range(3) for j in range(3)]
        patches = torch.cat(taps, dim=-1).reshape(H * W, N, 9 * C)
        out_PNC = torch.baddbmm(self.bias.to(patches.dtype), patches, self.weight.to(patches.dtype))
        return out_PNC.view(H, W, N, -1).permute(2, 3, 0, 1)


def build_cifar_net(config: CifarNet, seed: int) -> nn.Sequential:
    """Build the net of `config` with its initial weights for `seed`.

    Takes (N, 3, 32, 32) raw 0-255 pixels minus the mean image, gives (N, K) logits. The draws depend on the layer's name
    alone, so the ReLU and the tanh net of one seed start from the same weights.
    """
    layers = _layers_19pct(config) if config.topology == "19pct" else _layers_conv_local(config)
    net = nn.Sequential()
    for name, layer in layers:
        net.add_module(name, layer)
    initialise(net, _initial_deviations(config), seed)
    # Why: channels_last makes pooling four times faster and conv1 twice as fast on processors.
    return net.to(memory_format=torch.channels_last)


def _layers_19pct(config: CifarNet) -> list[tuple[str, nn.Module]]:
    activation = ACTIVATIONS[config.activation]
    narrow, wide = round(32 * config.width), round(64 * config.width)
    return [
        ("conv1", nn.Conv2d(3, narrow, 5, padding=2)),
        # Source 2012: pool1 comes before the neuron; a monotone activation gives the same values with less work.
        ("pool1", nn.MaxPool2d(3, 2, ceil_mode=True)),
        ("act1", activation()),
        ("conv2", nn.Conv2d(narrow, narrow, 5, padding=2)),
        ("act2", activation()),
        ("pool2", _average_pool()),
        ("conv3", nn.Conv2d(narrow, wide, 5, padding=2)),
        ("act3", activation()),
        ("pool3", _average_pool()),
        ("flatten", nn.Flatten()),
        ("fc4", nn.Linear(wide * 4 * 4, config.num_classes)),
    ]


def _layers_conv_local(config: CifarNet) -> list[tuple[str, nn.Module]]:
    activation = ACTIVATIONS[config.activation]
    narrow, wide = round(32 * config.width), round(64 * config.width)
    return [
        ("conv1", nn.Conv2d(3, wide, 5, padding=2)),
        ("pool1", nn.MaxPool2d(3, 2, ceil_mode=True)),
        ("act1", activation()),
        ("conv2", nn.Conv2d(wide, wide, 5, padding=2)),
        ("pool2", nn.MaxPool2d(3, 2, ceil_mode=True)),
        ("act2", activation()),
        ("local3", LocallyConnected2d(wide, narrow, side=8)),
        ("act3", activation()),
        ("local4", LocallyConnected2d(narrow, narrow, side=8)),
        ("act4", activation()),
        ("flatten", nn.Flatten()),
        ("fc5", nn.Linear(narrow * 8 * 8, config.num_classes)),
    ]


def _average_pool() -> nn.AvgPool2d:
    # Source 2012: windows run over the edge (ceil) and divide by the pixels inside the image.
    return nn.AvgPool2d(3, 2, ceil_mode=True, count_include_pad=False)


def _initial_deviations(config: CifarNet) -> dict[str, float]:
    if config.topology == "19pct":
        return {"conv1": config.first_sd, "conv2": 0.01, "conv3": 0.01, "fc4": 0.01}
    return {"conv1": config.first_sd, "conv2": 0.01, "local3": 0.04, "local4": 0.04, "fc5": 0.01}


@torch.no_grad()
def initialise(net: nn.Module, deviations: dict[str, float], seed: int) -> None:
    """Set each named layer's weights to normal draws of its deviation and its biases to 0 (2012 layer.py:807, 833)."""
    for name, deviation in deviations.items():
        layer = net.get_submodule(name)
        draws = randomness.normal(seed, f"weights/{name}", tuple(layer.weight.shape))
        layer.weight.copy_(torch.from_numpy(draws) * deviation)
        layer.bias.zero_()


def count_parameters(net: nn.Module) -> int:
    """Return the number of learned values, biases included."""
    return sum(parameter.numel() for parameter in net.parameters())
