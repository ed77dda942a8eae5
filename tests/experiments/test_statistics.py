"""Intervals against printed tables, arithmetic by hand and random trials, and every word of a verdict reached by a case."""

import math
import typing
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from alexnet.experiments.statistics import (
    Interval,
    Word,
    count_interval,
    dunnett_critical,
    family_intervals,
    judge,
    mean_interval,
    rate_interval,
    ratio_interval,
)
from alexnet.paper import CLAIMS, Value

# Student's t, two-sided 95 %, from a printed table: 2 and 1 degrees of freedom.
T2, T1 = 4.302653, 12.706205
GAIN = CLAIMS["s3.3-lrn"].by_key("top-1 gain")  # 1.4 points, margin 0.4, ilsvrc2012 val, ten views
RATE = CLAIMS["table1"].by_key("top-1 error, CNN")  # 37.5 %, margin 0.3, ilsvrc2010 test, ten views
RATIO = CLAIMS["fig1-relu"].by_key("tanh epochs over ReLU epochs")  # 6, margin 1.5, cifar10 train, whole images
NOISE = CLAIMS["s4.1-pca"].by_key("top-1 gain")  # at least 1 point, margin 0.4, any ILSVRC, val or test, ten views
DIFFERENCE = CLAIMS["s6-val-test"].by_key("difference of validation and test error, top-1")  # at most 0.1, margin 0.25
DIRECTION = CLAIMS["s4.2-dropout"].by_key("top-1 gain")  # no number


def interval(estimate, low, high, n=3):
    return Interval(estimate, low, high, n)


def ends(found):
    return found.low, found.high


def word(value, measured, dataset=None, split=None, views=None, scale="paper"):
    """Judge on the value's own data, split and views, but for what is given."""
    own = {"ilsvrc": "ilsvrc2010"}.get(value.dataset, value.dataset)
    split = split or value.split.split(" or ")[0]
    return judge(value, measured, dataset=dataset or own, split=split, views=views or value.views, scale=scale).word


def test_the_interval_of_a_mean_is_students():
    """Mean 2 and squares of the differences 1 + 0 + 1 over 2: sd 1; half-width t * 1 / sqrt(3)."""
    found = mean_interval([1.0, 2.0, 3.0])
    half = T2 / math.sqrt(3)
    assert (found.estimate, found.n) == (2.0, 3)
    assert ends(found) == pytest.approx((2 - half, 2 + half), abs=1e-5)


def test_the_interval_of_two_runs_is_very_wide():
    """Values 1 and 3: sd sqrt(2), standard error 1, half-width t of one degree of freedom."""
    assert ends(mean_interval([1.0, 3.0])) == pytest.approx((2 - T1, 2 + T1), abs=1e-5)


def test_the_interval_of_ratios_is_students_on_their_logarithms():
    """Ratios 2, 4, 8 have logarithms ln 2 times 1, 2, 3: mean 2 ln 2, sd ln 2."""
    found = ratio_interval([2.0, 8.0, 24.0], [1.0, 2.0, 3.0])
    half = T2 * math.log(2) / math.sqrt(3)
    assert found.estimate == pytest.approx(4.0)
    assert ends(found) == pytest.approx((4 * math.exp(-half), 4 * math.exp(half)), rel=1e-5)


def test_ratios_are_paired_by_seed():
    """Each seed's ratio is 6, however much the seeds differ: an interval without width."""
    found = ratio_interval([30.0, 36.0, 48.0], [5.0, 6.0, 8.0])
    assert (found.low, found.estimate, found.high) == pytest.approx((6.0, 6.0, 6.0))
    assert ratio_interval([30.0, 36.0, 48.0], [8.0, 5.0, 6.0]).low < 5


def test_swapping_numerators_and_denominators_inverts_the_interval():
    above, below = [31.0, 40.0, 35.5, 44.0], [6.1, 5.5, 7.0, 6.4]
    found, swapped = ratio_interval(above, below), ratio_interval(below, above)
    assert (1 / swapped.estimate, 1 / swapped.high, 1 / swapped.low) == pytest.approx(
        (found.estimate, found.low, found.high)
    )


def test_a_numerator_that_never_arrived_bounds_the_ratio_from_below():
    """At the limit of 60 epochs the ratios are 2, 4 and at least 8: the lower end is that of 2, 4, 8, the upper one open."""
    found = ratio_interval([12.0, 24.0, math.inf], [6.0, 6.0, 7.5], limits=(60, 60))
    half = T2 * math.log(2) / math.sqrt(3)
    assert ends(found) == pytest.approx((4 * math.exp(-half), math.inf), rel=1e-5)
    assert (found.estimate, found.n) == (pytest.approx(4.0), 3)
    assert str(found).startswith("at least 4.00 (one-sided: above 0.71")


def test_a_denominator_that_never_arrived_bounds_the_ratio_from_above():
    whole, found = ratio_interval([12.0, 24.0], [6.0, 30.0]), ratio_interval([12.0, 24.0], [6.0, math.inf], limits=(60, 30))
    assert ends(found) == (-math.inf, pytest.approx(whole.high))
    assert str(found).startswith("at most")


def test_runs_that_never_arrived_on_both_sides_leave_no_bound():
    for above, below in (([math.inf, 12.0], [6.0, math.inf]), ([math.inf, 12.0], [math.inf, 6.0])):
        found = ratio_interval(above, below, limits=(60, 60))
        assert ends(found) == (-math.inf, math.inf)
        assert "bounded on neither side" in str(found)


@pytest.mark.parametrize(("seeds", "limit", "misses"), [(3, 36, 0.13), (4, 40, 0.065), (3, 60, 0.035)])
def test_a_censored_bound_is_rarely_above_the_true_ratio(seeds, limit, misses):
    """The true ratio is 5.9 and its logarithm's sd 0.2; 36 epochs hide nearly half of the runs, 60 hardly any."""
    draws, trials = np.random.default_rng(0), 2000
    above = 6 * np.exp(draws.normal(math.log(5.9), 0.2, (trials, seeds)))
    above[above > limit] = math.inf
    found = [ratio_interval(row, [6.0] * seeds, limits=(limit, limit)) for row in above.tolist()]
    assert np.mean([one.low > 5.9 for one in found]) < misses
    assert max(one.low for one in found) <= limit / 6 + 1e-9


@pytest.mark.parametrize(
    ("above", "below", "message"),
    [
        ([math.inf, 2.0], [1.0, 1.0], "or `limits`"),
        ([math.nan], [1.0], "positive"),
        ([1.0], [0.0], "positive"),
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


def test_one_run_has_an_estimate_and_no_interval():
    for found, estimate in ((mean_interval([1.4]), 1.4), (ratio_interval([36.0], [6.0]), 6.0)):
        assert (found.estimate, found.n) == (pytest.approx(estimate), 1)
        assert (found.low, found.high) == (None, None)
        assert "one run" in str(found)
    found = family_intervals({"arm": [3.0]}, [1.0])["arm"]
    assert (found.estimate, found.low, found.high) == (2.0, None, None)


# Dunnett's table (1964), two-sided 95 %, groups of one size: comparisons, degrees of freedom, critical value.
TABLE = [
    (1, 20, 2.09), (2, 20, 2.38), (3, 20, 2.54), (4, 20, 2.65), (9, 20, 2.95),
    (2, 12, 2.50), (5, 12, 2.90), (2, 6, 2.86), (3, 6, 3.10), (2, 60, 2.27),
]  # fmt: skip


@pytest.mark.parametrize(("comparisons", "freedom", "printed"), TABLE)
def test_critical_values_are_those_of_dunnetts_table(comparisons, freedom, printed):
    assert dunnett_critical([7] * comparisons, 7, freedom) == pytest.approx(printed, abs=0.006)


def test_one_comparison_is_students_t_test():
    """Differences of 1 to means 5 and 2; pooled sum of squares 2 + 2 over 3 degrees of freedom, from samples of 3 and 2."""
    found = family_intervals({"arm": [4.0, 5.0, 6.0]}, [1.0, 3.0])["arm"]
    half = 3.182446 * math.sqrt(4 / 3) * math.sqrt(1 / 3 + 1 / 2)
    assert (found.estimate, *ends(found)) == pytest.approx((3.0, 3 - half, 3 + half), abs=1e-5)
    assert dunnett_critical([1], 2, 1) == pytest.approx(T1, abs=1e-4)


def test_a_family_is_scipys_dunnett_for_samples_of_any_sizes():
    draws = np.random.default_rng(1)
    samples = {str(n): draws.normal(41, 0.2, n) for n in (2, 3, 2, 4)}
    control = draws.normal(40, 0.2, 5)
    theirs = stats.dunnett(*samples.values(), control=control, random_state=0).confidence_interval(0.95)
    found = family_intervals(samples, control)
    for low, high, name in zip(theirs.low, theirs.high, samples, strict=True):
        assert ends(found[name]) == pytest.approx((low, high), abs=0.003)
        assert found[name].n == min(len(samples[name]), 5)


def test_a_family_with_single_runs_covers_all_its_differences_together():
    """Three arms of one, one and two runs against three: in 95 % of trials no true difference, which is 0, is left out."""
    draws, trials = np.random.default_rng(2), 200_000
    sizes, control = (1, 1, 2), 3
    critical = dunnett_critical(sizes, control, 3)
    base = draws.normal(size=(trials, control))
    arms = [draws.normal(size=(trials, n)) for n in sizes]
    square = sum(((group - group.mean(1, keepdims=True)) ** 2).sum(1) for group in (base, *arms))
    sd = np.sqrt(square / 3)
    apart = [np.abs(arm.mean(1) - base.mean(1)) / math.sqrt(1 / arm.shape[1] + 1 / control) / sd for arm in arms]
    assert (np.max(apart, axis=0) <= critical).mean() == pytest.approx(0.95, abs=0.002)
    found = family_intervals({str(i): arm[0] for i, arm in enumerate(arms)}, base[0])
    assert found["0"].high - found["0"].estimate == pytest.approx(critical * sd[0] * math.sqrt(1 + 1 / 3))


def test_the_variance_is_pooled_over_arms_that_are_no_members_too():
    samples, control, others = {"arm": [4.0, 5.0]}, [1.0, 3.0], [[7.0, 7.0, 10.0], [5.0]]
    square = 0.5 + 2 + 6  # of deviations from each mean, with 1 + 1 + 2 + 0 degrees of freedom
    half = 2.776445 * math.sqrt(square / 4) * math.sqrt(1 / 2 + 1 / 2)  # Student's t: one comparison
    assert ends(family_intervals(samples, control, 1, *others)["arm"]) == pytest.approx((2.5 - half, 2.5 + half), abs=1e-5)


def test_a_lone_seed_that_never_arrived_is_a_bound_and_no_estimate():
    assert str(ratio_interval([math.inf], [3.0], limits=(60, 60))).startswith("at least 20.00 ")
    assert str(ratio_interval([3.0], [math.inf], limits=(60, 60))).startswith("at most 0.05 ")


def test_more_comparisons_are_wider_intervals():
    criticals = [dunnett_critical([2] * k, 5, 20) for k in (1, 4, 16)]
    assert criticals == sorted(criticals)


def test_the_interval_of_a_count_is_wilsons():
    """10 of 100 at 95 %: Wilson's interval is 5.52 to 17.44 % (Newcombe 1998 has 81 of 263 as 25.5 to 36.6 %)."""
    assert ends(count_interval(10, 100)) == pytest.approx((5.523, 17.437), abs=0.001)
    assert ends(count_interval(81, 263)) == pytest.approx((25.5, 36.6), abs=0.06)
    assert ends(count_interval(0, 10)) == pytest.approx((0.0, 27.75), abs=0.005)
    with pytest.raises(ValueError, match="no error rate"):
        count_interval(11, 10)


def test_a_rate_is_of_seeds_where_there_are_several_and_of_the_count_where_there_is_one():
    assert rate_interval([(10, 100)]) == count_interval(10, 100)
    found = rate_interval([(1, 100), (2, 100), (3, 100)])
    assert (found.estimate, found.high) == pytest.approx((2.0, 2 + T2 / math.sqrt(3)), abs=1e-5)
    assert found.low == 0, "Student's would be -0.48, which is no error rate"
    assert rate_interval([(97, 100), (98, 100), (99, 100)]).high == 100


ON_ITS_OWN_DATA = [
    (GAIN, interval(1.2, 1.01, 1.5), "agrees"),
    (GAIN, interval(1.2, 0.9, 1.5), "compatible"),
    (GAIN, interval(1.8, 0.1, 3.5), "compatible"),
    (GAIN, interval(0.9, 0.5, 1.3), "smaller"),
    (GAIN, interval(1.9, 1.7, 2.1), "larger"),
    (GAIN, interval(1.2, 1.1, 1.3), "agrees"),
    (GAIN, interval(1.4, -0.1, 2.9), "not distinguishable from no effect"),
    (GAIN, interval(0.0, 0.0, 0.0), "not distinguishable from no effect"),
    (GAIN, interval(-0.8, -1.0, -0.6), "opposite"),
    (GAIN, mean_interval([1.4]), "one run"),
    (GAIN, interval(1.4, 1.3, 1.5, n=1), "one run"),
    (GAIN, None, "not run at this scale"),
    (RATE, interval(37.7, 37.6, 37.8), "agrees"),
    (RATE, interval(37.7, 37.4, 38.0), "compatible"),
    (RATE, interval(37.7, 37.5, 37.9, n=1), "compatible"),
    (RATE, interval(37.0, 36.9, 37.1), "lower"),
    (RATE, interval(43.0, 42.8, 43.2), "higher"),
    (RATE, mean_interval([37.7]), "one run"),
    (RATIO, interval(5.0, 4.6, 6.2), "agrees"),
    (RATIO, interval(5.0, 4.0, 6.2), "compatible"),
    (RATIO, interval(3.0, 2.5, 3.6), "smaller"),
    (RATIO, interval(9.0, 5.9, 11.5), "compatible"),
    (RATIO, interval(9.0, 8.0, 11.5), "larger"),
    (RATIO, interval(9.0, 5.0, math.inf), "compatible"),
    (RATIO, interval(9.0, 7.0, math.inf), "larger"),
    (RATIO, interval(0.5, 0.4, 0.6), "opposite"),
    (RATIO, interval(2.0, -math.inf, 5.0), "not distinguishable from no effect"),
    (NOISE, interval(3.0, 2.5, 3.5), "agrees"),  # "over a point" has no upper end
    (NOISE, interval(0.8, 0.7, 0.9), "agrees"),
    (NOISE, interval(0.8, 0.5, 1.1), "compatible"),
    (NOISE, interval(0.5, 0.4, 0.6), "smaller"),
    (DIFFERENCE, interval(-0.1, -0.3, 0.1), "agrees"),
    (DIFFERENCE, interval(0.2, 0.0, 0.4), "compatible"),
    (DIFFERENCE, interval(-5.0, -5.1, -4.9), "lower"),
    (DIFFERENCE, interval(0.8, 0.5, 1.1), "higher"),
    (DIRECTION, interval(0.4, 0.1, 0.7), "direction seen"),
    (DIRECTION, interval(0.4, -0.1, 0.9), "direction not seen"),
    (DIRECTION, interval(-0.4, -0.7, -0.1), "opposite"),
]
ELSEWHERE = [
    (GAIN, interval(1.4, 1.3, 1.5), "direction seen"),
    (GAIN, interval(1.4, -0.1, 2.9), "direction not seen"),
    (GAIN, interval(-1.4, -1.5, -1.3), "opposite"),
    (GAIN, mean_interval([1.4]), "one run"),
    (GAIN, None, "not run at this scale"),
    (RATE, interval(37.5, 37.4, 37.6), "not compared"),
    (RATIO, interval(6.0, 5.5, 6.5), "direction seen"),
    (DIFFERENCE, interval(0.0, -0.1, 0.1), "not compared"),
]


@pytest.mark.parametrize(("value", "measured", "expected"), ON_ITS_OWN_DATA)
def test_on_the_claims_own_data_the_word_says_how_close(value, measured, expected):
    for scale in ("small", "paper"):
        assert word(value, measured, scale=scale) == expected


@pytest.mark.parametrize(("value", "measured", "expected"), ELSEWHERE)
def test_elsewhere_the_word_is_a_direction_at_most(value, measured, expected):
    for dataset, scale in (("formula32", "toy"), ("formula256", "small"), ("imagenet20", "small"), ("imagenet20", "paper")):
        assert word(value, measured, dataset, scale=scale) == expected
    assert word(value, measured, scale="toy") == expected


def test_another_split_or_other_views_are_other_data():
    exact = interval(37.5, 37.4, 37.6)
    assert word(RATE, exact) == "agrees"
    assert word(RATE, exact, split="val") == "not compared"
    assert word(RATE, exact, views="central") == "not compared"
    assert word(NOISE, interval(3.0, 2.5, 3.5), split="test") == "agrees"
    assert word(NOISE, interval(3.0, 2.5, 3.5), split="train") == "direction seen"


def test_every_word_is_reached():
    assert {case[-1] for case in ON_ITS_OWN_DATA + ELSEWHERE} | {"one ensemble", "diverged"} == set(typing.get_args(Word))
    assert word(GAIN, Interval(2.6, 2.4, 2.8, 1, "ensemble")) == "one ensemble"


def test_no_claim_can_agree_on_a_stand_in():
    for claim in CLAIMS.values():
        for value in claim.values:
            exact = interval(value.paper + 0.01, value.paper + 0.005, value.paper + 0.02)
            for dataset, scale in (("formula32", "toy"), ("formula256", "paper"), ("imagenet20", "small")):
                assert word(value, exact, dataset, scale=scale) in ("direction seen", "not compared"), claim.id


def test_the_sentence_says_the_measurement_its_data_and_the_papers_value():
    verdict = judge(RATIO, interval(4.2, 3.1, 5.4), dataset="cifar10", split="train", views="whole", scale="small")
    assert verdict.sentence == (
        "Smaller: tanh epochs over ReLU epochs 4.20 times (95% interval 3.10 to 5.40, 3 runs) on CIFAR-10, training, "
        "whole images, scale small; the paper gives 6 times, on CIFAR-10, training, whole images."
    )
    said = {"dataset": "imagenet20", "split": "val", "views": "central", "scale": "small"}
    assert judge(GAIN, interval(0.5, 0.2, 0.8), **said).sentence.endswith(
        "on ImageNet-20, validation, central view, scale small; the paper gives 1.4 points, on "
        "ILSVRC-2012, validation, ten views, and the numbers are not compared."
    )
    not_run = "Not run at scale small, on ImageNet-20, validation, central view: top-1 gain; the paper gives 1.4 points"
    assert judge(GAIN, None, **said).sentence.startswith(not_run)


def test_what_cannot_be_told_from_nothing_says_whether_the_papers_number_is_in_the_interval():
    for low, high, said in ((-0.1, 1.6, "contains the"), (-0.1, 0.9, "does not contain the")):
        own = {"dataset": "ilsvrc2012", "split": "val", "views": "ten", "scale": "paper"}
        assert f"the interval {said} paper's number" in judge(GAIN, interval(0.5, low, high), **own).sentence


def test_a_claim_in_words_is_judged_by_its_direction():
    value = Value("more errors without", 0.0, "points", bound="at least", dataset="ilsvrc", split="val or test")
    verdict = judge(value, interval(0.4, 0.1, 0.7), dataset="imagenet20", split="val", views="ten", scale="small")
    assert verdict.word == "direction seen"
    assert "the paper gives a direction and no number" in verdict.sentence


def test_a_question_of_our_own_is_not_put_into_the_papers_mouth():
    asked = replace(GAIN, paper=0.0, asked=True)
    verdict = judge(asked, interval(0.5, 0.2, 0.8), dataset="imagenet20", split="val", views="ten", scale="small")
    assert "the question is our own" in verdict.sentence
    assert "paper" not in verdict.sentence
