"""Intervals against arithmetic done by hand, and every word of a verdict reached by a case."""

import math
import typing

import pytest

from alexnet.claims.paper import CLAIMS, Value
from alexnet.claims.verdicts import Interval, Word, judge, mean_interval, ratio_interval

# Student's t, two-sided 95 %, from a printed table: 2 and 1 degrees of freedom.
T2, T1 = 4.302653, 12.706205
GAIN = CLAIMS["s3.3-lrn"].value("top-1 gain")  # 1.4 points, margin 0.4, ilsvrc2012 val, ten-crop
RATE = CLAIMS["table1"].value("top-1 error", "CNN")  # 37.5 %, margin 0.3, ilsvrc2010 test, ten-crop
RATIO = CLAIMS["fig1-relu"].value("tanh epochs over ReLU epochs")  # 6, margin 1.5, cifar10 train


def interval(estimate, low, high, n=3):
    return Interval(estimate, low, high, 0.95, n, "given")


def test_the_interval_of_a_mean_is_students():
    """Mean 2 and squares of the deviations 1 + 0 + 1 over 2: sd 1; half-width t * 1 / sqrt(3)."""
    found = mean_interval([1.0, 2.0, 3.0])
    half = T2 / math.sqrt(3)
    assert (found.estimate, found.confidence, found.n) == (2.0, 0.95, 3)
    assert (found.low, found.high) == pytest.approx((2 - half, 2 + half), abs=1e-5)


def test_the_interval_of_two_runs_is_very_wide():
    """Values 1 and 3: sd sqrt(2), standard error 1, half-width t of one degree of freedom."""
    found = mean_interval([1.0, 3.0])
    assert (found.low, found.high) == pytest.approx((2 - T1, 2 + T1), abs=1e-5)


def test_the_interval_of_ratios_is_students_on_their_logarithms():
    """Ratios 2, 4, 8 have logarithms ln 2 times 1, 2, 3: mean 2 ln 2, sd ln 2."""
    found = ratio_interval([2.0, 8.0, 24.0], [1.0, 2.0, 3.0])
    half = T2 * math.log(2) / math.sqrt(3)
    assert found.estimate == pytest.approx(4.0)
    assert (found.low, found.high) == pytest.approx((4 * math.exp(-half), 4 * math.exp(half)), rel=1e-5)
    assert "logarithms of the paired ratios" in found.method


def test_ratios_are_paired_by_seed():
    """Each seed's ratio is 6, however much the seeds differ: an interval without width."""
    found = ratio_interval([30.0, 36.0, 48.0], [5.0, 6.0, 8.0])
    assert (found.low, found.estimate, found.high) == pytest.approx((6.0, 6.0, 6.0))
    assert ratio_interval([30.0, 36.0, 48.0], [8.0, 5.0, 6.0]).low < 5


def test_swapping_numerators_and_denominators_inverts_the_interval():
    above, below = [31.0, 40.0, 35.5, 44.0], [6.1, 5.5, 7.0, 6.4]
    found, swapped = ratio_interval(above, below, 0.9), ratio_interval(below, above, 0.9)
    assert (1 / swapped.estimate, 1 / swapped.high, 1 / swapped.low) == pytest.approx(
        (found.estimate, found.low, found.high)
    )


def test_a_ratio_does_not_depend_on_the_unit_and_a_mean_moves_with_it():
    above, below = [31.0, 40.0, 35.5], [6.1, 5.5, 7.0]
    in_seconds = ratio_interval([60 * a for a in above], [60 * b for b in below])
    assert in_seconds.low == pytest.approx(ratio_interval(above, below).low)
    fractions = mean_interval([0.010, 0.014, 0.018])
    percents = mean_interval([1.0, 1.4, 1.8])
    converted = fractions.in_percent()
    assert (converted.estimate, converted.low, converted.high) == pytest.approx((1.4, percents.low, percents.high))


def test_more_confidence_is_a_wider_interval():
    values = [1.0, 1.5, 1.2]
    narrow, wide = mean_interval(values, 0.8), mean_interval(values, 0.99)
    assert wide.low < narrow.low < narrow.high < wide.high


def test_one_run_has_an_estimate_and_no_interval():
    for found, estimate in ((mean_interval([1.4]), 1.4), (ratio_interval([36.0], [6.0]), 6.0)):
        assert found.estimate == pytest.approx(estimate)
        assert (found.low, found.high, found.n, found.method) == (None, None, 1, "no interval from one run")
        assert (found.in_percent().low, found.in_percent().high) == (None, None)
        assert "one run, no interval" in str(found)


@pytest.mark.parametrize(
    ("above", "below", "message"),
    [
        ([1.0, 2.0], [1.0], "2 `numerators` cannot be paired with 1 `denominators`"),
        ([math.inf, 2.0], [1.0, 1.0], "positive finite"),
        ([1.0], [0.0], "positive finite"),
        ([], [], "one or more finite numbers"),
    ],
)
def test_ratios_that_cannot_be_taken_are_refused(above, below, message):
    with pytest.raises(ValueError, match=message):
        ratio_interval(above, below)


def test_means_of_nothing_or_of_nan_are_refused():
    for values in ([], [1.0, math.nan]):
        with pytest.raises(ValueError, match="one or more finite numbers"):
            mean_interval(values)


ON_ITS_OWN_DATA = [
    (GAIN, interval(1.2, 0.9, 1.5), 0.0, "agrees"),
    (GAIN, interval(1.8, 0.1, 3.5), 0.0, "agrees"),
    (GAIN, interval(0.9, 0.5, 1.3), 0.0, "same direction, smaller"),
    (GAIN, interval(1.9, 1.7, 2.1), 0.0, "same direction, larger"),
    (GAIN, interval(1.4, -0.1, 2.9), 0.0, "not distinguishable from no effect"),
    (GAIN, interval(0.0, 0.0, 0.0), 0.0, "not distinguishable from no effect"),
    (GAIN, interval(-0.8, -1.0, -0.6), 0.0, "opposite direction"),
    (GAIN, mean_interval([1.4]), 0.0, "no interval from one run"),
    (GAIN, None, 0.0, "not run at this scale"),
    (RATE, interval(37.7, 37.5, 37.9), None, "agrees"),
    (RATE, mean_interval([37.7]), None, "agrees"),
    (RATE, interval(37.1, 37.0, 37.6), None, "lower than the paper"),
    (RATE, interval(43.0, 42.8, 43.2), None, "higher than the paper"),
    (RATIO, interval(5.0, 4.0, 6.2), 1.0, "agrees"),
    (RATIO, interval(3.0, 2.5, 3.6), 1.0, "same direction, smaller"),
    (RATIO, interval(9.0, 7.0, 11.5), 1.0, "same direction, larger"),
    (RATIO, interval(0.5, 0.4, 0.6), 1.0, "opposite direction"),
    (CLAIMS["s4.1-pca"].values[0], interval(3.0, 2.5, 3.5), 0.0, "agrees"),  # "over a point" has no upper end
]
ELSEWHERE = [
    (GAIN, interval(1.4, 1.3, 1.5), 0.0, "direction seen"),
    (GAIN, interval(1.4, -0.1, 2.9), 0.0, "direction not seen"),
    (GAIN, interval(-1.4, -1.5, -1.3), 0.0, "opposite direction seen"),
    (GAIN, mean_interval([1.4]), 0.0, "no interval from one run"),
    (GAIN, None, 0.0, "not run at this scale"),
    (RATE, interval(37.5, 37.4, 37.6), None, "not comparable"),
    (RATIO, interval(6.0, 5.5, 6.5), 1.0, "direction seen"),
]


@pytest.mark.parametrize(("value", "measured", "no_effect", "word"), ON_ITS_OWN_DATA)
def test_on_the_claims_own_data_the_word_says_how_close(value, measured, no_effect, word):
    dataset = "ilsvrc2010" if value.dataset == "ilsvrc" else value.dataset
    for scale in ("cpu", "paper"):
        assert judge(value, measured, dataset=dataset, scale=scale, no_effect=no_effect).word == word


@pytest.mark.parametrize(("value", "measured", "no_effect", "word"), ELSEWHERE)
@pytest.mark.parametrize(
    ("dataset", "scale"),
    [("formula32", "toy"), ("formula256", "cpu"), ("imagenet20", "cpu"), ("formula32", "paper"), ("imagenet20", "paper")],
)
def test_elsewhere_the_word_is_a_direction_at_most(value, measured, no_effect, word, dataset, scale):
    assert judge(value, measured, dataset=dataset, scale=scale, no_effect=no_effect).word == word


@pytest.mark.parametrize(("value", "measured", "no_effect", "word"), ELSEWHERE)
def test_toy_is_a_direction_at_most_even_on_the_claims_own_data(value, measured, no_effect, word):
    assert judge(value, measured, dataset=value.dataset, scale="toy", no_effect=no_effect).word == word


def test_another_split_or_other_views_are_other_data():
    exact = interval(37.5, 37.4, 37.6)
    own = {"dataset": "ilsvrc2010", "scale": "paper", "no_effect": None}
    assert judge(RATE, exact, split="test", views="ten-crop", **own).word == "agrees"
    assert judge(RATE, exact, split="val", views="ten-crop", **own).word == "not comparable"
    assert judge(RATE, exact, split="test", views="centre", **own).word == "not comparable"


def test_every_word_is_reached():
    assert {case[-1] for case in ON_ITS_OWN_DATA + ELSEWHERE} == set(typing.get_args(Word))


def test_no_claim_can_agree_on_a_stand_in():
    for claim in CLAIMS.values():
        for value in claim.values:
            no_effect = 0.0 if value.unit == "points" else 1.0 if value.unit == "ratio" else None
            exact = interval(value.paper, value.paper, value.paper)
            for dataset, scale in (("formula32", "toy"), ("formula256", "paper"), ("imagenet20", "cpu"), ("", "cpu")):
                verdict = judge(value, exact, dataset=dataset, scale=scale, no_effect=no_effect)
                assert verdict.word in ("direction seen", "not comparable"), claim.id


def test_the_sentence_says_the_measurement_the_data_and_the_papers_value():
    verdict = judge(RATIO, interval(4.2, 3.1, 5.4), dataset="cifar10", scale="cpu", no_effect=1.0)
    assert verdict.sentence == (
        "Same direction, smaller: 4.2 (95% interval 3.1 to 5.4, 3 runs) on cifar10 at the scale cpu; "
        "the paper's tanh epochs over ReLU epochs is 6, on cifar10 train."
    )
    elsewhere = judge(GAIN, interval(0.5, 0.2, 0.8), dataset="imagenet20", scale="cpu", no_effect=0.0).sentence
    assert elsewhere.endswith("the paper's top-1 gain is 1.4 points, on ilsvrc2012 val ten-crop, and is not compared.")


def test_a_claim_of_no_effect_cannot_be_judged_by_direction():
    with pytest.raises(ValueError, match="no direction to see"):
        judge(Value("x", 1.0, "ratio", 0.2), interval(1.0, 0.9, 1.1), dataset="cifar10", scale="cpu", no_effect=1.0)
