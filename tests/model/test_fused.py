"""The compiled normalisations against the formulas in float64, and what happens without a compiler."""

import pytest
import torch

from alexnet import compiled
from alexnet.config import CifarNet, ColumnNet
from alexnet.model import fused, layers
from alexnet.model.presets import MapNorm, ResponseNorm
from alexnet.training.compiling import compile_loops
from alexnet.training.crew import Crew

# Of 2 images, and 5 in pieces of 2 or of 200 pixels: whole pieces and one that is not.
NORMALISATIONS = {
    "response": lambda x: layers.response_normalise(x, ResponseNorm(alpha_per_window=True)),
    "response, columns merged": lambda x: layers.response_normalise(x, ResponseNorm(size=3), groups=2),
    "another power": lambda x: layers.response_normalise(x, ResponseNorm(beta=1.3)),
    "within maps": lambda x: layers.normalise_within_maps(x, MapNorm()),
}


@pytest.fixture
def loops(monkeypatch):
    """The compiled loops, in small pieces, switched off afterwards."""
    monkeypatch.setattr(fused, "PIECE", 1600)
    fused._kernels.cache_clear()
    if not compiled.use(True):
        pytest.skip(f"nothing can be compiled here: {compiled.why_not()}")
    yield
    compiled.use(False)
    fused._kernels.cache_clear()


def there_and_back(normalise, x, gradient):
    """What a normalisation makes of x, and the gradient to x."""
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    y = normalise(x)
    y.backward(gradient)
    return y.detach(), x.grad


@pytest.fixture
def maps():
    """Signed activities (5, 8, 10, 10) as raw pixels produce them, and a gradient."""
    draws = torch.randn(2, 5, 8, 10, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return [half.contiguous(memory_format=torch.channels_last) for half in (draws[0] * 200, draws[1])]


@pytest.mark.parametrize("name", NORMALISATIONS)
def test_compiled_loops_are_the_formulas_in_fp32(loops, maps, name):
    """float64 takes the plain path, which test_layers.py holds against loops; bounds are some ulps of the largest value."""
    normalise = NORMALISATIONS[name]
    exact = there_and_back(normalise, *maps)
    found = there_and_back(normalise, *(tensor.float() for tensor in maps))
    for own, expected in zip(found, exact, strict=True):
        assert own.stride() == expected.stride()
        torch.testing.assert_close(own.double(), expected, rtol=2e-6, atol=1e-6 * expected.abs().max().item())


def test_in_bf16_only_what_goes_in_and_comes_out_is_rounded(loops, maps):
    """Half an ulp of bf16, 2^-8, beside the fp32 arithmetic on the same values: squares are summed in fp32."""
    normalise, (x, gradient) = NORMALISATIONS["response"], (tensor.bfloat16() for tensor in maps)
    exact = there_and_back(normalise, x.double(), gradient.double())
    for own, expected in zip(there_and_back(normalise, x, gradient), exact, strict=True):
        assert own.dtype == torch.bfloat16
        torch.testing.assert_close(own.double(), expected, rtol=2**-8 * 1.001, atol=1e-5)


def test_a_part_of_a_batch_has_the_values_of_the_whole_to_the_bit(loops, maps):
    x = maps[0].float()
    whole = NORMALISATIONS["response"](x)
    assert torch.equal(NORMALISATIONS["response"](x[1:4]), whole[1:4])


def test_it_is_off_by_default(maps):
    assert not fused.applies(maps[0].float(), 5)


def test_what_it_cannot_do_is_left_to_the_plain_path(loops, maps):
    x = maps[0].float()
    assert fused.applies(x, 5)
    assert not fused.applies(x, 4)  # an even window is not the same from both sides
    assert not fused.applies(x.contiguous(), 5)
    assert not fused.applies(x.double(), 5)
    assert not fused.applies(x[:0], 5)


def test_without_a_compiler_the_plain_path_is_taken_and_a_line_says_so(monkeypatch, capsys):
    monkeypatch.setattr(compiled, "why_not", lambda: "InvalidCxxCompiler: no compiler")
    assert not compile_loops(ColumnNet("source2012"), True, Crew())
    told = capsys.readouterr().err.splitlines()
    assert told[-1] == "not compiled, so the slower plain path is used: InvalidCxxCompiler: no compiler"
    assert not compiled.is_on()


@pytest.mark.parametrize("net", [CifarNet(), ColumnNet("source2012", ablation="no-norm")])
def test_nets_without_normalisation_compile_nothing(net, capsys):
    assert not compile_loops(net, True, Crew())
    assert capsys.readouterr().err == ""


def test_the_environment_can_switch_it_off(monkeypatch):
    monkeypatch.setenv("ALEXNET_COMPILE", "0")
    assert not compile_loops(ColumnNet("source2012"), True, Crew())
