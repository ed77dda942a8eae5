import json
import subprocess
import sys
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from model.nets import images, on_meta, small

from alexnet.config import CifarNet, ColumnNet, UserError, config_hash, from_dict
from alexnet.model import build, image_side_of, label, layers_of, num_columns_of
from alexnet.model.presets import (
    ABLATIONS,
    LAYERS,
    REMOVABLE,
    ConvLayer,
    NetConfig,
    ResponseNorm,
    count_neurons,
    one_column,
    paper,
    sides,
    source2012,
    weight_shapes,
    with_classes,
    with_sixth_layer,
    with_width,
    without_exchange,
    without_layer,
    without_overlap,
)

PRESETS = {"paper": paper(), "source2012": source2012()}
CONFIGS = {
    f"{preset}, {name}": change(config)
    for preset, config in PRESETS.items()
    for name, change in {"base": lambda config: config, **ABLATIONS}.items()
}


def count(net):
    return sum(parameter.numel() for parameter in net.parameters())


def window_sum(x, axis, size, groups=1):
    """The sum over neighbours along an axis by slices, within each part of it."""
    parts = []
    for part in np.split(x, groups, axis):
        pad = [(0, 0)] * x.ndim
        pad[axis] = (size // 2, size // 2)
        padded = np.pad(part, pad)
        parts.append(sum(np.take(padded, range(d, d + part.shape[axis]), axis) for d in range(size)))
    return np.concatenate(parts, axis)


def correlate(x_CHW, weight, bias, stride, padding):
    """A convolution by loops over places, with zeros wherever a window leaves the image."""
    (_, H, W), k = x_CHW.shape, weight.shape[-1]
    out_h, out_w = (1 + -(-(2 * padding + side - k) // stride) for side in (H, W))
    padded = np.pad(x_CHW, ((0, 0), (padding, padding + k), (padding, padding + k)))
    out = np.empty((len(weight), out_h, out_w))
    for i, j in np.ndindex(out_h, out_w):
        window = padded[:, i * stride : i * stride + k, j * stride : j * stride + k]
        out[:, i, j] = np.tensordot(weight, window, 3) + bias
    return out


def pool(x_CHW):
    out = np.empty((len(x_CHW), *(1 + -(-(side - 3) // 2) for side in x_CHW.shape[1:])))
    for i, j in np.ndindex(*out.shape[1:]):
        out[:, i, j] = x_CHW[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3].max((1, 2))
    return out


def relu(x):
    return np.maximum(x, 0)


def layer1_and_2(x, preset, number):
    """What follows the first two convolutions, column by column: written from the paper and from layers-145.cfg."""
    if preset == "paper":
        x = relu(x)
        return pool(x / (2 + 1e-4 * window_sum(x**2, 0, 5)) ** 0.75)
    if number == 1:
        return relu(pool(x / (2 + 1e-4 / 5 * window_sum(x**2, 0, 5)) ** 0.75))
    x = relu(x)
    x = x / (2 + 1e-4 / 5 * window_sum(x**2, 0, 5)) ** 0.75
    return pool(x / (1 + 1e-3 / 25 * window_sum(window_sum(x**2, 1, 5), 2, 5)) ** 0.75)


def forward_by_loops(image, p, preset):
    """The test-time logits of one image."""

    def conv(name, letter, x, stride=1, padding=1):
        return correlate(x, p[f"columns.{letter}.{name}.weight"], p[f"columns.{letter}.{name}.bias"], stride, padding)

    def full(name, x):
        return [0.5 * relu(p[f"columns.{c}.{name}.weight"] @ x + p[f"columns.{c}.{name}.bias"]) for c in "ab"]

    first = [layer1_and_2(conv("conv1", c, image, stride=4, padding=0), preset, 1) for c in "ab"]
    second = [layer1_and_2(conv("conv2", c, x, padding=2), preset, 2) for c, x in zip("ab", first, strict=True)]
    third = [relu(conv("conv3", c, np.concatenate(second))) for c in "ab"]
    fourth = [relu(conv("conv4", c, x)) for c, x in zip("ab", third, strict=True)]
    fifth = [pool(relu(conv("conv5", c, x))) for c, x in zip("ab", fourth, strict=True)]
    sixth = full("fc6", np.concatenate(fifth).ravel())
    seventh = full("fc7", np.concatenate(sixth))
    products = [p[f"columns.{c}.fc8.weight"] @ x for c, x in zip("ab", seventh, strict=True)]
    return sum(products) + p["columns.a.fc8.bias"]


@pytest.mark.parametrize("preset", PRESETS)
def test_a_net_computes_what_loops_in_float64_compute(preset):
    net = build(small(PRESETS[preset], side=67), seed=2).double().eval()
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            parameter.add_(0.02 if name.endswith("bias") else 0)  # so that every bias takes part
        x = images(1, side=67) * 20  # so that normalisation bites
        logits = net(x)[0].numpy()
    p = {name: value.numpy() for name, value in net.state_dict().items()}
    np.testing.assert_allclose(logits, forward_by_loops(x[0].numpy(), p, preset), rtol=1e-9)


def test_half_width_is_half_of_every_count_and_sds_grow_where_the_fan_in_halves():
    half = with_width(source2012(), 0.5)
    assert [getattr(half, name).kernels for name in LAYERS[:5]] == [24, 64, 96, 96, 64]
    assert (half.fc6.units, half.fc7.units, half.fc8.units) == (1024, 1024, 1000)
    grown = [getattr(half, name).sd / getattr(source2012(), name).sd for name in LAYERS]
    assert grown == pytest.approx([1.0] + [2**0.5] * 8)
    net = on_meta(half)
    assert net.columns.a.conv3.weight.shape == (96, 128, 3, 3)
    assert net.columns.b.fc6.weight.shape == (1024, 128 * 36)


def test_one_column_is_145_half():
    config = one_column(source2012())
    assert [getattr(config, name).kernels for name in LAYERS[:5]] == [48, 128, 192, 192, 256]
    assert (config.fc6.units, config.fc7.units) == (4096, 4096)
    assert count(on_meta(config)) == 59_798_312
    assert {**asdict(config.conv3)} == {**asdict(source2012().conv3)}
    with pytest.raises(ValueError, match=r"`columns` \(=1\)"):
        without_exchange(config)


@pytest.mark.parametrize("preset", PRESETS)
def test_148_removes_every_normalisation_and_nothing_else(preset):
    config = ABLATIONS["no-norm"](PRESETS[preset])
    assert not any("norm" in getattr(config, name).then for name in LAYERS[:6])
    assert count(on_meta(config)) == count(on_meta(PRESETS[preset]))
    expected = {"paper": ["activation pool"] * 2, "source2012": ["pool activation", "activation pool"]}
    assert [config.conv1.then, config.conv2.then] == expected[preset]


def test_147_has_windows_that_touch_and_ends_in_the_same_six_pixels():
    config = without_overlap(source2012())
    expected = {"conv1": 55, "pool1": 28, "conv2": 26, "pool2": 13, "conv3": 13, "conv4": 13, "conv5": 11, "pool5": 6}
    assert sides(config) == expected
    assert (config.pooling.side, config.pooling.stride) == (2, 2)
    assert count(on_meta(config)) == 60_965_224


def test_150_has_columns_that_never_meet_before_the_logits():
    config = without_exchange(source2012())
    assert (config.conv2.kernels, config.fc6.units, config.fc7.units, config.shared) == (160, 4096, 2048, ())
    assert on_meta(config).columns.a.fc7.weight.shape == (2048, 4096)
    net = build(small(config), seed=0).eval()
    x = images(1).float()
    with torch.no_grad():
        before = net.features(x, "fc7").chunk(2, dim=1)
        net.columns.b.conv1.weight.mul_(3)
        after = net.features(x, "fc7").chunk(2, dim=1)
    assert torch.equal(before[0], after[0])
    assert not torch.equal(before[1], after[1])


def test_in_the_2012_source_layer_1_is_normalised_before_its_relu_and_layer_2_twice():
    config = source2012()
    assert config.conv1.then == "norm pool activation"
    assert config.conv2.then == "activation norm map_norm pool"
    assert (config.map_norm.size, config.map_norm.k, config.map_norm.alpha, config.map_norm.beta) == (5, 1, 1e-3, 0.75)


@pytest.mark.parametrize("name", REMOVABLE)
def test_a_removed_layer_leaves_sides_and_exchange_as_they_were(name):
    config = without_layer(source2012(), name)
    assert name not in [layer for layer, _ in on_meta(config).columns.a.named_children()]
    assert {k: v for k, v in sides(source2012()).items() if k != name} == sides(config)
    moved = {"conv3": "conv4 fc6 fc7", "fc6": "conv3 fc7", "fc7": "conv3 fc6"}
    assert config.exchange == moved.get(name, "conv3 fc6 fc7")
    assert name not in count_neurons(config)


def test_the_sixth_layer_is_that_of_146():
    """layers-146-2009.cfg:258-269: 128 kernels a column, padding 1, sd 0.03, bias 1."""
    assert with_sixth_layer(source2012()).conv6 == ConvLayer(128, 3, padding=1, sd=0.03, bias=1.0)
    assert with_sixth_layer(without_overlap(source2012())).conv6.padding == 1
    with pytest.raises(UserError, match="write conv6 before no-conv5"):
        layers_of(ColumnNet(ablation="no-conv5 conv6"))
    assert layers_of(ColumnNet(ablation="conv6 no-conv5")).conv6.kernels == 128


def test_167_lacks_the_normalisations_of_layer_2_only():
    """Both of them, across maps and within."""
    config = ABLATIONS["no-norm2"](source2012())
    assert (config.conv1.then, config.conv2.then) == ("norm pool activation", "activation pool")
    assert replace(config, conv2=source2012().conv2) == source2012()


def test_the_unpublished_normalisation_can_be_removed_alone():
    config = ABLATIONS["no-map-norm"](source2012())
    assert config.conv2.then == "activation norm pool"
    assert replace(config, conv2=source2012().conv2) == source2012()


WALK = {
    "alpha-literal": {"norm": ResponseNorm()},
    "norm1-after-relu": {"conv1": ConvLayer(48, 11, stride=4, then="activation norm pool")},
    "no-map-norm": {"conv2": ConvLayer(128, 5, padding=2, bias=1.0, then="activation norm pool")},
    "sd-0.01": {
        "conv3": ConvLayer(192, 3, padding=1),
        "conv4": ConvLayer(192, 3, padding=1, bias=1.0),
        "conv5": ConvLayer(128, 3, padding=1, bias=1.0, then="pool activation"),
    },
}


def test_one_factor_at_a_time_leads_from_one_preset_to_the_other():
    """Each word changes what it says and nothing else. With all only conv5's order is left, which changes nothing."""
    for word, fields in WALK.items():
        assert ABLATIONS[word](source2012()) == replace(source2012(), **fields), word
    config = layers_of(ColumnNet(ablation=" ".join(WALK)))
    assert replace(config, conv5=paper().conv5) == paper()
    x, logits = images(1).float(), []
    for each in (config, paper()):
        with torch.no_grad():
            logits.append(build(small(each), seed=0).eval()(x))
    assert torch.equal(*logits)


def test_a_step_of_the_walk_keeps_what_another_ablation_removed():
    walked = layers_of(ColumnNet(ablation="no-norm norm1-after-relu sd-0.01", width=0.5))
    assert walked.conv1.then == "activation pool"
    assert walked.conv4.sd == pytest.approx(0.01 * 2**0.5)


def test_an_ablation_that_is_unknown_or_changes_nothing_is_refused():
    with pytest.raises(UserError, match="no ablation 'no-nrom'; did you mean 'no-norm'"):
        layers_of(ColumnNet(ablation="no-nrom"))
    for net in (ColumnNet("paper", ablation="no-map-norm"), ColumnNet(ablation="no-norm no-norm2")):
        with pytest.raises(UserError, match="changes nothing"):
            layers_of(net)
    with pytest.raises(UserError, match="`columns`"):
        layers_of(ColumnNet(ablation="one-column no-exchange"))


LABELS = {
    "source2012-full": ColumnNet(),
    "paper-half-no-norm-tanh": ColumnNet("paper", 0.5, 20, "no-norm tanh"),
    "source2012-eighth": ColumnNet(width=0.125),
    "source2012-width-0.3-one-column": ColumnNet(width=0.3, ablation="one-column"),
    "19pct-relu": CifarNet(),
    "conv-local-13pct-tanh-sd-0.001-24px": CifarNet("conv-local-13pct", "tanh", 1e-3, image_side=24),
    "conv-local-11pct-relu-no-norms-width-0.5": CifarNet("conv-local-11pct", width=0.5, norms=False),
}


def test_nets_have_readable_labels():
    assert {name: label(net) for name, net in LABELS.items()} == {name: name for name in LABELS}


def test_what_is_known_of_a_net_before_it_is_built():
    assert [image_side_of(net) for net in (ColumnNet(), CifarNet(), CifarNet(image_side=24))] == [224, 32, 24]
    assert [num_columns_of(net) for net in (ColumnNet(), ColumnNet(ablation="one-column"), CifarNet())] == [2, 1, 1]


def test_presets_need_no_torch():
    code = "import sys, alexnet.model, alexnet.model.presets; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_sixth_layer_sees_the_pooled_maps_of_both_columns():
    config = with_classes(with_sixth_layer(source2012()), 10_184)
    net = on_meta(config).eval()
    assert net.columns.a.conv6.weight.shape == (128, 256, 3, 3)
    assert net.features(torch.empty(1, 3, 224, 224, device="meta"), "conv6").shape == (1, 256, 6, 6)
    assert net(torch.empty(1, 3, 224, 224, device="meta")).shape == (1, 10_184)


def test_ablations_compose_with_width_and_with_each_other():
    config = small(without_layer(without_layer(one_column(source2012()), "conv3"), "fc7"))
    net = build(config, seed=0).eval()
    assert net(images(1).float()).shape == (1, 5)
    assert list(dict(net.columns.a.named_children())) == ["conv1", "conv2", "conv4", "conv5", "fc6", "fc8"]


def test_tanh_takes_the_place_of_every_relu():
    net = build(small(ABLATIONS["tanh"](ABLATIONS["no-norm"](paper()))), seed=0).eval()
    x = images(2).float()
    for layer in ("conv1", "conv3"):  # whose biases begin at 0
        outputs = net.features(x, layer)
        assert outputs.min() < 0
    for layer in net.config.layer_names[:-1]:
        assert net.features(x, layer).abs().max() <= 1


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_survives_json(name):
    """A run's manifest holds its config as JSON."""
    config = CONFIGS[name]
    assert from_dict(NetConfig, json.loads(json.dumps(asdict(config)))) == config
    assert config_hash(config) == config_hash(from_dict(NetConfig, asdict(config)))


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_shapes_by_arithmetic_are_those_of_the_net(config):
    """Chapters count on the config alone; a net of merged columns has what they count."""
    net = on_meta(config, names=(config.column_names,))
    weights = {name.split(".")[-2]: weight for name, weight in net.named_parameters() if name.endswith("weight")}
    assert weight_shapes(config) == {name: weight.shape for name, weight in weights.items()}


def test_biases_of_one_can_begin_at_another_value_and_inputs_be_divided():
    config = ABLATIONS["bias-0.1"](source2012())
    biases = {name: getattr(config, name).bias for name in config.layer_names}
    assert biases == {name: {1: 0.1, 0: 0}[getattr(source2012(), name).bias] for name in config.layer_names}
    whole, divided = (
        build(small(change(paper())), seed=0).eval() for change in (lambda net: net, ABLATIONS["inputs-over-60"])
    )
    x = torch.randn(2, 3, whole.image_side, whole.image_side, generator=torch.Generator().manual_seed(0)) * 60
    with torch.no_grad():
        torch.testing.assert_close(divided(x), whole(x / 60))
