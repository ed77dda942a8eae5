import math

import pytest

from alexnet.config import Optimiser, RunConfig
from alexnet.experiments import rate_search
from alexnet.experiments.answers import crossing_epoch, training_errors
from alexnet.experiments.rate_search import search_rate

LINE = 0.25


def rows(*errors):
    """The metrics of a run: training errors after each epoch, and what else is counted, which must not matter."""
    found = []
    for epoch, error in enumerate(errors):
        count = {"epoch": epoch, "total": 10_000}
        found.append(count | {"split": "train", "views": "as trained", "k": 1, "wrong": 9_999})
        found.append(count | {"split": "train", "views": "whole", "k": 1, "wrong": round(10_000 * error)})
        found.append(count | {"split": "test", "views": "whole", "k": 1, "wrong": 0})
    return found


@pytest.mark.parametrize(
    ("errors", "epoch"),
    [
        ((0.9, 0.5, 0.3, 0.2), 2.5),  # half of the way from 0.30 to 0.20
        ((0.9, 0.25), 1.0),
        ((0.9, 0.26, 0.24, 0.3, 0.1), 1.5),  # the first crossing counts
        ((0.9, 0.5, 0.26), math.inf),
        ((0.2,), 0.0),
    ],
)
def test_the_crossing_is_interpolated_between_epochs(errors, epoch):
    assert crossing_epoch(training_errors(rows(*errors)), LINE) == pytest.approx(epoch)


def config_of(rate, seed):
    return RunConfig(seed=seed, optimiser=Optimiser(rate=rate))


def falling(epochs_to_line, limit):
    """A run that falls on a straight line from 0.9 and is cut off at `limit`."""
    last = math.ceil(epochs_to_line) if limit is None else min(limit, math.ceil(epochs_to_line))
    return rows(*(0.9 - 0.65 * epoch / epochs_to_line for epoch in range(last + 1)))


def bowl(best_rate, calls):
    """Runs whose crossing grows by 3 epochs for each factor of two away from `best_rate`."""

    def metrics_of(config, limit):
        calls.append((config.optimiser.rate, config.seed, limit))
        return falling(10 + 3 * abs(math.log2(config.optimiser.rate / best_rate)), limit)

    return metrics_of


@pytest.mark.parametrize("best", [0.001, 0.004, 0.016])
def test_the_search_walks_to_the_fastest_rate_and_brackets_it(best):
    calls = []
    search = search_rate(config_of, LINE, 0.004, bowl(best, calls))
    assert search.best_rate == best
    assert search.bracketed
    assert search.crossings[best] == pytest.approx(10, abs=0.01)
    assert {best / 2, best * 2} <= search.crossings.keys()
    assert len(calls) == len({rate for rate, _, _ in calls}), "no rate is tried twice"
    assert {seed for _, seed, _ in calls} == {0}


def test_a_run_is_bounded_by_the_epoch_after_which_it_cannot_be_a_near_tie():
    calls = []
    search_rate(config_of, LINE, 0.004, bowl(0.004, calls))
    assert calls == [(0.004, 0, None), (0.002, 0, 11), (0.008, 0, 11)]


def test_a_rate_that_crosses_a_little_later_is_a_near_tie_and_one_that_crosses_much_later_is_not():
    crossings = {0.002: 10.9, 0.004: 10.0, 0.008: 11.1}
    search = search_rate(config_of, LINE, 0.004, lambda config, limit: falling(crossings[config.optimiser.rate], limit))
    assert (search.best_rate, search.bracketed, search.ties) == (0.004, True, [0.002])


def test_when_nothing_crosses_the_search_goes_down_and_then_gives_up(monkeypatch):
    monkeypatch.setattr(rate_search, "MAX_PLACES", 3)
    calls = []

    def never(config, limit):
        calls.append(config.optimiser.rate)
        return rows(0.9, 0.9)

    search = search_rate(config_of, LINE, 0.004, never)
    assert search.best_rate is None
    assert calls == [0.004, 0.002, 0.001]


def test_a_search_whose_next_run_is_missing_is_not_bracketed():
    search = search_rate(
        config_of, LINE, 0.004, lambda config, limit: falling(10, None) if config.optimiser.rate == 0.004 else None
    )
    assert not search.bracketed
    assert search.best_rate == 0.004


def test_a_search_that_gives_up_says_so_and_one_that_is_not_over_does_not():
    def ever_faster(config, limit):
        return falling(0.04 / config.optimiser.rate, None)

    search = search_rate(config_of, LINE, 0.001, ever_faster)
    assert (len(search.metrics), search.bracketed, search.ties) == (rate_search.MAX_PLACES, False, [])
    assert search.said == "no rate that is faster than both its neighbours among 8 from 0.0005 to 0.064"
    first = {0.001: rows(0.9, 0.2)}
    halfway = search_rate(config_of, LINE, 0.001, lambda config, limit: first.get(config.optimiser.rate))
    assert halfway.said == "rate not found yet"
    assert search_rate(config_of, LINE, 0.004, bowl(0.004, [])).said == "rate 0.004"
