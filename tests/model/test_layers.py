import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from alexnet.model import layers
from alexnet.model.layers import EdgeConv2d, GroupedLinear, LogitsLinear, StepKey, classic_dropout, dropout_mask, max_pool
from alexnet.model.presets import MapNorm, ResponseNorm, paper, source2012

PAPER, SOURCE = paper().norm, source2012().norm


def draw(*shape, seed=0, scale=1.0):
    """Signed normal values in float64."""
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * scale


def normalise_by_loops(x_NCHW, norm, groups):
    """Paper 3.3, one activity at a time."""
    x = x_NCHW.numpy()
    N, C, H, W = x.shape
    alpha = norm.alpha / norm.size if norm.alpha_per_window else norm.alpha
    out = np.empty_like(x)
    for n, c, i, j in np.ndindex(N, C, H, W):
        start = c // (C // groups) * (C // groups)
        first, last = max(start, c - norm.size // 2), min(start + C // groups, c - norm.size // 2 + norm.size)
        energy = sum(x[n, m, i, j] ** 2 for m in range(first, last))
        out[n, c, i, j] = x[n, c, i, j] / (norm.k + alpha * energy) ** norm.beta
    return out


def normalise_within_maps_by_loops(x_NCHW, norm):
    x = x_NCHW.numpy()
    N, C, H, W = x.shape
    before, after = norm.size // 2, norm.size - norm.size // 2
    out = np.empty_like(x)
    for n, c, i, j in np.ndindex(N, C, H, W):
        energy = (x[n, c, max(0, i - before) : i + after, max(0, j - before) : j + after] ** 2).sum()
        out[n, c, i, j] = x[n, c, i, j] / (norm.k + norm.alpha / norm.size**2 * energy) ** norm.beta
    return out


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("size", [1, 2, 4, 5, 9])
@pytest.mark.parametrize("per_window", [False, True])
def test_normalisation_across_maps_is_the_formula_one_activity_at_a_time(size, per_window, groups):
    """Signed values too, since the 2012 net normalises layer 1 before its ReLU; 9 maps are more than a column has."""
    norm = ResponseNorm(size=size, alpha_per_window=per_window)
    x = draw(2, 8, 3, 2, scale=200)
    np.testing.assert_allclose(layers.response_normalise(x, norm, groups), normalise_by_loops(x, norm, groups), rtol=1e-12)


def test_the_literal_reading_multiplies_the_plain_sum_and_the_2012_reading_divides_alpha_by_n():
    """Five neighbours of 200: k + alpha times 200,000 is 22, and 2 + 2e-5 times 200,000 is 6."""
    x = torch.full((1, 5, 1, 1), 200.0)
    assert layers.response_normalise(x, PAPER)[0, 2].item() == pytest.approx(200 / 22**0.75, rel=1e-6)
    assert layers.response_normalise(x, SOURCE)[0, 2].item() == pytest.approx(200 / 6**0.75, rel=1e-6)


@pytest.mark.parametrize("size", [4, 5])
def test_torch_has_the_2012_reading_and_the_literal_one_with_alpha_times_n(size):
    x = draw(2, 7, 4, 4, scale=200)
    ours = layers.response_normalise(x, ResponseNorm(size=size, alpha_per_window=True))
    torch.testing.assert_close(ours, nn.LocalResponseNorm(size, alpha=1e-4, beta=0.75, k=2.0)(x))
    literal = layers.response_normalise(x, ResponseNorm(size=size))
    torch.testing.assert_close(literal, nn.LocalResponseNorm(size, alpha=1e-4 * size, beta=0.75, k=2.0)(x))


@pytest.mark.parametrize(("norm", "peak"), [(PAPER, 200), (SOURCE, 447)])
def test_a_lone_unit_is_inhibited_by_itself_beyond_a_peak(norm, peak):
    """At sqrt(k / (alpha (2 beta - 1))), in units of activities that raw pixels produce."""
    x = torch.arange(1, 1000, dtype=torch.float64).view(-1, 1, 1, 1)
    assert layers.response_normalise(x, norm).argmax().item() + 1 == peak


def test_normalisation_of_one_column_ignores_the_other():
    x = draw(1, 8, 1, 1, scale=100)
    apart = torch.cat([layers.response_normalise(half, PAPER) for half in x.chunk(2, 1)], dim=1)
    torch.testing.assert_close(layers.response_normalise(x, PAPER, groups=2), apart)
    assert not torch.allclose(layers.response_normalise(x, PAPER), apart)


@pytest.mark.parametrize("size", [2, 3, 5])
def test_normalisation_within_maps_is_the_formula_with_zeros_outside(size):
    x = draw(2, 3, 4, 7, scale=200)
    norm = MapNorm(size=size)
    np.testing.assert_allclose(layers.normalise_within_maps(x, norm), normalise_within_maps_by_loops(x, norm), rtol=1e-12)


def test_alpha_within_maps_is_divided_by_the_window_also_at_the_border():
    """A corner sees 9 of 25 places: 1 + 1e-3 / 25 * 9 * 100 squared is 4.6."""
    corner = layers.normalise_within_maps(torch.full((1, 1, 9, 9), 100.0), MapNorm())[0, 0, 0, 0]
    assert corner.item() == pytest.approx(100 / 4.6**0.75, rel=1e-6)


NORMALISATIONS = {
    "paper": lambda x: layers.response_normalise(x, ResponseNorm(alpha=0.1)),
    "paper, after a ReLU": lambda x: layers.response_normalise(F.relu(x), ResponseNorm(alpha=0.1)),
    "2012, signed": lambda x: layers.response_normalise(x, ResponseNorm(alpha=0.5, alpha_per_window=True)),
    "even, columns merged": lambda x: layers.response_normalise(x, ResponseNorm(size=2, alpha=0.1), groups=2),
    "another beta": lambda x: layers.response_normalise(x, ResponseNorm(alpha=0.1, beta=1.3)),
    "within maps": lambda x: layers.normalise_within_maps(x, MapNorm(alpha=1.0)),
    "within maps, even": lambda x: layers.normalise_within_maps(x, MapNorm(size=4, alpha=1.0)),
    "2012, layer 2": lambda x: layers.normalise_within_maps(
        layers.response_normalise(F.relu(x), ResponseNorm(alpha=0.5, alpha_per_window=True)), MapNorm(alpha=1.0)
    ),
}


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", NORMALISATIONS)
def test_gradients_of_normalisation_are_right(name, memory):
    x = draw(2, 4, 3, 3).to(memory_format=memory).requires_grad_()
    assert torch.autograd.gradcheck(NORMALISATIONS[name], (x,))


@pytest.mark.parametrize("normalise", [NORMALISATIONS["paper"], NORMALISATIONS["within maps"]])
def test_the_layout_in_memory_changes_nothing(normalise):
    x = draw(5, 6, 4, 3)
    whole = normalise(x)
    last = normalise(x.to(memory_format=torch.channels_last))
    assert last.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(last, whole)
    torch.testing.assert_close(normalise(x.transpose(2, 3)), normalise(x.transpose(2, 3).contiguous()))


def test_squares_are_summed_in_fp32_under_bf16():
    """In bf16 a sum that has reached 256 no longer grows by ones."""
    x = draw(4, 48, 5, 5, scale=300).bfloat16().requires_grad_()
    wide = x.detach().float().requires_grad_()
    for normalise in (lambda x: layers.response_normalise(x, PAPER), lambda x: layers.normalise_within_maps(x, MapNorm())):
        expected = normalise(wide)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(normalise(x), expected.bfloat16())
            assert torch.equal(normalise(wide), expected)
        gradients = [torch.autograd.grad(normalise(v).sum(), v)[0] for v in (x, wide)]
        assert torch.equal(gradients[0], gradients[1].bfloat16())


def convolve_by_loops(x_NCHW, conv):
    """As the 2012 kernels: windows cover the image, and whatever lies outside is zero."""
    x, weight, bias = x_NCHW.numpy(), conv.weight.detach().numpy(), conv.bias.detach().numpy()
    (N, _, H, W), (maps, _, k, _) = x.shape, weight.shape
    s, p = conv.stride[0], conv.padding[0]
    out_h, out_w = (1 + int(np.ceil((2 * p + side - k) / s)) for side in (H, W))
    out = np.zeros((N, maps, out_h, out_w)) + bias[:, None, None]
    for i, j, di, dj in np.ndindex(out_h, out_w, k, k):
        y, z = i * s - p + di, j * s - p + dj
        if 0 <= y < H and 0 <= z < W:
            out[:, :, i, j] += x[:, :, y, z] @ weight[:, :, di, dj].T
    return out


@pytest.mark.parametrize(("side", "kernel", "stride", "padding"), [(12, 5, 4, 0), (9, 5, 4, 0), (8, 3, 2, 1), (6, 3, 1, 1)])
def test_a_convolution_covers_the_image_and_sees_zeros_beyond_its_edge(side, kernel, stride, padding):
    conv = EdgeConv2d(2, 3, kernel, stride, padding).double()
    x = draw(2, 2, side, side + 1)
    np.testing.assert_allclose(conv(x).detach(), convolve_by_loops(x, conv), rtol=1e-10, atol=1e-12)


def test_conv1_is_three_zeros_right_and_bottom_of_224_pixels():
    conv = EdgeConv2d(3, 2, 11, stride=4)
    x = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    expected = F.conv2d(F.pad(x, (0, 3, 0, 3)), conv.weight, conv.bias, stride=4)
    assert expected.shape[-2:] == (55, 55)
    assert torch.equal(conv(x), expected)
    assert F.conv2d(x, conv.weight, conv.bias, stride=4).shape[-1] == 54


def test_gradients_at_the_edges_of_convolution_and_pooling_are_right():
    conv = EdgeConv2d(2, 2, 3, stride=2).double()
    x = draw(1, 2, 6, 6).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x, weight: torch.func.functional_call(conv, {"weight": weight}, x), (x, conv.weight)
    )
    assert torch.autograd.gradcheck(lambda x: max_pool(x, 3, 2), (x,))
    assert torch.autograd.gradcheck(lambda x: max_pool(x, 2, 2), (draw(1, 2, 5, 5, seed=1).requires_grad_(),))


@pytest.mark.parametrize(
    ("side", "window", "out"), [(55, 3, 27), (27, 3, 13), (13, 3, 6), (55, 2, 28), (26, 2, 13), (11, 2, 6)]
)
def test_pooling_takes_the_largest_of_each_window_over_the_edge_too(side, window, out):
    x = draw(1, 2, side, side)
    pooled = max_pool(x, window, 2)
    assert pooled.shape == (1, 2, out, out)
    for i, j in np.ndindex(out, out):
        assert torch.equal(pooled[..., i, j], x[..., 2 * i : 2 * i + window, 2 * j : 2 * j + window].amax((2, 3)))


def test_a_grouped_fully_connected_layer_gives_each_column_its_own_input():
    layer = GroupedLinear(6, 4, groups=2)
    assert layer.weight.shape == (4, 3)
    x = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
    halves = [
        F.linear(x[:, 3 * g : 3 * g + 3], layer.weight[2 * g : 2 * g + 2], layer.bias[2 * g : 2 * g + 2]) for g in (0, 1)
    ]
    torch.testing.assert_close(layer(x), torch.cat(halves, dim=1))


@pytest.mark.parametrize(
    ("dtype", "found"), [(torch.bfloat16, torch.float32), (torch.float32, torch.float32), (torch.float64, torch.float64)]
)
def test_logits_are_never_shorter_than_fp32(dtype, found):
    layer = LogitsLinear(6, 4).to(dtype)
    x = draw(3, 6).to(dtype).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = layer(x)
    logits.sum().backward()
    assert logits.dtype == found
    assert (x.grad.dtype, layer.weight.grad.dtype) == (dtype, dtype)
    expected = x.double() @ layer.weight.double().T + layer.bias.double()
    torch.testing.assert_close(logits.double(), expected, rtol=1e-6, atol=1e-6)


def test_dropout_zeroes_and_does_not_rescale_in_training_and_halves_at_test_time():
    x = draw(4, 6).requires_grad_()
    kept = dropout_mask(StepKey(0, 0, 0), "fc6", "a", (4, 6), 0.5)
    assert torch.equal(classic_dropout(x, 0.5, kept), torch.where(kept, x, 0.0))
    assert torch.equal(classic_dropout(x, 0.5, None), x / 2)
    assert torch.equal(classic_dropout(x, 0.25, None), x * 0.75)
    assert torch.autograd.gradcheck(lambda x: classic_dropout(x, 0.5, kept), (x,))


def test_a_mask_can_be_drawn_again_and_is_another_at_every_step_layer_and_column():
    def mask(seed=0, epoch=0, step=0, layer="fc6", column="a"):
        return dropout_mask(StepKey(seed, epoch, step), layer, column, (8, 64), 0.5)

    assert torch.equal(mask(), mask())
    others = [mask(seed=1), mask(epoch=1), mask(step=1), mask(layer="fc7"), mask(column="b")]
    masks = torch.stack([mask(), *others]).flatten(1).float()
    agreement = (masks[:, None] == masks).float().mean(-1)
    assert ((agreement - torch.eye(6)) < 0.65).all()  # independent masks agree in half of the places, sd 0.022


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.8])
def test_a_mask_drops_the_given_share(probability):
    kept = dropout_mask(StepKey(0, 3, 7), "fc7", "b", (128, 2048), probability)
    assert kept.float().mean().item() == pytest.approx(1 - probability, abs=5 / np.sqrt(12 * kept.numel()))


def test_parts_of_a_batch_draw_their_own_rows_of_the_mask():
    whole = dropout_mask(StepKey(0, 0, 5), "fc6", "a", (10, 32), 0.5)
    for first, last in ((0, 4), (4, 10)):
        part = dropout_mask(StepKey(0, 0, 5, first_image=first), "fc6", "a", (last - first, 32), 0.5)
        assert torch.equal(part, whole[first:last])


def test_initial_weights_are_a_function_of_seed_layer_and_column():
    def weights(seed, name):
        layer = nn.Linear(50, 40)
        layers.initialise(layer.weight, layer.bias, 0.03, 1.0, seed, name)
        assert (layer.bias == 1).all()
        return layer.weight.detach()

    assert torch.equal(first := weights(0, "conv3/a"), weights(0, "conv3/a"))
    for other in (weights(1, "conv3/a"), weights(0, "conv3/b"), weights(0, "conv4/a")):
        assert not torch.equal(first, other)
    assert first.std().item() == pytest.approx(0.03, rel=4 / np.sqrt(2 * first.numel()))
    assert abs(first.mean().item()) < 4 * 0.03 / np.sqrt(first.numel())
