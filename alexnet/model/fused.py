"""The normalisations of section 3.3 as loops in C (`native/normalise.c`), some ten times as fast as torch's own.

They are the formulas of `layers`, forward and backward in one pass over memory each; the backward pass computes the energies
again. Their results, within a few ulps of those of `layers`, are not the same bits. On processors only; elsewhere `layers`
does it.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from alexnet import compiled


def applies(x_NCHW: Tensor, size: int) -> bool:
    """Return whether the loops are on and can take these maps: on a processor, channels last, an odd window."""
    if not compiled.is_on() or x_NCHW.device.type != "cpu" or len(x_NCHW) == 0:
        return False
    lasting = x_NCHW.is_contiguous(memory_format=torch.channels_last)
    return lasting and size % 2 == 1 and x_NCHW.dtype in (torch.float32, torch.bfloat16)


def normalise_across(x_NCHW: Tensor, groups: int, reach: int, k: float, alpha: float, beta: float) -> Tensor:
    """Return x * (k + alpha * energy)^-beta, the energy summed over the maps within `reach` in one of `groups` equal parts.

    Squares are summed in fp32. Raises MemoryError if there is no room for a few rows more.
    """
    N, C, H, W = x_NCHW.shape
    return _Normalise.apply(x_NCHW, "normalise_across", (N * H * W * groups, C // groups), (reach, k, alpha, beta))


def normalise_within(x_NCHW: Tensor, reach: int, k: float, alpha: float, beta: float) -> Tensor:
    """Return x * (k + alpha * energy)^-beta, the energy summed over the pixels of the same map within `reach`.

    Squares are summed in fp32. Raises MemoryError if there is no room for a few maps more.
    """
    N, C, H, W = x_NCHW.shape
    return _Normalise.apply(x_NCHW, "normalise_within", (N, H, W, C), (reach, k, alpha, beta))


class _Normalise(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, name: str, sizes: tuple[int, ...], constants: tuple[float, ...]) -> Tensor:
        ctx.save_for_backward(x)
        ctx.how = getattr(compiled.library()[0], name), sizes, constants
        return _run(x, None, *ctx.how)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        gradient = gradient.to(x.dtype).contiguous(memory_format=torch.channels_last)
        return _run(x, gradient, *ctx.how), None, None, None


def _run(x: Tensor, gradient: Tensor | None, loop: Callable[..., int], sizes: tuple[int, ...], constants: tuple) -> Tensor:
    out = torch.empty_like(x)
    given = x.data_ptr(), None if gradient is None else gradient.data_ptr()
    if loop(*given, *sizes, *constants, x.dtype == torch.bfloat16, out.data_ptr()):
        raise MemoryError("no room for the normalisation of a few maps")
    return out
