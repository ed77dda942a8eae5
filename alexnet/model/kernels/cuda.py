"""The kernels of `normalise.c`, and dropout's draws, for CUDA devices: compiled by Triton.

Maps lie as they do for the kernels in C (channels_last), and the arithmetic is the same: fp32, whatever comes in and goes
out.
Importing this needs Triton, which comes with torch's builds for CUDA; `why_not` says whether there is one that works.
"""

from functools import lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor

TILE = 1024  # activities that a program normalises at once
# What a kernel makes: y; g x s^(-beta - 1), of which neighbours get a share; the gradient to x.
FORWARD, SHARES, BACKWARD = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)
SINGLE = 1024  # draws of a program

M0, M1 = tl.constexpr(0xD2E7470EE14C6C93), tl.constexpr(0xCA5A826395121157)  # of Philox 4x64-10 (Salmon et al. 2011)
W0, W1 = tl.constexpr(0x9E3779B97F4A7C15), tl.constexpr(0xBB67AE8584CAA73B)


@triton.jit
def _power(s, BETA: tl.constexpr):
    """s^-beta. Two roots cost a fraction of a general power."""
    if BETA == 0.75:
        root = tl.rsqrt(s)
        return root * tl.sqrt(root)
    else:
        return tl.exp2(-BETA * tl.log2(s))


@triton.jit
def _sum_across(x, map_, there, C, REACH: tl.constexpr, SQUARED: tl.constexpr):
    """Sum values, or their squares, of the maps within REACH of `map_`, of which there are C."""
    total = tl.zeros([there.shape[0], map_.shape[1]], tl.float32)
    for d in tl.static_range(-REACH, REACH + 1):
        value = tl.load(x + d, mask=there & (map_ + d >= 0) & (map_ + d < C), other=0.0).to(tl.float32)
        total += value * value if SQUARED else value
    return total


@triton.jit(do_not_specialize=["nothing"])
def _across(x, gradient, shared, out, lines, C, k, alpha, nothing, BETA: tl.constexpr, REACH: tl.constexpr,
            MAKES: tl.constexpr, LINES: tl.constexpr, MAPS: tl.constexpr):  # fmt: skip
    line, map_ = tl.program_id(0) * LINES + tl.arange(0, LINES)[:, None], tl.arange(0, MAPS)[None, :]
    there, inside = line < lines, (line < lines) & (map_ < C)
    # Why plus nothing: a load that the compiler knows to be aligned would lie otherwise over threads than its neighbours.
    at = line.to(tl.int64) * C + map_ + nothing
    own = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    s = k + alpha * _sum_across(x + at, map_, there, C, REACH, True)
    power = _power(s, BETA)
    if MAKES == FORWARD:
        tl.store(out + at, (own * power).to(out.dtype.element_ty), mask=inside)
    else:
        g = tl.load(gradient + at, mask=inside, other=0.0).to(tl.float32)
        if MAKES == SHARES:
            tl.store(shared + at, g * own * power / s, mask=inside)
        else:
            total = _sum_across(shared + at, map_, there, C, REACH, False)
            tl.store(out + at, (g * power - 2 * alpha * BETA * own * total).to(out.dtype.element_ty), mask=inside)


@triton.jit
def _sum_within(x, row, column, inside, H, W, C, REACH: tl.constexpr, SQUARED: tl.constexpr):
    """Sum values, or their squares, of the pixels of the same map within REACH."""
    total = tl.zeros([inside.shape[0], inside.shape[1]], tl.float32)
    for down in tl.static_range(-REACH, REACH + 1):
        line = (row + down >= 0) & (row + down < H)
        for right in tl.static_range(-REACH, REACH + 1):
            known = line & (column + right >= 0) & (column + right < W) & inside
            value = tl.load(x + (down * W + right) * C, mask=known, other=0.0).to(tl.float32)
            total += value * value if SQUARED else value
    return total


@triton.jit
def _within(x, gradient, shared, out, pixels, H, W, C, k, alpha, BETA: tl.constexpr, REACH: tl.constexpr,
            MAKES: tl.constexpr, PIXELS: tl.constexpr, MAPS: tl.constexpr):  # fmt: skip
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)[:, None]
    map_ = tl.program_id(1) * MAPS + tl.arange(0, MAPS)[None, :]
    inside = (pixel < pixels) & (map_ < C)
    row, column = (pixel // W) % H, pixel % W
    at = pixel.to(tl.int64) * C + map_
    own = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    s = k + alpha * _sum_within(x + at, row, column, inside, H, W, C, REACH, True)
    power = _power(s, BETA)
    if MAKES == FORWARD:
        tl.store(out + at, (own * power).to(out.dtype.element_ty), mask=inside)
    else:
        g = tl.load(gradient + at, mask=inside, other=0.0).to(tl.float32)
        if MAKES == SHARES:
            tl.store(shared + at, g * own * power / s, mask=inside)
        else:
            total = _sum_within(shared + at, row, column, inside, H, W, C, REACH, False)
            tl.store(out + at, (g * power - 2 * alpha * BETA * own * total).to(out.dtype.element_ty), mask=inside)


@triton.jit
def _keep(key, out, skipped, count, least, SIZE: tl.constexpr):
    """Compare 16 bits of the Philox stream of a key with `least`, those that numpy would give out at the same place."""
    i = tl.program_id(0) * SIZE + tl.arange(0, SIZE)
    at = i.to(tl.uint64) + skipped
    k0, k1 = tl.load(key).to(tl.uint64, bitcast=True), tl.load(key + 1).to(tl.uint64, bitcast=True)
    c0 = at // 16 + 1  # Why 1: numpy counts before it draws
    c1 = c0 * 0
    c2, c3 = c1, c1
    m0, m1 = c1 + M0, c1 + M1
    for _ in tl.static_range(10):
        high0, low0, high1, low1 = tl.umulhi(m0, c0), m0 * c0, tl.umulhi(m1, c2), m1 * c2
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = k0 + W0, k1 + W1
    word = (at // 4) % 4
    drawn = tl.where(word == 0, c0, tl.where(word == 1, c1, tl.where(word == 2, c2, c3)))
    tl.store(out + i, ((drawn >> (at % 4 * 16)) & 0xFFFF).to(tl.int32) >= least, mask=i < count)


def normalise_across(
    x: Tensor, gradient: Tensor | None, rows: int, maps: int, reach: int, k: float, alpha: float, beta: float
) -> Tensor:
    """Return x * (k + alpha * energy)^-beta of `rows` lines of `maps` activities, or the gradient to x if one is given.

    The energy is the sum of the squares of the maps within `reach` in the same line. x lies in memory as these lines.
    """
    lanes = triton.next_power_of_2(maps)
    how = {"BETA": beta, "REACH": reach, "LINES": max(1, TILE // lanes), "MAPS": lanes}
    grid = (triton.cdiv(rows, how["LINES"]),)
    return _there_or_back(_across, grid, x, gradient, (rows, maps, k, alpha, 0), how)


def normalise_within(
    x: Tensor, gradient: Tensor | None, N: int, H: int, W: int, C: int, reach: int, k: float, alpha: float, beta: float
) -> Tensor:
    """Return x * (k + alpha * energy)^-beta, the energy being that of the pixels of the same map within `reach`.

    Or the gradient to x if one is given. x lies in memory as (N, H, W, C).
    """
    maps = min(128, triton.next_power_of_2(C))
    how = {"BETA": beta, "REACH": reach, "PIXELS": TILE // maps, "MAPS": maps}
    grid = (triton.cdiv(N * H * W, how["PIXELS"]), triton.cdiv(C, maps))
    return _there_or_back(_within, grid, x, gradient, (N * H * W, H, W, C, k, alpha), how)


def _there_or_back(
    kernel: triton.JITFunction, grid: tuple[int, ...], x: Tensor, gradient: Tensor | None, sizes: tuple, how: dict
) -> Tensor:
    out = torch.empty_like(x)
    if gradient is None:
        kernel[grid](x, x, x, out, *sizes, MAKES=FORWARD, **how)
        return out
    shared = torch.empty_like(x, dtype=torch.float32)
    for makes in (SHARES, BACKWARD):
        kernel[grid](x, gradient, shared, out, *sizes, MAKES=makes, **how)
    return out


def draws_at_least(key: Tensor, skipped: int, shape: tuple[int, ...], least: int) -> Tensor:
    """Return which draws of 16 bits are at least `least`: those of numpy's Philox stream of a key, after `skipped` others.

    `key` (2,) has the lower and the upper 64 bits, int64, on the device of the result.
    """
    out = torch.empty(shape, dtype=torch.bool, device=key.device)
    _keep[(triton.cdiv(out.numel(), SINGLE),)](key, out, skipped, out.numel(), least, SIZE=SINGLE)
    return out


@lru_cache(1)
def why_not() -> str | None:
    """Return why the kernels do not work on this machine's device, in a line, or None where they do."""
    try:
        ones = torch.ones(1, 8, 1, 1, device="cuda")
        normalise_across(ones, None, 1, 8, 2, 2.0, 1e-4, 0.75).cpu()
        return None
    # Why all: whatever stops Triton's compiler, from a missing header to an old driver, comes as an exception of its own.
    except Exception as error:
        return (str(error).strip().splitlines() or [type(error).__name__])[0]
