"""Every printed number, typed here a second time from the paper and the 2012 notes, equals that of claims.toml."""

import dataclasses
import re
import typing

import pytest

from alexnet import paper
from alexnet.config import UserError
from alexnet.paper import CLAIMS, Claim, Value, run_notes
from alexnet.paper.claims import EXACT_UNITS, QUESTIONS, read_claims

PLANNED_IDS = {
    "fig1-relu", "table1", "table2", "s3.2-two-gpus", "s3.3-lrn", "s3.3-lrn-cifar", "s3.4-overlap", "s4.1-crops", "s4.1-pca",
    "s4.2-dropout", "s5-decay", "fig3-kernels", "fig4-neighbours", "s6-ten-crop", "s6-fall2009", "s7-depth",
    "s3.5-architecture",
}  # fmt: skip

# Claim, row, split, views, top-1 error, top-5 error; None: the paper has a dash.
ERRORS = [
    ("table1", "Sparse coding", "test", "", 47.1, 28.2),
    ("table1", "SIFT + FVs", "test", "", 45.7, 25.7),
    ("table1", "CNN", "test", "ten", 37.5, 17.0),
    ("table2", "SIFT + FVs", "test", "", None, 26.2),
    ("table2", "1 CNN", "val", "ten", 40.7, 18.2),
    ("table2", "5 CNNs", "val", "ten", 38.1, 16.4),
    ("table2", "5 CNNs", "test", "ten", None, 16.4),
    ("table2", "1 CNN*", "val", "ten", 39.0, 16.6),
    ("table2", "7 CNNs*", "val", "ten", 36.7, 15.4),
    ("table2", "7 CNNs*", "test", "ten", None, 15.3),
    ("s6-ten-crop", "centre", "test", "central", 39.0, 18.3),
    ("s6-fall2009", "CNN", "test", "ten", 67.4, 40.9),
    ("s6-fall2009", "best published", "test", "", 78.1, 60.9),
]

# Claim, data set and split, printed gains, the two 2012 runs (without, with), each as top-1 and top-5 error.
GAINS = [
    ("s3.2-two-gpus", "ilsvrc2010", "test", (1.7, 1.2), (39.1680, 18.2287), (37.4727, 16.9987)),
    ("s3.3-lrn", "ilsvrc2012", "val", (1.4, 1.2), (42.034, 19.362), (40.664, 18.210)),
    ("s3.4-overlap", "ilsvrc2012", "val", (0.4, 0.3), (41.058, 18.510), (40.664, 18.210)),
    ("s6-pretraining", "ilsvrc2012", "val", (1.7, 1.6), (40.664, 18.210), (38.990, 16.622)),
]

# Layer, kernels, side, maps of a kernel.
KERNELS = [
    ("conv1", 96, 11, 3),
    ("conv2", 256, 5, 48),
    ("conv3", 384, 3, 256),
    ("conv4", 384, 3, 192),
    ("conv5", 256, 3, 192),
]
# Layer, units, inputs: 256 maps of 6 x 6 leave the last pooling.
UNITS = [("fc6", 4096, 256 * 6 * 6), ("fc7", 4096, 4096), ("fc8", 1000, 4096)]
# All the numbers of a claim, in the order in which the paper or Figure 2 has them.
NUMBERS = {
    "s1-training-time": [5.5, 90], "s1-shares": [1], "s1-mnist": [0.3], "abstract-size": [60_000_000, 650_000],
    "s2-imagenet": [15_000_000, 22_000], "s2-ilsvrc": [1000, 1_200_000, 50_000, 150_000], "s2-preprocessing": [256],
    "s4-ten-bits": [10], "s6-val-test": [0.1, 0.1], "s6-fall2009": [67.4, 40.9, 78.1, 60.9, 10_184, 8_900_000, 0.5],
    "s3.5-layers": [8, 5, 3, 1000], "s3.3-lrn-constants": [2, 5, 0.0001, 0.75], "s3.4-pooling": [3, 2],
    "s4.1-patches": [224, 2048], "s4.1-pca-noise": [0.1], "s4.1-ten-views": [10, 5, 224], "s4.2-dropout-rule": [0.5, 0.5, 2],
    "s4.2-dropout-cost": [2], "s5-sgd": [128, 0.9, 0.0005], "s5-rates": [0.01, 10, 3], "fig1-relu": [6, 0.25],
    "s3.3-lrn-cifar": [13, 11, 2], "s4.1-pca": [1], "s7-depth": [2], "s6-ensemble": [2.6, 1.8],
    "fig3-kernels": [96, 48, 11, 3, 100], "fig4-labels": [8, 5], "fig4-neighbours": [5, 6, 4096],
    "s3.2-one-gpu-net": [48, 128, 192, 192, 256],
    "fig2-neurons": [150_528, 253_440, 186_624, 64_896, 64_896, 43_264, 4096, 4096, 1000],
    "s5-initialisation": [0.01] * 8 + [0, 1, 0, 1, 1, 1, 1, 0],
    "s3.5-architecture": [224, 96, 11, 3, 4, 256, 5, 48, 384, 3, 256, 384, 3, 192, 256, 3, 192, 4096, 4096, 1000],
}  # fmt: skip


@pytest.mark.parametrize(("claim_id", "row", "split", "views", "top1", "top5"), ERRORS)
def test_every_error_rate_is_as_printed(claim_id, row, split, views, top1, top5):
    for name, printed in (("top-1 error", top1), ("top-5 error", top5)):
        if printed is None:
            continue
        claim = paper.get(claim_id)
        value = claim.keyed.get(f"{name}, {row}") or claim.by_key(f"{name}, {row}, {split}")
        assert (value.paper, value.unit, value.split, value.views) == (printed, "%", split, views)


def test_the_tables_have_no_further_rows():
    assert len(CLAIMS["table1"].values) == 6
    assert len(CLAIMS["table2"].values) == 1 + 2 + 3 + 2 + 3


@pytest.mark.parametrize(
    ("claim_id", "row", "source", "top1", "top5"),
    [
        ("table1", "CNN", "layer-params-145-2010.cfg:178", 37.4727, 16.9987),
        ("table2", "1 CNN", "layer-params-145.cfg:182", 40.664, 18.210),
        ("table2", "1 CNN*", "layer-params-146-2012-2011.cfg:195", 38.990, 16.622),
        ("s6-ten-crop", "centre", "layer-params-145-2010.cfg:178-180", 39.0247, 18.2953),
    ],
)
def test_printed_rates_are_the_2012_logs_rounded(claim_id, row, source, top1, top5):
    for name, log in (("top-1 error", top1), ("top-5 error", top5)):
        value = CLAIMS[claim_id].by_key(f"{name}, {row}")
        assert (value.notes2012, value.notes_source) == (log, source)
        assert round(log, 1) == value.paper


@pytest.mark.parametrize(("claim_id", "dataset", "split", "printed", "without", "with_"), GAINS)
def test_gains_are_the_differences_of_2012_runs_to_the_last_printed_digit(claim_id, dataset, split, printed, without, with_):
    for k, name in enumerate(("top-1 gain", "top-5 gain")):
        value = CLAIMS[claim_id].by_key(name)
        assert (value.paper, value.unit, value.dataset, value.split) == (printed[k], "points", dataset, split)
        assert value.notes2012 == pytest.approx(without[k] - with_[k], abs=1e-9)
        assert round(without[k] - with_[k], 1) == printed[k]


def test_the_gain_of_ten_views_is_the_difference_of_printed_rates():
    """The logs' 1.552 would print as 1.6: the paper gives the rates, 39.0 and 37.5, and no difference."""
    top1, top5 = CLAIMS["s6-ten-crop"].by_key("top-1 gain"), CLAIMS["s6-ten-crop"].by_key("top-5 gain")
    assert (top1.paper, top5.paper) == pytest.approx((39.0 - 37.5, 18.3 - 17.0))
    assert (top1.notes2012, top5.notes2012) == pytest.approx((39.0247 - 37.4727, 18.2953 - 16.9987))
    assert top1.is_close(1.552)


@pytest.mark.parametrize(("claim_id", "row"), [("s6-ensemble", "5 CNNs"), ("s6-pretraining", "1 CNN*")])
def test_gains_that_the_paper_does_not_print_are_differences_of_rows_of_table_2(claim_id, row):
    for k in (1, 5):
        name = f"top-{k} error"
        rows = [
            CLAIMS["table2"].keyed[key].paper
            for key in (f"{name}, 1 CNN", f"{name}, {row}, val" if (row, k) == ("5 CNNs", 5) else f"{name}, {row}")
        ]
        assert CLAIMS[claim_id].by_key(f"top-{k} gain").paper == pytest.approx(rows[0] - rows[1])


@pytest.mark.parametrize(("claim_id", "numbers"), NUMBERS.items())
def test_every_other_number_is_as_printed(claim_id, numbers):
    assert [value.paper for value in CLAIMS[claim_id].values if not value.is_direction] == numbers


def test_no_number_of_the_claims_is_left_unchecked():
    checked = {*NUMBERS, *(row[0] for row in ERRORS), *(row[0] for row in GAINS), "s3.5-parameters"}
    numbered = {claim.id for claim in CLAIMS.values() if not all(value.is_direction for value in claim.values)}
    assert numbered == checked


def test_kernels_and_units_are_found_by_layer():
    value = CLAIMS["s3.5-architecture"].by_key
    names = ("kernels", "side of a kernel", "maps of a kernel")
    assert [(layer, *(value(f"{name}, {layer}").paper for name in names)) for layer, *_ in KERNELS] == KERNELS
    assert [value(f"units, {layer}").paper for layer, *_ in UNITS] == [units for _, units, _ in UNITS]


def test_parameter_counts_follow_from_the_kernels_and_add_up_to_60_965_224():
    counts = {layer: kernels * (side * side * maps + 1) for layer, kernels, side, maps in KERNELS}
    counts |= {layer: units * (inputs + 1) for layer, units, inputs in UNITS}
    claim = CLAIMS["s3.5-parameters"]
    assert counts == {layer: claim.by_key(f"parameters, {layer}").paper for layer in counts}
    assert sum(counts.values()) == claim.by_key("parameters, all").paper == 60_965_224
    assert CLAIMS["abstract-size"].by_key("parameters").is_close(60_965_224)


def test_the_one_gpu_net_has_59_798_312_parameters():
    """Half the kernels in conv1 to conv4, all in conv5, every kernel sees all maps; paper 3.2, footnote."""
    claim = CLAIMS["s3.2-one-gpu-net"]
    kernels = [int(claim.by_key(f"kernels, {layer}").paper) for layer, *_ in KERNELS]
    sides = [side for _, _, side, _ in KERNELS]
    conv = sum(n * (side * side * maps + 1) for n, side, maps in zip(kernels, sides, [3, *kernels[:-1]], strict=True))
    total = conv + sum(units * (inputs + 1) for _, units, inputs in UNITS)
    assert total == CLAIMS["s3.5-parameters"].by_key("parameters, all, one-GPU net").paper == 59_798_312


def test_no_convolutional_layer_but_two_holds_more_than_one_percent_of_the_parameters():
    """Paper 1 says none does; by arithmetic conv3 has 1.45 % and conv4 1.09 %."""
    limit, parameters = CLAIMS["s1-shares"].values[0], CLAIMS["s3.5-parameters"]
    shares = {layer: 100 * parameters.by_key(f"parameters, {layer}").paper / 60_965_224 for layer, *_ in KERNELS}
    beyond = {layer: round(share, 2) for layer, share in shares.items() if not limit.is_close(share)}
    assert beyond == {"conv3": 1.45, "conv4": 1.09}


def test_only_the_first_number_of_neurons_in_the_caption_of_figure_2_is_a_slip():
    neurons = [value for value in CLAIMS["fig2-neurons"].values if value.name == "neurons"]
    sides = [55, 27, 13, 13, 13]
    true = [side * side * kernels for side, (_, kernels, _, _) in zip(sides, KERNELS, strict=True)] + [4096, 4096, 1000]
    assert [value.notes2012 for value in neurons] == true
    assert [value.subject for value in neurons if value.paper != value.notes2012] == ["conv1"]
    assert sum(true) == 659_272
    assert CLAIMS["fig2-neurons"].by_key("dimensions, input").paper == 224 * 224 * 3


def test_the_2012_weights_of_three_layers_began_wider():
    sds = [value for value in CLAIMS["s5-initialisation"].values if value.name == "standard deviation of weights"]
    assert [value.notes2012 for value in sds] == [0.01, 0.01, 0.03, 0.03, 0.03, 0.01, 0.01, 0.01]


def test_the_2012_source_divides_alpha_by_n_and_draws_33_offsets_each_way():
    alpha = CLAIMS["s3.3-lrn-constants"].by_key("alpha")
    assert alpha.notes2012 == pytest.approx(alpha.paper / 5)
    assert CLAIMS["s4.1-patches"].by_key("factor").notes2012 == 33 * 33 * 2


def test_the_planned_claims_are_all_there_each_under_its_own_id():
    assert set(CLAIMS) >= PLANNED_IDS
    assert all(claim_id == claim.id for claim_id, claim in CLAIMS.items())


ODD = """
[[claim]]
id = "s9-odd"
section = "9"
kind = "gain"
wording = "Something is
  so."
shared = { unit = "points", dataset = "cifar10" }
values = [
  { name = ["top-1 gain", "top-5 gain"], paper = [2.0, 1.5], margin = ["WHOLE_GAIN", 0.1], split = "test" },
  { name = "passes", paper = 6, unit = "ratio", margin = "RATIO", dataset = "" },
]
""".replace('"Something is', '"""Something is').replace('so."', 'so."""')


def test_a_line_stands_for_as_many_values_as_its_arrays_are_long_with_what_the_claim_shares():
    assert read_claims(ODD) == {
        "s9-odd": Claim(
            "s9-odd",
            "9",
            "gain",
            "Something is so.",
            (
                Value("top-1 gain", 2.0, "points", 0.7, dataset="cifar10", split="test"),
                Value("top-5 gain", 1.5, "points", 0.1, dataset="cifar10", split="test"),
                Value("passes", 6, "ratio", 1.5),
            ),
        )
    }


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        ("", ODD, "is entered twice"),
        ('kind = "gain"', "", "missing 1 required positional argument: 'kind'"),
        ("section =", "sections =", "unexpected keyword argument 'sections'"),
        ("paper = 6, ", "", "value 'passes'"),
        ("split =", "splt =", "value 'top-1 gain': Value.__init__() got an unexpected keyword argument 'splt'"),
    ],
)
def test_a_mistake_in_the_file_is_refused_and_names_the_claim(right, wrong, message):
    broken = ODD.replace(right, wrong, 1) if right else ODD + wrong
    with pytest.raises(UserError, match="claims.toml: claim 's9-odd'.*" + re.escape(message)):
        read_claims(broken)


def has_its_type(thing):
    """Whether every field of a dataclass is of its type or one of its words; a float may be written as an integer."""
    for name, hint in typing.get_type_hints(type(thing)).items():
        given = getattr(thing, name)
        allowed = typing.get_args(hint) if typing.get_origin(hint) is not tuple else (tuple,)
        allowed = allowed or (hint,)
        types = {type(given)} | ({float} if type(given) is int else set())
        if given not in allowed and types.isdisjoint(allowed):
            return False
    return True


def test_every_field_is_of_its_type_or_one_of_its_words():
    assert all(has_its_type(thing) for claim in CLAIMS.values() for thing in (claim, *claim.values))
    claim = CLAIMS["s3.3-lrn"]
    assert not has_its_type(dataclasses.replace(claim, kind="rumour"))
    assert not has_its_type(dataclasses.replace(claim.values[0], margin="GAINS"))


def test_every_value_has_a_positive_margin_or_is_an_exact_count_or_a_direction():
    for value in (value for claim in CLAIMS.values() for value in claim.values):
        exact = value.margin == 0 and (value.unit in EXACT_UNITS or value.is_direction)
        assert value.margin > 0 or exact, value


@pytest.mark.parametrize("claim", CLAIMS.values(), ids=lambda claim: claim.id)
def test_every_claim_has_a_wording_and_something_to_check(claim):
    assert claim.wording.endswith(".")
    assert claim.values or claim.direction, "a claim needs a number or a direction"
    assert len(claim.keyed) == len(claim.values), "no two values can be told apart by key and split alone"
    for value in claim.values:
        assert value.dataset in ("", "ilsvrc", "ilsvrc2010", "ilsvrc2012", "fall2009", "cifar10", "mnist")
        assert (value.notes2012 is None) or value.notes_source, "a 2012 value needs its source"


def test_an_unknown_id_is_answered_with_the_nearest():
    with pytest.raises(UserError, match=r"no claim 's3\.3-lnr'; did you mean 's3\.3-lrn'\?"):
        paper.get("s3.3-lnr")


def test_an_id_like_no_other_is_answered_with_all_of_them():
    with pytest.raises(UserError, match=r"the claims are .*table2"):
        paper.get("zzzz")


def test_a_key_is_the_name_and_the_subject_and_the_split_where_it_alone_differs():
    assert list(CLAIMS["s3.3-lrn"].keyed) == ["top-1 gain", "top-5 gain"]
    assert CLAIMS["table1"].by_key("top-1 error, CNN").paper == 37.5
    assert {key for key in CLAIMS["table2"].keyed if "5 CNNs" in key} == {
        "top-1 error, 5 CNNs", "top-5 error, 5 CNNs, val", "top-5 error, 5 CNNs, test",
    }  # fmt: skip
    with pytest.raises(
        UserError, match=r"no value 'top-5 eror, CNN'; did you mean 'top-5 error, CNN'\?.*'top-1 error, CNN'"
    ):
        CLAIMS["table1"].by_key("top-5 eror, CNN")


def test_a_value_is_close_within_its_margin_and_on_the_allowed_side_of_a_bound():
    equal = Value("x", 37.5, "%", 0.3)
    assert [equal.is_close(x) for x in (37.1, 37.2, 37.8, 37.9)] == [False, True, True, False]
    at_least, at_most = dataclasses.replace(equal, bound="at least"), dataclasses.replace(equal, bound="at most")
    assert [at_least.is_close(x) for x in (37.1, 37.2, 99.0)] == [False, True, True]
    assert [at_most.is_close(x) for x in (0.0, 37.8, 37.9)] == [True, True, False]


def test_at_most_bounds_the_magnitude_of_a_signed_difference():
    """A validation error 5 points below the test error is no agreement with "at most 0.1"."""
    value = CLAIMS["s6-val-test"].by_key("difference of validation and test error, top-1")
    assert [value.is_close(x) for x in (-5, -0.36, -0.35, 0.0, 0.35, 0.36)] == [False, False, True, True, True, False]
    assert value.no_effect is None


def test_650_000_neurons_is_no_rounding_of_659_272_and_60_million_parameters_is():
    parameters, neurons = (CLAIMS["abstract-size"].by_key(key) for key in ("parameters", "neurons"))
    assert parameters.is_close(60_965_224)
    assert not neurons.is_close(659_272)
    assert not neurons.is_close(622_312)  # with the caption's number for conv1
    assert round(659_272, -4) == 660_000
    assert "650,000 is no rounding" in CLAIMS["abstract-size"].note


def test_what_no_effect_would_be_follows_from_the_unit():
    assert (Value("x", 1.0, "points").no_effect, Value("x", 6.0, "ratio").no_effect) == (0.0, 1.0)
    assert Value("x", 37.5, "%").no_effect is None
    assert [Value("x", n, "points", bound="at least").is_direction for n in (0.0, 1.0)] == [True, False]


def test_every_effect_of_the_paper_is_on_its_large_side():
    for value in (value for claim in CLAIMS.values() for value in claim.values if value.no_effect is not None):
        assert value.paper >= value.no_effect


def test_a_value_of_an_unsaid_year_and_split_is_measured_on_any_held_out_images():
    noise = CLAIMS["s4.1-pca"].values[0]
    years = ("ilsvrc2010", "ilsvrc2012", "imagenet20", "ilsvrc")
    assert [noise.is_measured_on(year, "val", "ten") for year in years] == [True, True, False, False]
    assert [noise.is_measured_on("ilsvrc2010", split, "ten") for split in ("val", "test", "train")] == [True, True, False]
    assert [noise.is_measured_on("ilsvrc2010", "val", views) for views in ("ten", "central")] == [True, False]


@pytest.mark.parametrize("claim", [c for c in CLAIMS.values() if c.kind in ("result", "gain")], ids=lambda claim: claim.id)
def test_every_measured_value_says_its_data_split_and_views(claim):
    """Of rates quoted from others the views are not ours to say, nor are there any of days, epochs and iterations."""
    for value in claim.values:
        if value.unit in ("%", "points"):
            assert value.dataset
            assert value.split in ("train", "val", "test", "val or test")
            assert value.quoted or value.views in ("ten", "central", "grid")


def test_definitions_and_arithmetic_are_not_measured():
    kinds = {
        kind: {claim.id for claim in CLAIMS.values() if claim.kind == kind} for kind in ("definition", "arithmetic", "data")
    }
    assert kinds["arithmetic"] == {
        "s4-ten-bits", "abstract-size", "s1-shares", "s3.5-parameters", "fig2-neurons", "s4.1-patches",
    }  # fmt: skip
    assert {"s3.5-architecture", "s4.2-dropout-rule", "s5-sgd"} <= kinds["definition"]
    unmeasured = {claim.id for claim in CLAIMS.values() if not claim.is_measured}
    assert unmeasured == set().union(*kinds.values()) | {"s1-mnist"}  # that one is quoted


def test_the_notes_of_a_gain_are_the_difference_of_the_pair_of_runs_behind_it():
    pairs = run_notes.gains().set_index("claim")
    noted = {c.id for c in CLAIMS.values() if c.kind == "gain" and c.values[0].notes2012 is not None and c.id in pairs.index}
    assert noted == set(pairs.index)
    for claim_id, pair in pairs.iterrows():
        first, fifth = (CLAIMS[claim_id].by_key(f"top-{k} gain") for k in (1, 5))
        assert (first.notes2012, fifth.notes2012) == pytest.approx((pair.top1_gain, pair.top5_gain), abs=1e-4)
        assert (first.dataset, first.split) == (pair.data, pair.split)


def test_questions_are_directions_with_the_differences_of_the_run_notes():
    for question in QUESTIONS.values():
        assert question.kind == "question"
        assert all(value.is_direction for value in question.values), question.id
    pairs = zip(run_notes.errors("167"), run_notes.errors("170"), strict=True)
    values = QUESTIONS["q-lrn-layer2"].values
    assert [value.notes2012 for value in values] == pytest.approx([without - with_ for without, with_ in pairs], abs=1e-9)
