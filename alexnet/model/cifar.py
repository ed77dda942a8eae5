"""The nets of the author's own cuda-convnet for CIFAR-10 (paper 3.1 and 3.3).

Of Figure 1 the paper says only "a four-layer convolutional network", which fits two of his nets. The third is the one whose
error normalisation lowers from 13 % to 11 % (3.3). Those with local layers were trained on random crops of 24 pixels.

Shapes: N images, C maps, H, W pixels, K classes, P = H * W places.
"""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexnet.config import CifarNet, UserError
from alexnet.model import layers
from alexnet.model.layers import LogitsLinear, StepKey
from alexnet.model.net import Net
from alexnet.model.presets import COLOURS, ResponseNorm, num_windows

# Kernels (5x5, in local layers 3x3), sd of the weights, what follows in order, poolings 3 by 2; biases begin at 0.
# Source 2012: pool1 comes before the neuron; a monotone activation gives the same values with less work.
# (|tanh| is not monotone: with it the largest input of a window is taken, not the largest output.)
TOPOLOGIES = {
    "19pct": {  # 89,578 parameters
        "conv1": (32, 1e-4, "max activation"),
        "conv2": (32, 0.01, "activation average"),
        "conv3": (64, 0.01, "activation average"),
        "fc4": (0, 0.01, ""),
    },
    "conv-local-13pct": {  # 1,901,386 parameters at 32 pixels, 1,116,490 at 24
        "conv1": (64, 1e-4, "max activation"),
        "conv2": (64, 0.01, "max activation"),
        "local3": (32, 0.04, "activation"),
        "local4": (32, 0.04, "activation"),
        "fc5": (0, 0.01, ""),
    },
    # Source 2012: layer 1 is normalised after its pooling and layer 2 before it (layers-conv-local-11pct.cfg).
    "conv-local-11pct": {  # 2,112,970 parameters at 24 pixels
        "conv1": (64, 1e-4, "max activation norm"),
        "conv2": (64, 0.01, "activation norm max"),
        "local3": (64, 0.04, "activation"),
        "local4": (32, 0.04, "activation"),
        "fc5": (0, 0.01, ""),
    },
}
# Source 2012: scale 0.001, which is divided by the size, pow 0.75 (layer-params-conv-local-11pct.cfg), and always 1 for k.
NORM = ResponseNorm(size=9, k=1.0, alpha=1e-3, beta=0.75, alpha_per_window=True)


class LocallyConnected2d(nn.Module):
    """A 3x3 convolution, zero-padded, whose every place has kernels and biases of its own (the 2012 type `local`).

    `weight` is (P, 9 * C_in, C_out), taps row by row with the maps fastest; `bias` is (P, 1, C_out).
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


class CifarStack(Net):
    """A net of `TOPOLOGIES`; its layers are attributes. Raises UserError for normalisations of a topology without."""

    def __init__(self, config: CifarNet) -> None:
        super().__init__()
        self.config, self.image_side = config, config.image_side
        self.topology = TOPOLOGIES[config.topology]
        alpha, beta = config.norm_alpha, config.norm_beta
        self.norm = replace(NORM, alpha=NORM.alpha if alpha is None else alpha, beta=NORM.beta if beta is None else beta)
        self.layer_names = tuple(self.topology)
        if (config.norms is not None or self.norm != NORM) and "norm" not in str(self.topology):
            raise UserError(f"{config.topology} has no normalisations: leave out --norms, --norm-alpha, --norm-beta.")
        maps, side = COLOURS, self.image_side
        for name, (kernels, _, then) in self.topology.items():
            out = max(1, round(kernels * config.width)) if kernels else 0
            if name.startswith("conv"):
                self.add_module(name, nn.Conv2d(maps, out, 5, padding=2))
            elif name.startswith("local"):
                self.add_module(name, LocallyConnected2d(maps, out, side))
            else:
                self.add_module(name, LogitsLinear(maps * side**2, config.num_classes))
            maps = out
            if "max" in then or "average" in then:
                side = num_windows(side, 3, 2)

    def _run(self, x: Tensor, last: str, key: StepKey | None = None) -> Tensor:
        for name, (_, _, then) in self.topology.items():
            x = self.get_submodule(name)(x.flatten(1) if name.startswith("fc") else x)
            for step in then.split():
                x = self._follow(step, x)
            if name == last:
                break
        return x

    def _follow(self, step: str, x: Tensor) -> Tensor:
        if step == "activation":
            return layers.activate(x, self.config.activation)
        if step == "norm":
            return x if self.config.norms is False else layers.response_normalise(x, self.norm)
        if (self.config.pooling or step) == "max":
            return layers.max_pool(x, 3, 2)
        # Source 2012: windows run over the edge (ceil) and divide by the pixels inside the image.
        return F.avg_pool2d(x, 3, 2, ceil_mode=True, count_include_pad=False)

    def initialise(self, seed: int) -> None:
        """As in `Net`. The draws depend on the layer's name alone: ReLU and tanh nets start from the same weights."""
        for name, (_, sd, _) in self.topology.items():
            layer = self.get_submodule(name)
            layers.initialise(layer.weight, layer.bias, self.config.first_sd if name == "conv1" else sd, 0.0, seed, name)
