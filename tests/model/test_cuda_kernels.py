"""The kernels in Triton against the formulas in float64: on a CUDA device, or else in Triton's interpreter."""

import numpy as np
import pytest
import torch

from alexnet import randomness
from alexnet.model import layers
from alexnet.model.presets import MapNorm, ResponseNorm

cuda = pytest.importorskip("alexnet.model.kernels.cuda", reason="Triton comes with torch's builds for CUDA")

ON_DEVICE = torch.cuda.is_available()
DEVICE = "cuda" if ON_DEVICE else "cpu"
BF16 = 2.0 ** (-8 if ON_DEVICE else -7)  # half an ulp; the interpreter cuts off where a device rounds
# Images, maps, pixels, and parts of the maps that are columns; more than one block of 1024, and the last one not full.
SHAPES = [((2, 8, 9, 10), 1), ((3, 36, 2, 5), 2), ((1, 32, 1, 4), 1)]


@pytest.fixture(params=SHAPES, ids=str)
def maps(request):
    """Signed activities as raw pixels produce them, a gradient, and the number of columns."""
    shape, groups = request.param
    draws = torch.randn(2, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return *(half.contiguous(memory_format=torch.channels_last) for half in (draws[0] * 200, draws[1])), groups


def across(x, gradient, groups, norm):
    N, C, H, W = x.shape
    size = norm.size // 2, norm.k, norm.alpha, norm.beta
    return cuda.normalise_across(x, gradient, N * H * W * groups, C // groups, *size)


def within(x, gradient, groups, norm):
    N, C, H, W = x.shape
    return cuda.normalise_within(x, gradient, N, H, W, C, norm.size // 2, norm.k, norm.alpha / norm.size**2, norm.beta)


CASES = {
    "response": (across, layers.response_normalise, ResponseNorm()),
    "response, another power": (across, layers.response_normalise, ResponseNorm(beta=1.3, size=3)),
    "within maps": (within, lambda x, norm, groups: layers.normalise_within_maps(x, norm), MapNorm()),
    "within maps, another window": (
        within,
        lambda x, norm, groups: layers.normalise_within_maps(x, norm),
        MapNorm(size=7, alpha=0.1),
    ),
}


@pytest.mark.parametrize(
    ("name", "dtype"),
    [*((name, torch.float32) for name in CASES), ("response", torch.bfloat16), ("within maps", torch.bfloat16)],
)
def test_they_are_the_formulas(maps, name, dtype):
    """Bounds: some ulps of the largest value in fp32; in bf16 what comes out is rounded, and nothing else."""
    kernel, formula, norm = CASES[name]
    x, gradient, groups = maps[0].to(dtype), maps[1].to(dtype), maps[2]
    exact = x.double().requires_grad_()
    y = formula(exact, norm, groups)
    y.backward(gradient.double())
    found = (kernel(x.to(DEVICE), given, groups, norm) for given in (None, gradient.to(DEVICE)))
    for own, expected in zip(found, (y.detach(), exact.grad), strict=True):
        assert own.dtype == dtype
        assert own.stride() == x.stride()
        rtol = 2e-6 if dtype == torch.float32 else BF16 * 1.001
        torch.testing.assert_close(own.double().cpu(), expected, rtol=rtol, atol=1e-6 * expected.abs().max().item())


def test_what_is_no_number_stays_none():
    x = torch.ones(1, 8, 3, 3).to(memory_format=torch.channels_last)
    x[0, 3, 1, 1] = torch.nan
    y = across(x.to(DEVICE), None, 1, ResponseNorm()).cpu()
    assert y[0, 3, 1, 1].isnan()
    assert y[0, 5, 1, 1].isnan()  # a neighbour within two maps
    assert not y[0, 6, 1, 1].isnan()
    assert not y[0, 3, 0, 0].isnan()


@pytest.mark.parametrize("first", [0, 3])
def test_draws_are_those_of_the_cpu(first):
    """Philox in Triton against numpy's; a part of a batch begins anywhere among four numbers of 64 bits."""
    at, shape, purpose = layers.StepKey(3, 2, 5, first_image=first), (5, 37), "dropout/fc6/a"
    halves = np.frombuffer(randomness.key(3, purpose, 2, 5).to_bytes(16, "little"), "<i8").copy()
    kept = cuda.draws_at_least(torch.from_numpy(halves).to(DEVICE), first * 37, shape, 2**15)
    assert torch.equal(kept.cpu(), layers.dropout_mask(at, "fc6", "a", shape, 0.5))
