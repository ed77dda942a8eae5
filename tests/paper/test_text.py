"""What the paper's text asserts of its architecture, one sentence a test, in its order; the numbers are those of the claims.

The nets here have shapes and no memory, except where a sentence is about values.
"""

from dataclasses import replace

import pytest
import torch

from alexnet.model.alexnet import AlexNet
from alexnet.model.layers import response_normalise
from alexnet.model.presets import count_neurons, one_column, paper, sides, source2012, with_sixth_layer, without_overlap
from alexnet.paper import get

PRESETS = (paper(), source2012())
LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")


def printed(claim, name):
    """The paper's numbers of this name in a claim, by layer."""
    return {value.subject: value.paper for value in get(claim).values if value.name == name}


KERNELS, SIDES, MAPS, STRIDES = (
    printed("s3.5-architecture", name) for name in ("kernels", "side of a kernel", "maps of a kernel", "stride")
)
CONV = {layer: (KERNELS[layer], SIDES[layer], MAPS[layer], STRIDES.get(layer)) for layer in KERNELS}
NEURONS, PARAMETERS = printed("fig2-neurons", "neurons"), printed("s3.5-parameters", "parameters")


def shapes(config):
    """Shapes of the weights of a net with its columns merged, by layer."""
    with torch.device("meta"):
        net = AlexNet(config, names=(config.column_names,))
    (column,) = net.columns.values()
    return {name: tuple(layer.weight.shape) for name, layer in column.named_children()}


def parameters(config):
    """Learned values of each layer, biases included, over the columns as they are."""
    with torch.device("meta"):
        net = AlexNet(config)
    counts = dict.fromkeys(LAYERS, 0)
    for name, parameter in net.named_parameters():
        counts[name.split(".")[-2]] += parameter.numel()
    return counts


def sees(config, layer):
    """Say which columns' conv1 or later maps change the outputs of column a's `layer`, by their gradients."""
    narrow = {name: replace(getattr(config, name), kernels=4) for name in CONV}
    full = {name: replace(getattr(config, name), units=4) for name in ("fc6", "fc7")}
    net = AlexNet(replace(config, image_side=99, dropout=0.0, **narrow, **full))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.uniform_(0.01, 0.02, generator=torch.Generator().manual_seed(0))
    before = net.config.layer_names[net.config.layer_names.index(layer) - 1]
    net.features(torch.ones(1, 3, 99, 99), layer).chunk(2, dim=1)[0].sum().backward()
    weights = {letter: column.get_submodule(before).weight.grad for letter, column in net.columns.items()}
    return "".join(letter for letter, gradient in weights.items() if gradient is not None and gradient.any())


def test_the_net_has_60_million_parameters():
    for config in PRESETS:
        assert sum(parameters(config).values()) == PARAMETERS["all"] == 60_965_224


def test_it_is_false_that_the_net_has_650_000_neurons():
    """659,272, which rounds to 660,000; 622,312 with the caption's number for conv1, which rounds to 620,000."""
    assert sum(count_neurons(paper()).values()) == 659_272
    assert sum(NEURONS.values()) == 622_312


def test_the_net_has_five_convolutional_and_three_fully_connected_layers():
    assert list(shapes(paper())) == ["conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8"]


def test_some_convolutional_layers_are_followed_by_max_pooling():
    for config in PRESETS:
        pooled = [name for name in CONV if "pool" in getattr(config, name).then]
        assert pooled == ["conv1", "conv2", "conv5"]


def test_every_layer_has_the_parameters_that_follow_from_its_sizes():
    assert parameters(paper()) == {name: PARAMETERS[name] for name in LAYERS}
    weights = sum(torch.Size(shape).numel() for shape in shapes(paper()).values())
    assert weights == 60_954_656


def test_it_is_false_that_no_convolutional_layer_has_over_one_percent_of_the_parameters():
    """Section 1 says each has no more than 1 %; conv3 has 1.45 % and conv4 1.09 %, the other three less than 1 %."""
    shares = {name: PARAMETERS[name] / PARAMETERS["all"] for name in CONV}
    assert {name for name, share in shares.items() if share > 0.01} == {"conv3", "conv4"}
    assert shares["conv3"] == pytest.approx(0.0145, abs=5e-5)
    assert shares["conv4"] == pytest.approx(0.0109, abs=5e-5)


def test_half_of_the_kernels_are_on_each_gpu():
    with torch.device("meta"):
        net = AlexNet(paper())
    assert list(net.columns) == ["a", "b"]
    for column in net.columns.values():
        assert [column.get_submodule(name).out_channels * 2 for name in CONV] == [kernels for kernels, *_ in CONV.values()]


def test_kernels_of_layer_3_take_input_from_all_maps_of_layer_2():
    for config in PRESETS:
        assert sees(config, "conv3") == "ab"


@pytest.mark.parametrize("layer", ["conv2", "conv4", "conv5"])
def test_kernels_of_layers_2_4_and_5_take_input_only_from_maps_on_the_same_gpu(layer):
    for config in PRESETS:
        assert sees(config, layer) == "a"


@pytest.mark.parametrize("layer", ["fc6", "fc7"])
def test_fully_connected_neurons_take_input_from_all_neurons_of_the_layer_before(layer):
    for config in PRESETS:
        assert sees(config, layer) == "ab"


def test_the_one_gpu_net_has_as_many_kernels_in_the_last_convolutional_layer():
    kernels = [shapes(one_column(paper()))[name][0] for name in CONV]
    assert kernels == [48, 128, 192, 192, 256]
    assert shapes(one_column(paper()))["fc6"] == shapes(paper())["fc6"] == (4096, 9216)


def test_the_one_gpu_net_has_about_as_many_parameters():
    assert sum(parameters(one_column(paper())).values()) == PARAMETERS["all, one-GPU net"] == 59_798_312


def test_most_parameters_are_in_the_first_fully_connected_layer():
    assert PARAMETERS["fc6"] / PARAMETERS["all"] == pytest.approx(0.619, abs=0.0005)


def test_response_normalisation_follows_the_relu_of_the_first_and_second_layer():
    normalised = {name: getattr(paper(), name).then for name in CONV if "norm" in getattr(paper(), name).then}
    assert normalised == dict.fromkeys(("conv1", "conv2"), "activation norm pool")


def test_the_constants_are_k_2_n_5_alpha_1e_4_and_beta_three_quarters():
    for config in PRESETS:
        assert (config.norm.k, config.norm.size, config.norm.alpha, config.norm.beta) == (2, 5, 1e-4, 0.75)
    assert (paper().norm.alpha_per_window, source2012().norm.alpha_per_window) == (False, True)


def test_the_sum_runs_over_n_adjacent_maps_at_the_same_position():
    """n / 2 is read as 2 on each side, so that n = 5 maps are summed; maps beyond the first or last are left out."""
    x = torch.full((1, 9, 3, 3), 100.0)
    counts = ((x / response_normalise(x, paper().norm)) ** (1 / 0.75) - 2) / 1.0  # 1e-4 times 100 squared
    assert counts[0, :, 1, 1].tolist() == pytest.approx([3, 4, 5, 5, 5, 5, 5, 4, 3], rel=1e-4)
    x[:, :, 0, 0] = 1e4  # another position
    assert ((x / response_normalise(x, paper().norm)) ** (1 / 0.75) - 2)[0, 4, 1, 1].item() == pytest.approx(5, rel=1e-4)


def test_response_normalisation_subtracts_no_mean():
    assert (response_normalise(torch.full((1, 9, 3, 3), 100.0), paper().norm) > 0).all()


def test_pooling_windows_of_3_with_a_stride_of_2_overlap():
    for config in PRESETS:
        assert (config.pooling.side, config.pooling.stride) == (3, 2)
        assert config.pooling.side > config.pooling.stride


def test_without_overlap_the_outputs_have_equivalent_dimensions():
    """s = 2, z = 2. True of the last maps only, and only with other paddings (#147)."""
    ours, theirs = sides(paper()), sides(without_overlap(paper()))
    assert ours["pool5"] == theirs["pool5"] == 6
    assert (ours["pool2"], theirs["pool2"]) == (13, 13)
    assert (ours["pool1"], theirs["pool1"]) == (27, 28)
    assert list(theirs.values()) == [55, 28, 26, 13, 13, 13, 11, 6]


@pytest.mark.parametrize("layer", CONV)
def test_each_convolutional_layer_has_the_kernels_that_the_text_lists(layer):
    kernels, side, maps, stride = CONV[layer]
    for config in PRESETS:
        assert shapes(config)[layer] == (kernels, maps, side, side)
        assert getattr(config, layer).stride == (stride or 1)


def test_the_fully_connected_layers_have_4096_neurons_each_and_the_softmax_1000_classes():
    assert shapes(paper())["fc6"] == (4096, 256 * 6 * 6)
    assert shapes(paper())["fc7"] == (4096, 4096)
    assert shapes(paper())["fc8"] == (1000, 4096)


@pytest.mark.parametrize(("layer", "side"), [("conv1", 55), ("pool1", 27), ("pool2", 13), ("conv5", 13), ("pool5", 6)])
def test_224_pixels_shrink_as_in_figure_2(layer, side):
    """The paper prints 224 and 55; only a ceiling division reconciles them."""
    for config in PRESETS:
        assert sides(config)[layer] == side


def test_the_input_has_150_528_dimensions():
    assert 3 * paper().image_side ** 2 == 150_528


def test_the_layers_have_the_neurons_of_the_caption_except_the_first():
    counted = count_neurons(paper())
    assert {name: n for name, n in counted.items() if name != "conv1"} == {n: v for n, v in NEURONS.items() if n != "conv1"}


def test_253_440_neurons_in_the_first_layer_are_a_slip():
    """55 x 55 x 96 is 290,400; the caption's number is one GPU's 48 kernels in place of a side."""
    assert count_neurons(paper())["conv1"] == 55 * 55 * 96 == 290_400
    assert NEURONS["conv1"] == 253_440 == 55 * 48 * 96


def test_relu_is_applied_to_the_output_of_every_convolutional_and_fully_connected_layer():
    for config in PRESETS:
        assert config.activation == "relu"
        assert all("activation" in getattr(config, name).then.split() for name in CONV)


def test_layers_3_to_5_are_connected_without_pooling_or_normalisation_in_between():
    for config in PRESETS:
        assert config.conv3.then == config.conv4.then == "activation"


def test_dropout_has_probability_one_half():
    for config in PRESETS:
        assert config.dropout == 0.5


def test_dropout_is_in_the_first_two_fully_connected_layers():
    """On their outputs: at test time fc6's are halved, fc7's again (without biases), and pool5's are not."""
    config = replace(paper(), image_side=67, fc6=replace(paper().fc6, units=3), fc7=replace(paper().fc7, units=3))
    net, undropped = AlexNet(config).eval(), AlexNet(replace(config, dropout=0.0)).eval()
    with torch.no_grad():
        for column in net.columns.values():
            column.fc7.bias.zero_()
        undropped.load_state_dict(net.state_dict())
        for layer, factor in (("conv5", 1.0), ("fc6", 0.5), ("fc7", 0.25)):
            expected = factor * undropped.features(torch.ones(1, 3, 67, 67), layer)
            torch.testing.assert_close(net.features(torch.ones(1, 3, 67, 67), layer), expected)


def test_weights_begin_with_a_standard_deviation_of_0_01_in_each_layer():
    """0.03 in conv3 to conv5 of the 2012 source."""
    assert {getattr(paper(), name).sd for name in LAYERS} == {0.01}
    assert [getattr(source2012(), name).sd for name in LAYERS] == [0.01, 0.01, 0.03, 0.03, 0.03, 0.01, 0.01, 0.01]


def test_biases_begin_at_one_in_layers_2_4_5_and_the_hidden_fully_connected_ones():
    for config in PRESETS:
        assert [getattr(config, name).bias for name in LAYERS] == [0, 1, 0, 1, 1, 1, 1, 0]


def test_the_net_for_the_large_sets_has_a_sixth_convolutional_layer_over_the_last_pooling():
    names = list(shapes(with_sixth_layer(paper())))
    assert names[names.index("conv5") + 1] == "conv6"
    assert sides(with_sixth_layer(paper()))["conv6"] == sides(paper())["pool5"] == 6
