"""What is counted on the net, against counts by hand, and whether the paper's numbers hold."""

import pytest

from alexnet.model import presets
from alexnet.paper import CLAIMS, Claim, Value, arithmetic


def test_parameters_of_a_layer_are_its_kernels_times_what_each_sees_and_its_biases():
    counts = arithmetic.layer_parameters(presets.paper())
    assert counts["conv1"] == 96 * (11 * 11 * 3 + 1)
    assert counts["conv2"] == 256 * (5 * 5 * 48 + 1)
    assert counts["fc6"] == 4096 * (256 * 6 * 6 + 1)
    assert sum(counts.values()) == 60_965_224


def test_operations_are_two_for_each_weight_and_place_and_pass():
    """conv1 has two passes, for it has no gradient to its input; the others have three."""
    counts = arithmetic.operations(presets.paper())
    assert counts["conv1"] == 2 * 2 * 96 * 11 * 11 * 3 * 55 * 55
    assert counts["conv3"] == 3 * 2 * 384 * 3 * 3 * 256 * 13 * 13
    assert counts["fc8"] == 3 * 2 * 4096 * 1000


def test_half_of_the_maps_are_seen_where_columns_do_not_meet():
    seen = {name: shape[1] for name, shape in presets.weight_shapes(presets.paper()).items()}
    assert seen == {
        "conv1": 3, "conv2": 48, "conv3": 256, "conv4": 192, "conv5": 192, "fc6": 9216, "fc7": 4096, "fc8": 4096,
    }  # fmt: skip
    printed = arithmetic.COMPUTED["s3.5-architecture"]
    assert all(printed[f"maps of a kernel, {name}"] == seen[name] for name in presets.CONV[:5])


@pytest.mark.parametrize("claim", arithmetic.COMPUTED)
def test_every_value_of_a_claim_that_is_counted_has_its_number(claim):
    """A wrong name would leave a value without its number, silently."""
    assert set(CLAIMS[claim].keyed) <= set(arithmetic.COMPUTED[claim])


def test_the_numbers_that_are_false_are_these():
    false = {
        key: number
        for claim in arithmetic.COMPUTED
        for key, number in arithmetic.COMPUTED[claim].items()
        if key in CLAIMS[claim].keyed
        and arithmetic.word(CLAIMS[claim], CLAIMS[claim].keyed[key], number) == "arithmetic: false"
    }
    assert false == {
        "neurons": 659_272,
        "neurons, conv1": 290_400,
        "largest share of a convolutional layer": pytest.approx(1.4518, abs=1e-4),
        "factor": 2178,
    }


def test_a_definition_is_held_by_construction_and_arithmetic_is_true_or_false():
    size, layers = Value("parameters", 60e6, "count", 5e6), Value("learned layers", 8, "count")
    counted, built = Claim("a", "1", "arithmetic", ".", (size,)), Claim("b", "3", "definition", ".", (layers,))
    assert [arithmetic.word(counted, size, n) for n in (60_965_224, 66e6)] == ["arithmetic: true", "arithmetic: false"]
    assert arithmetic.word(built, layers, 8) == "by construction"


def test_what_is_no_arithmetic_has_no_numbers():
    assert "table1" not in arithmetic.COMPUTED
