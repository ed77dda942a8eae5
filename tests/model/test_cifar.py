import typing

import numpy as np
import pytest
import torch

from alexnet.config import Activation, CifarNet, UserError
from alexnet.model import build, count_parameters
from alexnet.model.cifar import LocallyConnected2d
from alexnet.model.layers import activate


def params_19pct(side):
    """(3 conv, 1 fc) by hand: weights plus biases. Poolings round up: 32, 16, 8, 4 or 24, 12, 6, 3."""
    return 32 * 75 + 32, 32 * 800 + 32, 64 * 800 + 64, 10 * 64 * (side // 8) ** 2 + 10


def params_conv_local(side, maps3):
    """Locally connected layers have, at each place, 9 weights from every map below to each of theirs, and as many biases."""
    places = (side // 4) ** 2
    local3, local4 = places * (maps3 * 9 * 64 + maps3), places * (32 * 9 * maps3 + 32)
    return 64 * 75 + 64, 64 * 1600 + 64, local3, local4, 10 * 32 * places + 10


@pytest.mark.parametrize(
    ("topology", "side", "layers", "total"),
    [
        ("19pct", 32, params_19pct(32), 89_578),
        ("conv-local-13pct", 32, params_conv_local(32, 32), 1_901_386),
        ("conv-local-13pct", 24, params_conv_local(24, 32), 1_116_490),
        ("conv-local-11pct", 24, params_conv_local(24, 64), 2_112_970),
    ],
)
def test_parameters_are_those_of_the_2012_files(topology, side, layers, total):
    net = build(CifarNet(topology=topology, image_side=side), seed=0)
    assert [count_parameters(layer) for layer in net.children()] == list(layers)
    assert count_parameters(net) == sum(layers) == total


@pytest.mark.parametrize("side", [32, 24])
@pytest.mark.parametrize("topology", ["19pct", "conv-local-13pct", "conv-local-11pct"])
def test_sides_shrink_by_ceiling_division(topology, side):
    net = build(CifarNet(topology=topology, image_side=side), seed=0)
    x = torch.zeros(2, 3, side, side)
    expected = {"conv1": side // 2, "conv2": side // 4} | (
        {"conv3": side // 8} if topology == "19pct" else {"local4": side // 4}
    )
    assert {name: net.features(x, name).shape[-1] for name in expected} == expected
    assert net(x).shape == (2, 10)


def test_features_are_of_any_layer_but_the_last():
    net = build(CifarNet(), seed=0)
    assert net.layer_names == ("conv1", "conv2", "conv3", "fc4")
    with pytest.raises(UserError, match="'fc4'"):
        net.features(torch.zeros(1, 3, 32, 32), "fc4")


def test_only_the_net_that_has_normalisations_can_do_without():
    with_norms, without = (build(CifarNet("conv-local-11pct", norms=n), seed=0) for n in (True, False))
    x = torch.full((1, 3, 32, 32), 100.0)
    with torch.no_grad():
        with_norms.conv1.bias.fill_(50)
        without.conv1.bias.fill_(50)
        assert not torch.allclose(with_norms(x), without(x))
    for norms in (True, False):
        with pytest.raises(UserError, match="19pct has no normalisations"):
            build(CifarNet(norms=norms), seed=0)


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


def normalise_by_loops(x_CHW):
    """Source 2012: divide by (1 + 0.001 / 9 * energy of nine maps)^0.75."""
    energy = [(x_CHW[max(0, c - 4) : c + 5] ** 2).sum(0) for c in range(len(x_CHW))]
    return x_CHW / (1 + 1e-3 / 9 * np.stack(energy)) ** 0.75


@pytest.mark.parametrize("side", [32, 24])
@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("topology", ["19pct", "conv-local-13pct", "conv-local-11pct"])
def test_a_net_computes_what_loops_in_float64_compute(topology, activation, side):
    """The reference applies the activation before max pooling, as the paper has it; ours after, which is the same."""
    config = CifarNet(topology=topology, activation=activation, first_sd=0.05, width=0.125, image_side=side)
    net = build(config, seed=1)
    norm = normalise_by_loops if topology == "conv-local-11pct" else lambda x: x
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.02)  # so that biases take part
    image = np.random.default_rng(0).normal(0, 60, (3, side, side))
    p = {name: value.double().numpy() for name, value in net.state_dict().items()}
    act = np.tanh if activation == "tanh" else lambda v: np.maximum(v, 0)
    x = norm(pool_by_loops(act(convolve_by_loops(image, p["conv1.weight"], p["conv1.bias"])), np.max))
    x = norm(act(convolve_by_loops(x, p["conv2.weight"], p["conv2.bias"])))
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
    relu, tanh = (build(CifarNet(topology=topology, activation=a), seed=3) for a in ("relu", "tanh"))
    for (name, ours), theirs in zip(relu.state_dict().items(), tanh.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), name
    other = build(CifarNet(topology=topology), seed=4)
    assert not torch.equal(relu.conv1.weight, other.conv1.weight)


def test_initial_sds_are_those_of_the_2012_files():
    net = build(CifarNet(topology="conv-local-13pct"), seed=0)
    expected = {"conv1": 1e-4, "conv2": 0.01, "local3": 0.04, "local4": 0.04, "fc5": 0.01}
    for name, sd in expected.items():
        weight = net.get_submodule(name).weight
        assert weight.std().item() == pytest.approx(sd, rel=4 / np.sqrt(2 * weight.numel())), name
        assert not net.get_submodule(name).bias.any(), name


def test_bf16_does_not_silence_a_saturated_tanh():
    """At 4 the derivative is 1 / cosh(4)^2 = 0.00134; from tanh rounded to bf16, which is 1, it would be 0."""
    x = torch.tensor([-4.0, 0.5, 4.0], dtype=torch.bfloat16, requires_grad=True)
    y = activate(x, "tanh")
    y.sum().backward()
    expected = 1 / np.cosh([-4.0, 0.5, 4.0]) ** 2
    assert y.dtype == torch.bfloat16
    np.testing.assert_allclose(x.grad.float().numpy(), expected, rtol=2**-8)


def test_in_bf16_logits_are_the_fp32_products_of_the_last_layer():
    """Rounded to bf16 the ten classes of some images tie at the top; in fp32 none do."""
    net = build(CifarNet(first_sd=0.01), seed=0).eval()
    with torch.no_grad():
        net.fc4.weight[1:] = net.fc4.weight[0] + 1e-6 * torch.randn(9, 1024, generator=torch.Generator().manual_seed(1))
    x = torch.randn(16, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 60
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        logits, hidden = net(x), net.features(x, "conv3").flatten(1)
        short = torch.nn.functional.linear(hidden, net.fc4.weight, net.fc4.bias)
    expected = hidden.double() @ net.fc4.weight.double().T + net.fc4.bias.double()
    torch.testing.assert_close(logits.double(), expected, rtol=1e-6, atol=1e-6 * expected.abs().max().item())
    assert (logits.dtype, short.dtype) == (torch.float32, torch.bfloat16)
    assert ((short == short.amax(1, keepdim=True)).sum(1) > 1).any()
    assert ((logits == logits.amax(1, keepdim=True)).sum(1) == 1).all()


def test_a_plain_state_has_the_names_of_the_layers_and_is_refused_where_it_does_not_fit():
    net, other = build(CifarNet(), seed=0), build(CifarNet(), seed=1)
    assert list(net.plain_state()) == [f"{name}.{kind}" for name in net.layer_names for kind in ("weight", "bias")]
    velocities = {parameter: torch.zeros_like(parameter) for parameter in net.parameters()}
    net.load_plain_state(other.plain_state(), into=velocities.get)
    assert torch.equal(net.plain_state(of=velocities.get)["conv2.weight"], other.conv2.weight)
    before = {key: value.clone() for key, value in net.plain_state().items()}
    with pytest.raises(ValueError, match=r"fc4.weight has shape \(10, 576\), the net has \(10, 1024\)"):
        net.load_plain_state(build(CifarNet(image_side=24), seed=1).plain_state())
    assert all(torch.equal(value, before[key]) for key, value in net.plain_state().items())


def test_activations_are_their_formulas():
    x = np.array([-3.0, -0.5, 0.0, 0.5, 3.0])
    formulas = {
        "relu": np.maximum(x, 0),
        "tanh": np.tanh(x),
        "elu": np.where(x > 0, x, np.exp(x) - 1),
        "leaky_relu": np.where(x > 0, x, 0.01 * x),
        "softplus": np.log(1 + np.exp(x)),
        "abs-tanh": np.abs(np.tanh(x)),
        "sigmoid": 1 / (1 + np.exp(-x)),
    }
    assert tuple(formulas) == typing.get_args(Activation)
    for name, expected in formulas.items():
        np.testing.assert_allclose(activate(torch.from_numpy(x.copy()), name).numpy(), expected, rtol=1e-12, atol=1e-12)


def test_constants_and_poolings_can_be_others_and_the_2012_files_are_the_default():
    x = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 60
    outputs = {}
    for words in ({}, {"norm_alpha": 1e-3, "norm_beta": 0.75}, {"norm_beta": 0.25}, {"pooling": "average"}):
        net = build(CifarNet("conv-local-11pct", first_sd=0.1, **words), seed=0)
        with torch.no_grad():
            outputs[str(words)] = net.features(x, "local4")
    usual, same, *others = outputs.values()
    assert torch.equal(usual, same)
    assert not any(torch.allclose(usual, other) for other in others)
    with pytest.raises(UserError, match="has no normalisations"):
        build(CifarNet(norm_beta=0.5), seed=0)
