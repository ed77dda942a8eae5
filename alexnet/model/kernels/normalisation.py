"""The normalisations of section 3.3 as kernels, some ten times as fast as torch's own operations.

In C for CPUs (`normalise.c`), in Triton for CUDA devices (`cuda.py`). They are the formulas of `layers`, with as few passes
over memory as can be; the backward pass computes the energies again. Their results are within a few ulps of those of
`layers`, and not bit for bit the same.
"""

import torch
from torch import Tensor

from alexnet.model.kernels import build


def applies(x_NCHW: Tensor, size: int) -> bool:
    """Return whether the kernels are on and can take these maps: channels last, an odd window, fp32 or bf16."""
    if not build.is_on() or x_NCHW.device.type not in ("cpu", "cuda") or len(x_NCHW) == 0:
        return False
    is_channels_last = x_NCHW.is_contiguous(memory_format=torch.channels_last)
    return is_channels_last and size % 2 == 1 and x_NCHW.dtype in (torch.float32, torch.bfloat16)


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
    return build.is_on() and device.type == "cuda"


def draws_at_least(key: Tensor, skipped: int, shape: tuple[int, ...], least: int) -> Tensor:
    """Return which draws of 16 bits of a key's stream are at least `least`, as in `cuda`."""
    from alexnet.model.kernels import cuda

    return cuda.draws_at_least(key, skipped, shape, least)


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
        from alexnet.model.kernels import cuda  # Why here: where there is no device there may be no Triton.

        return getattr(cuda, name)(x, gradient, *sizes, *constants)
    kernel, out = getattr(build.library()[0], name), torch.empty_like(x)
    given = x.data_ptr(), None if gradient is None else gradient.data_ptr()
    if kernel(*given, *sizes, *constants, x.dtype == torch.bfloat16, out.data_ptr()):
        raise MemoryError("no room for the normalisation of a few maps")
    return out
