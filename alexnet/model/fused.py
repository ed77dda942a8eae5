"""The normalisations of section 3.3 as loops that torch.compile writes, several times as fast as `layers` has them.

They are the same formulas, in pieces that fit a processor's cache, and the backward pass computes the energies again. A
piece is copied into a buffer in fp32 with a border of zeros, so that a window is a sum of slices that a compiler turns into
vector instructions: with the border as a condition inside the loop it takes several times as long.

Their results, within a few ulps of those of `layers`, are not the same bits. On processors only; elsewhere, where this was
never run, `layers` does it.
"""

import itertools
from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from alexnet import compiled

PIECE = 2**18  # values computed at once on a processor: 1 MB of fp32 stays in its cache


def applies(x_NCHW: Tensor, size: int) -> bool:
    """Return whether `normalise` is switched on and can take these maps: on a processor, channels last, an odd window."""
    if not compiled.is_on() or x_NCHW.device.type != "cpu" or len(x_NCHW) == 0:
        return False
    lasting = x_NCHW.is_contiguous(memory_format=torch.channels_last)
    return lasting and size % 2 == 1 and x_NCHW.dtype in (torch.float32, torch.bfloat16)


def normalise(x: Tensor, reach: tuple[int, ...], k: float, alpha: float, beta: float) -> Tensor:
    """Return x * (k + alpha * energy)^-beta for a contiguous x.

    The energy is the sum of squares, in fp32, over the places within `reach` along each dimension, zeros outside. Nothing
    reaches along the first dimension.
    """
    return _Normalise.apply(x, reach, k, alpha, beta)


class _Normalise(torch.autograd.Function):
    """With s = k + alpha * energy and the incoming gradient g, the gradient is as in `layers`:

    g s^-beta - 2 alpha beta x * (sum of g x s^(-beta - 1) over the windows that x is in).
    """

    @staticmethod
    def forward(ctx, x: Tensor, reach: tuple[int, ...], *constants: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.kernels = kernels = _kernels(x.shape[1:], reach, *constants, x.dtype)
        y = torch.empty_like(x)
        with torch.autocast("cpu", enabled=False):
            for part, out in zip(x.split(kernels.length), y.split(kernels.length), strict=True):
                kernels.forward(part, out)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        kernels, result = ctx.kernels, torch.empty_like(x)
        parts = (tensor.split(kernels.length) for tensor in (x, gradient.contiguous(), result))
        with torch.autocast("cpu", enabled=False):
            for part, g, out in zip(*parts, strict=True):
                kernels.backward(part, g, out)
        return result, None, None, None, None


@lru_cache(64)
def _kernels(shape: tuple[int, ...], reach: tuple[int, ...], k: float, alpha: float, beta: float, dtype) -> "Kernels":
    length = max(1, PIECE // max(1, torch.Size(shape).numel()))
    return Kernels((length, *shape), reach, k, alpha, beta, dtype)


class Kernels:
    """The compiled loops for pieces of one shape and type, with the buffers that they work in."""

    def __init__(
        self, shape: tuple[int, ...], reach: tuple[int, ...], k: float, alpha: float, beta: float, dtype: torch.dtype
    ) -> None:
        self.length = shape[0]
        bordered = [n + 2 * r for n, r in zip(shape, reach, strict=True)]
        self.x, self.shared = torch.zeros(bordered), torch.zeros(bordered)
        self.scaled = torch.empty(shape)
        self.spare = [torch.zeros(shape, dtype=dtype) for _ in range(2)]  # for a piece that is not whole
        places = itertools.product(*(range(2 * r + 1) for r in reach))
        windows = [tuple(slice(o, o + n) for o, n in zip(place, shape, strict=True)) for place in places]
        self.inside = windows[len(windows) // 2]
        self._forward, *self._backward = map(compiled.loop, _loops(windows, k, alpha, beta))

    def forward(self, part: Tensor, out: Tensor) -> None:
        """Write the normalised `part`, at most as long as a piece, into `out`."""
        self._stage(part)
        if len(part) == self.length:
            self._forward(self.x, out)
            return
        # Why not a piece as long as the part: each length would be compiled anew.
        self._forward(self.x, self.spare[0])
        out.copy_(self.spare[0][: len(part)])

    def backward(self, part: Tensor, gradient: Tensor, out: Tensor) -> None:
        """Write the gradient to `part` into `out`, given the one to what `forward` made of it."""
        self._stage(part)
        whole, (own, result) = len(part) == self.length, self.spare
        if not whole:
            own[: len(part)] = gradient
            own[len(part) :] = 0
        self._backward[0](self.x, gradient if whole else own, self.scaled, self.shared)
        self._backward[1](self.x, self.scaled, self.shared, out if whole else result)
        if not whole:
            out.copy_(result[: len(part)])

    def _stage(self, part: Tensor) -> None:
        inside = self.x[self.inside]
        inside[: len(part)] = part
        inside[len(part) :] = 0


def negative_power(s: Tensor, beta: float) -> Tensor:
    """Return s^-beta."""
    if beta != 0.75:
        return s.pow(-beta)
    root = s.rsqrt()  # Why: two roots cost a tenth of a general power.
    return root.sqrt().mul_(root)


def _loops(windows: list[tuple[slice, ...]], k: float, alpha: float, beta: float) -> list[Callable[..., None]]:
    """Return the functions to compile: the forward pass, and the two halves of the backward pass, which share a buffer."""
    inside = windows[len(windows) // 2]

    def energies(x: Tensor) -> Tensor:
        total = x[windows[0]] * x[windows[0]]
        for window in windows[1:]:
            total = total + x[window] * x[window]
        return k + alpha * total

    def forward(x: Tensor, out: Tensor) -> None:
        out.copy_(x[inside] * negative_power(energies(x), beta))

    def share(x: Tensor, gradient: Tensor, scaled: Tensor, shared: Tensor) -> None:
        s = energies(x)
        own = gradient.to(x.dtype) * negative_power(s, beta)
        scaled.copy_(own)
        shared[inside].copy_(own * x[inside] / s)

    def gather(x: Tensor, scaled: Tensor, shared: Tensor, out: Tensor) -> None:
        total = shared[windows[0]]
        for window in windows[1:]:
            total = total + shared[window]
        out.copy_(scaled - 2 * alpha * beta * x[inside] * total)

    return [forward, share, gather]
