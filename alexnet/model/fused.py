"""The normalisations of section 3.3 as compiled loops, some ten times as fast as torch's own.

In C for processors (`native/normalise.c`), in Triton for CUDA devices (`triton_loops.py`). They are the formulas of
`layers`, with as few passes over memory as can be; the backward pass computes the energies again. Their results, within a
few ulps of those of `layers`, are not the same bits.
"""

import torch
from torch import Tensor

from alexnet import compiled


def applies(x_NCHW: Tensor, size: int) -> bool:
    """Return whether the loops are on and can take these maps: channels last, an odd window, fp32 or bf16."""
    if not compiled.is_on() or x_NCHW.device.type not in ("cpu", "cuda") or len(x_NCHW) == 0:
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


def draws_on(device: torch.device) -> bool:
    """Return whether dropout's draws can be made on a device."""
    return compiled.is_on() and device.type == "cuda"


def draws_at_least(key: Tensor, skipped: int, shape: tuple[int, ...], least: int) -> Tensor:
    """Return which draws of 16 bits of a key's stream are at least `least`, as in `triton_loops`."""
    from alexnet.model import triton_loops

    return triton_loops.draws_at_least(key, skipped, shape, least)


class _Normalise(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, name: str, sizes: tuple[int, ...], constants: tuple[float, ...]) -> Tensor:
        ctx.save_for_backward(x)
        ctx.how = name, sizes, constants
        return _run(x, None, *ctx.how)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        gradient = gradient.to(x.dtype).contiguous(memory_format=torch.channels_last)
        return _run(x, gradient, *ctx.how), None, None, None


def _run(x: Tensor, gradient: Tensor | None, name: str, sizes: tuple[int, ...], constants: tuple[float, ...]) -> Tensor:
    if x.is_cuda:
        from alexnet.model import triton_loops  # Why here: where there is no device there may be no Triton.

        return getattr(triton_loops, name)(x, gradient, *sizes, *constants)
    loop, out = getattr(compiled.library()[0], name), torch.empty_like(x)
    given = x.data_ptr(), None if gradient is None else gradient.data_ptr()
    if loop(*given, *sizes, *constants, x.dtype == torch.bfloat16, out.data_ptr()):
        raise MemoryError("no room for the normalisation of a few maps")
    return out
