import numpy as np
import pytest
import torch

from alexnet.config import CifarNet
from alexnet.model.cifar import LocallyConnected2d, Tanh, build_cifar_net, count_parameters


def layers_19pct():
    """(3 conv, 1 fc) by hand: weights plus biases."""
    return 32 * 75 + 32, 32 * 800 + 32, 64 * 800 + 64, 10 * 64 * 4 * 4 + 10


def layers_conv_local():
    """Locally connected layers at 8x8 places: 64 kernels of 9 x 64 and of 9 x 32 values for each map, and 64 biases each."""
    return 64 * 75 + 64, 64 * 1600 + 64, 64 * (32 * 9 * 64 + 32), 64 * (32 * 9 * 32 + 32), 10 * 32 * 8 * 8 + 10


@pytest.mark.parametrize(
    ("topology", "layers", "total"),
    [("19pct", layers_19pct(), 89_578), ("conv-local-13pct", layers_conv_local(), 1_901_386)],
)
def test_parameters_are_those_of_the_2012_files(topology, layers, total):
    net = build_cifar_net(CifarNet(topology=topology), seed=0)
    counted = [count_parameters(layer) for layer in net.children() if count_parameters(layer)]
    assert counted == list(layers)
    assert count_parameters(net) == sum(layers) == total


def test_the_count_at_24_pixels_is_the_one_of_the_2012_file():
    """conv-local-13pct is documented with 1,116,490 parameters on 24x24 crops, where the local layers are 6x6."""
    local = [count_parameters(LocallyConnected2d(maps, 32, side=6)) for maps in (64, 32)]
    assert 4_864 + 102_464 + sum(local) + (10 * 32 * 6 * 6 + 10) == 1_116_490


@pytest.mark.parametrize("topology", ["19pct", "conv-local-13pct"])
def test_sides_shrink_by_ceiling_division(topology):
    net = build_cifar_net(CifarNet(topology=topology), seed=0)
    x, sides = torch.zeros(2, 3, 32, 32), {}
    for name, layer in net.named_children():
        x = layer(x)
        sides[name] = x.shape[-1]
    expected = {"pool1": 16, "pool2": 8} | ({"pool3": 4} if topology == "19pct" else {"local4": 8})
    assert {name: sides[name] for name in expected} == expected
    assert x.shape == (2, 10)


def convolve_by_loops(x_CHW, weight_OCKK, bias_O):
    """Zero-padded 'same' convolution in float64, one value at a time."""
    out_maps, _, k, _ = weight_OCKK.shape
    _, height, width = x_CHW.shape
    padded = np.pad(x_CHW, ((0, 0), (k // 2, k // 2), (k // 2, k // 2)))
    out = np.empty((out_maps, height, width))
    for o in range(out_maps):
        for i in range(height):
            for j in range(width):
                out[o, i, j] = (padded[:, i : i + k, j : j + k] * weight_OCKK[o]).sum() + bias_O[o]
    return out


def pool_by_loops(x_CHW, reduce):
    """3x3 windows with stride 2 that may run over the right and bottom edge; only pixels inside the image count."""
    maps, height, width = x_CHW.shape
    side_h, side_w = -(-(height - 3) // 2) + 1, -(-(width - 3) // 2) + 1
    out = np.empty((maps, side_h, side_w))
    for i in range(side_h):
        for j in range(side_w):
            out[:, i, j] = reduce(x_CHW[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3].reshape(maps, -1), axis=1)
    return out


def locally_connect_by_loops(x_CHW, weight_PTO, bias_P1O):
    """A kernel of its own at every place."""
    maps, height, width = x_CHW.shape
    padded = np.pad(x_CHW, ((0, 0), (1, 1), (1, 1)))
    out = np.empty((weight_PTO.shape[2], height, width))
    for i in range(height):
        for j in range(width):
            place = i * width + j
            for o in range(out.shape[0]):
                total = bias_P1O[place, 0, o]
                for di in range(3):
                    for dj in range(3):
                        for c in range(maps):
                            total += padded[c, i + di, j + dj] * weight_PTO[place, (3 * di + dj) * maps + c, o]
                out[o, i, j] = total
    return out


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("topology", ["19pct", "conv-local-13pct"])
def test_a_net_computes_what_loops_in_float64_compute(topology, activation):
    """The reference applies the activation before max pooling, as the paper has it; ours after, which is the same."""
    net = build_cifar_net(CifarNet(topology=topology, activation=activation, first_sd=0.01, width=0.125), seed=1)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.02)  # so that biases take part
    image = np.random.default_rng(0).normal(0, 60, (3, 32, 32))
    p = {name: value.double().numpy() for name, value in net.state_dict().items()}
    act = np.tanh if activation == "tanh" else lambda v: np.maximum(v, 0)
    x = pool_by_loops(act(convolve_by_loops(image, p["conv1.weight"], p["conv1.bias"])), np.max)
    x = act(convolve_by_loops(x, p["conv2.weight"], p["conv2.bias"]))
    if topology == "19pct":
        x = pool_by_loops(x, np.mean)
        x = pool_by_loops(act(convolve_by_loops(x, p["conv3.weight"], p["conv3.bias"])), np.mean)
        expected = p["fc4.weight"] @ x.ravel() + p["fc4.bias"]
    else:
        x = pool_by_loops(x, np.max)
        x = act(locally_connect_by_loops(x, p["local3.weight"], p["local3.bias"]))
        x = act(locally_connect_by_loops(x, p["local4.weight"], p["local4.bias"]))
        expected = p["fc5.weight"] @ x.ravel() + p["fc5.bias"]
    with torch.no_grad():
        logits = net(torch.from_numpy(image).float()[None])[0].double().numpy()
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


def test_the_gradient_of_the_locally_connected_layer_is_right():
    layer = LocallyConnected2d(2, 3, side=4).double()
    torch.nn.init.normal_(layer.weight, generator=torch.Generator().manual_seed(0))
    x = torch.randn(2, 2, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    weight, bias = layer.weight, layer.bias

    def outputs(x, weight, bias):
        return torch.func.functional_call(layer, {"weight": weight, "bias": bias}, (x,))

    assert torch.autograd.gradcheck(outputs, (x, weight, bias))


@pytest.mark.parametrize("topology", ["19pct", "conv-local-13pct"])
def test_relu_and_tanh_nets_of_a_seed_start_from_the_same_weights(topology):
    relu, tanh = (build_cifar_net(CifarNet(topology=topology, activation=a), seed=3) for a in ("relu", "tanh"))
    for (name, ours), theirs in zip(relu.state_dict().items(), tanh.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), name
    other = build_cifar_net(CifarNet(topology=topology), seed=4)
    assert not torch.equal(relu.conv1.weight, other.conv1.weight)


def test_initial_deviations_are_those_of_the_2012_files():
    net = build_cifar_net(CifarNet(topology="conv-local-13pct"), seed=0)
    expected = {"conv1": 1e-4, "conv2": 0.01, "local3": 0.04, "local4": 0.04, "fc5": 0.01}
    for name, deviation in expected.items():
        weight = net.get_submodule(name).weight
        assert weight.std().item() == pytest.approx(deviation, rel=4 / np.sqrt(2 * weight.numel())), name
        assert not net.get_submodule(name).bias.any(), name


def test_bf16_does_not_silence_a_saturated_tanh():
    """At 4 the derivative is 1 / cosh(4)^2 = 0.00134; from tanh rounded to bf16, which is 1, it would be 0."""
    x = torch.tensor([-4.0, 0.5, 4.0], dtype=torch.bfloat16, requires_grad=True)
    y = Tanh()(x)
    y.sum().backward()
    expected = 1 / np.cosh([-4.0, 0.5, 4.0]) ** 2
    assert y.dtype == torch.bfloat16
    np.testing.assert_allclose(x.grad.float().numpy(), expected, rtol=2**-8)
