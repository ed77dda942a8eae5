"""The layers that a library does not have in the paper's form (sections 3.3, 3.4, 4.2 and 5).

Shapes: N images, C maps, H, W pixels, D features. Counting rule of a window of n around i: n // 2 before it and
(n - 1) // 2 after it, so an even window has one more before, as in the 2012 kernels and in `torch.nn.LocalResponseNorm`.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexnet import randomness
from alexnet.config import Activation
from alexnet.model import kernels
from alexnet.model.presets import MapNorm, ResponseNorm


@dataclass(frozen=True)
class StepKey:
    """Which step of a training a batch is for: all that dropout masks depend on, besides the layer and the column."""

    seed: int
    epoch: int
    step: int
    first_image: int = 0  # place in the batch of the first image here: a replica or a part of a batch draws its own rows
    streams: dict[str, Tensor] | None = field(default=None, compare=False)  # `stream`s that lie on a device already

    def stream(self, purpose: str, device: torch.device) -> Tensor:
        """Return the key of a stream of draws, its lower and its upper 64 bits as int64 (2,), on a CUDA device."""
        streams = {} if self.streams is None else self.streams
        if purpose not in streams:
            number = randomness.key(self.seed, purpose, self.epoch, self.step)
            halves = torch.from_numpy(np.frombuffer(number.to_bytes(16, "little"), "<i8").copy())
            streams[purpose] = halves.pin_memory().to(device, non_blocking=True)
        return streams[purpose]


def response_normalise(x_NCHW: Tensor, norm: ResponseNorm, groups: int = 1) -> Tensor:
    """Divide each activity by a power of the energy of `norm.size` kernel maps around it (paper 3.3).

    The sum never crosses the border between `groups` equal parts of the maps, which are columns. Squares of bf16 are summed
    in fp32. The 2012 source divides alpha by the window first (`norm.alpha_per_window`).
    """
    alpha = norm.alpha / norm.size if norm.alpha_per_window else norm.alpha
    if kernels.applies(x_NCHW, norm.size):
        return kernels.normalise_across(x_NCHW, groups, norm.size // 2, norm.k, alpha, norm.beta)
    window = _window_matrix(x_NCHW, x_NCHW.shape[1] // groups, norm.size)
    return _normalise(x_NCHW, {1: torch.block_diag(*[window] * groups)}, norm.k, alpha, norm.beta)


def normalise_within_maps(x_NCHW: Tensor, norm: MapNorm) -> Tensor:
    """Divide each activity by a power of the energy of its neighbours in the same map, zeros outside.

    Source 2012: the window is `norm.size` squared, and alpha is divided by that also at the border (layer.py:1183).
    """
    alpha = norm.alpha / norm.size**2
    if kernels.applies(x_NCHW, norm.size):
        return kernels.normalise_within(x_NCHW, norm.size // 2, norm.k, alpha, norm.beta)
    _, _, H, W = x_NCHW.shape
    windows = {2: _window_matrix(x_NCHW, H, norm.size), 3: _window_matrix(x_NCHW, W, norm.size)}
    return _normalise(x_NCHW, windows, norm.k, alpha, norm.beta)


def _window_matrix(x: Tensor, count: int, size: int) -> Tensor:
    """Return the (count, count) matrix whose row i has ones at the places in the window of i."""
    i = torch.arange(count, device=x.device)
    offset = i - i[:, None]
    inside = (offset >= -(size // 2)) & (offset <= (size - 1) // 2)
    return inside.to(torch.promote_types(x.dtype, torch.float32))


def _normalise(x_NCHW: Tensor, windows: dict[int, Tensor], k: float, alpha: float, beta: float) -> Tensor:
    """Return x * (k + alpha * energy)^-beta, the energy summed over the window of each dimension in `windows`."""
    # Why: the sums are matrix products over memory as it lies; this permutation only renames dimensions.
    maps_last = x_NCHW.is_contiguous(memory_format=torch.channels_last) and not x_NCHW.is_contiguous()
    x, place = (x_NCHW.permute(0, 2, 3, 1), (0, 3, 1, 2)) if maps_last else (x_NCHW.contiguous(), range(4))
    # Why no autocast: it would take the products, and with them the sum of squares, in bf16.
    with torch.autocast("cuda" if x.is_cuda else "cpu", enabled=False):
        x32 = x.to(next(iter(windows.values())).dtype)
        energy = x32 * x32
        for dim, window in windows.items():
            at = place[dim]
            sums = energy @ window.T if at == 3 else window @ energy.flatten(0, at - 1).flatten(2)
            energy = sums.view_as(energy)
        s = energy * alpha + k
        root = s.rsqrt()  # Why: two roots cost a tenth of a general power.
        power = root.sqrt() * root if beta == 0.75 else s.pow(-beta)
        return (x32 * power).to(x.dtype).permute(*place)


class EdgeConv2d(nn.Conv2d):
    """A convolution that covers the whole image: its last windows see zeros beyond the right and the bottom edge.

    224 pixels, kernels of 11 and a stride of 4 give 55 places, the last of which sees 3 zeros (2012 layer.py:1004).
    """

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Return the (N, C_out, H, W) products, sides rounded up."""
        bottom, right = ((self.kernel_size[0] - 2 * self.padding[0] - side) % self.stride[0] for side in x_NCHW.shape[2:])
        return super().forward(F.pad(x_NCHW, (0, right, 0, bottom)) if right or bottom else x_NCHW)


class GroupedLinear(nn.Linear):
    """A fully-connected layer of several columns of which each sees its own part of the input only."""

    def __init__(self, in_features: int, out_features: int, groups: int = 1) -> None:
        super().__init__(in_features // groups, out_features)
        self.groups = groups

    def forward(self, x_ND: Tensor) -> Tensor:
        """Return the (N, D_out) products, column by column."""
        if self.groups == 1:
            return super().forward(x_ND)
        triples = zip(x_ND.chunk(self.groups, 1), self.weight.chunk(self.groups), self.bias.chunk(self.groups), strict=True)
        return torch.cat([F.linear(x, weight, bias) for x, weight, bias in triples], dim=1)


class LogitsLinear(nn.Linear):
    """The last layer: its product is in fp32 whatever the rest of the net runs in, and in float64 in a float64 net.

    Rounded to the 8 bits of bf16, the largest logits of an image sometimes tie, and the order of the classes decides.
    """

    def forward(self, x_ND: Tensor) -> Tensor:
        """Return the (N, K) products."""
        dtype = torch.promote_types(self.weight.dtype, torch.float32)
        with torch.autocast("cuda" if x_ND.is_cuda else "cpu", enabled=False):
            return F.linear(x_ND.to(dtype), self.weight.to(dtype), None if self.bias is None else self.bias.to(dtype))


def activate(x: Tensor, name: Activation) -> Tensor:
    """Return an activation of x in its dtype: ReLU may overwrite x, the others take their derivative in fp32 at least."""
    if name == "relu":
        return F.relu(x, inplace=True)
    # Why: bf16 rounds tanh to 1 from 3.47 on, where its derivative would then be 0, the very effect of Figure 1.
    found = getattr(F, name.removeprefix("abs-"))(x.float() if x.dtype == torch.bfloat16 else x)
    return (found.abs() if name.startswith("abs-") else found).to(x.dtype)


def max_pool(x_NCHW: Tensor, side: int, stride: int) -> Tensor:
    """Return the largest activity of each window; windows may run over the right and the bottom edge (paper 3.4)."""
    return F.max_pool2d(x_NCHW, side, stride, ceil_mode=True)


def classic_dropout(x_ND: Tensor, probability: float, kept_ND: Tensor | None) -> Tensor:
    """Set outputs to zero where `kept_ND` is False, and leave the others as they are; without a mask, scale all.

    At test time `kept_ND` is None and every output is multiplied by 1 - `probability`. Paper 4.2. Libraries scale the
    outputs kept in training instead, which changes the rate and the initial scale of the layer above.
    """
    return x_ND * (1 - probability) if kept_ND is None else x_ND * kept_ND


def dropout_mask(
    key: StepKey, layer: str, column: str, shape: tuple[int, int], probability: float, device: torch.device | None = None
) -> Tensor:
    """Return which outputs (N, D) of a column's layer are kept in a step, True with probability 1 - `probability`.

    The draws, 16 bits each, are those of rows `key.first_image` and on of the whole batch, the same wherever they are made.
    """
    purpose, skipped, least = f"dropout/{layer}/{column}", key.first_image * shape[1], round(probability * 2**16)
    if device is not None and kernels.draws_on(device):
        return kernels.draws_at_least(key.stream(purpose, device), skipped, shape, least)
    draws = randomness.generator(key.seed, purpose, key.epoch, key.step)
    numbers = np.frombuffer(draws.bytes(2 * (skipped + shape[0] * shape[1])), dtype="<u2")[skipped:]
    return torch.from_numpy(numbers >= least).view(shape).to(device or "cpu")


@torch.no_grad()
def initialise(weight: Tensor, bias: Tensor | None, sd: float, start: float, seed: int, name: str) -> None:
    """Fill a column's weights with normal draws of `seed` and `name` (layer/column) alone, its biases with `start`."""
    draws = randomness.normal(seed, f"weights/{name}", tuple(weight.shape))
    weight.copy_(torch.from_numpy(draws).mul_(sd))
    if bias is not None:
        bias.fill_(start)
