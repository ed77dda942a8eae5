"""What the chapter of Figure 1 says about runs, from made-up curves."""

import math

import pytest

from alexnet.claims import fig1
from alexnet.claims.experiments import fig1_studies
from alexnet.claims.search import Search, StudyResult


def curve(crossing, epochs=10):
    """Errors that fall to 25 % exactly at an epoch, or stay at 90 %."""
    return [{"epoch": e, "train_error": 0.9 if e < crossing else 0.25} for e in range(epochs + 1)]


def result(activation, crossings):
    study = next(s for s in fig1_studies("cpu") if (s.topology, s.activation) == ("19pct", activation))
    return StudyResult(study, Search({0.01: curve(2)}, 0.01, True), {seed: curve(at) for seed, at in crossings.items()})


@pytest.fixture
def comparison():
    """Seeds 1 and 2 cross with both; ReLU's seed 3 never does."""
    results = result("relu", {1: 2, 2: 4, 3: math.inf}), result("tanh", {1: 8, 2: 8, 3: 8})
    return fig1._compare("19pct", "cpu", *results, 0.95)


def test_a_seed_that_never_crosses_is_told_and_has_no_ratio(comparison):
    """Ratios 4 and 2, whose geometric mean is the root of 8."""
    assert comparison.seeds == [1, 2]
    assert comparison.ratio.estimate == pytest.approx(math.sqrt(8))
    sentence = fig1.numbers([comparison])["19pct-sentence"]
    assert "ReLU with seed 3 in 60 epochs" in sentence
    assert "over 2 seeds" in sentence
    rows = [row.split("|")[2:6] for row in fig1.crossings_table([comparison]).data.splitlines() if "19pct" in row]
    assert [[cell.strip() for cell in row] for row in rows[:3]] == [
        ["1", "2.00", "8.00", "4.00"],
        ["2", "4.00", "8.00", "2.00"],
        ["3", "never", "8.00", ""],
    ]


def test_when_every_seed_crosses_nothing_is_said_of_failures():
    results = result("relu", {1: 2, 2: 4}), result("tanh", {1: 8, 2: 8})
    assert "Never" not in fig1.numbers([fig1._compare("19pct", "cpu", *results, 0.95)])["19pct-sentence"]


def test_two_nets_are_said_to_agree_only_if_their_intervals_overlap():
    """Ratios from 8 to 9 of one net, from 7 to 9 of another that overlaps, and of 2 of one that does not."""
    relu = result("relu", {1: 1, 2: 1, 3: 1})
    one, close, far = (
        fig1._compare("19pct", "cpu", relu, result("tanh", dict(enumerate(crossings, start=1))), 0.95)
        for crossings in ([8, 9, 9], [7, 8, 9], [2, 2, 2])
    )
    assert fig1.numbers([one, close])["nets"] == " Here their intervals overlap."
    assert "do not overlap" in fig1.numbers([one, far])["nets"]
    assert fig1.numbers([one])["nets"] == ""
