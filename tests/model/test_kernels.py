"""The compiled normalisations against the formulas in float64, and what happens without a compiler."""

import pytest
import torch

from alexnet.model import cifar, kernels, layers
from alexnet.model.kernels import build
from alexnet.model.presets import MapNorm, ResponseNorm

NORMALISATIONS = {
    "response": lambda x: layers.response_normalise(x, ResponseNorm(alpha_per_window=True)),
    "response, columns merged": lambda x: layers.response_normalise(x, ResponseNorm(size=3), groups=2),
    "another power": lambda x: layers.response_normalise(x, ResponseNorm(beta=1.3)),
    "the window of the nets of CIFAR-10": lambda x: layers.response_normalise(x, cifar.NORM),
    "within maps": lambda x: layers.normalise_within_maps(x, MapNorm()),
    "within maps, another window": lambda x: layers.normalise_within_maps(x, MapNorm(size=7, alpha=0.1)),
}


@pytest.fixture
def switched_on():
    """The kernels, switched off afterwards."""
    if not kernels.use(True):
        pytest.skip(f"nothing can be compiled here: {kernels.why_not()}")
    yield
    kernels.use(False)


def there_and_back(normalise, x, gradient):
    """What a normalisation makes of x, and the gradient to x."""
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    y = normalise(x)
    y.backward(gradient)
    return y.detach(), x.grad


# Images, maps, and pixels that fill the kernels' blocks of 32 or do not; the last maps are smaller than their windows.
SHAPES = [(5, 8, 10, 10), (3, 70, 5, 9), (2, 32, 8, 4), (2, 36, 2, 3)]


@pytest.fixture(params=SHAPES)
def maps(request):
    """Signed activities as raw pixels produce them, and a gradient."""
    draws = torch.randn(2, *request.param, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return [half.contiguous(memory_format=torch.channels_last) for half in (draws[0] * 200, draws[1])]


@pytest.mark.parametrize("name", NORMALISATIONS)
def test_kernels_are_the_formulas_in_fp32(switched_on, maps, name):
    """float64 takes the plain path, which test_layers.py tests; bounds are some ulps of the largest value."""
    normalise = NORMALISATIONS[name]
    exact = there_and_back(normalise, *maps)
    found = there_and_back(normalise, *(tensor.float() for tensor in maps))
    for own, expected in zip(found, exact, strict=True):
        assert own.stride() == expected.stride()
        torch.testing.assert_close(own.double(), expected, rtol=2e-6, atol=1e-6 * expected.abs().max().item())


@pytest.mark.parametrize("name", ["response", "within maps"])
def test_in_bf16_only_what_goes_in_and_comes_out_is_rounded(switched_on, maps, name):
    """Half an ulp of bf16, 2^-8, beside the fp32 arithmetic on the same values: squares are summed in fp32."""
    normalise, (x, gradient) = NORMALISATIONS[name], (tensor.bfloat16() for tensor in maps)
    exact = there_and_back(normalise, x.double(), gradient.double())
    for own, expected in zip(there_and_back(normalise, x, gradient), exact, strict=True):
        assert own.dtype == torch.bfloat16
        torch.testing.assert_close(own.double(), expected, rtol=2**-8 * 1.001, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", NORMALISATIONS)
def test_a_part_of_a_batch_has_the_values_of_the_whole_bit_for_bit(switched_on, maps, name, dtype):
    x, gradient = (tensor.to(dtype) for tensor in maps)
    whole, part = (there_and_back(NORMALISATIONS[name], x[i:], gradient[i:]) for i in (0, 1))
    assert all(torch.equal(a[1:], b) for a, b in zip(whole, part, strict=True))


@pytest.mark.parametrize("threads", [1, 2])
def test_the_number_of_threads_changes_no_bit(switched_on, maps, threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = [y for name in NORMALISATIONS for y in there_and_back(NORMALISATIONS[name], *(m.float() for m in maps))]
    finally:
        torch.set_num_threads(before)
    expected = [y for name in NORMALISATIONS for y in there_and_back(NORMALISATIONS[name], *(m.float() for m in maps))]
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_no_number_stays_none(switched_on, dtype):
    x = torch.ones(1, 8, 3, 3, dtype=dtype).to(memory_format=torch.channels_last)
    x[0, 3, 1, 1] = torch.nan
    for name in ("response", "within maps"):
        y = NORMALISATIONS[name](x)
        assert y[0, 3, 1, 1].isnan()
        assert not y[0, 7, 0, 0].isnan() or name == "within maps"


def test_it_is_off_by_default(maps):
    assert not kernels.applies(maps[0].float(), 5)


def test_what_it_cannot_do_is_left_to_the_plain_path(switched_on, maps):
    x = maps[0].float()
    assert kernels.applies(x, 5)
    assert not kernels.applies(x, 4)  # an even window is not the same from both sides
    assert not kernels.applies(x.contiguous(), 5)
    assert not kernels.applies(x.double(), 5)
    assert not kernels.applies(x[:0], 5)


def test_without_a_compiler_they_stay_off_and_say_why(monkeypatch):
    monkeypatch.setattr(build, "library", lambda: (None, "no C compiler cc"))
    assert not kernels.use(True)
    assert not kernels.is_on()
    assert kernels.why_not() == "no C compiler cc"


def test_a_cuda_device_needs_no_c_compiler(monkeypatch):
    """But Triton and a driver, and what is missing is said in a line."""
    monkeypatch.setattr(build, "library", lambda: (None, "no C compiler cc"))
    why = kernels.why_not("cuda")
    assert (why is None) if torch.cuda.is_available() else (why and "\n" not in why and why != "no C compiler cc")
