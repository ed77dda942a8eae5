import math

import pytest

from alexnet.claims.experiments import Study, config_named, fig1_studies
from alexnet.claims.search import crossing_epoch, run_study, search_rate
from alexnet.config import UserError


def curve(*errors):
    return [{"epoch": epoch, "train_error": error} for epoch, error in enumerate(errors)]


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
    assert crossing_epoch(curve(*errors)) == pytest.approx(epoch)


STUDY = Study("toy", "19pct", "tanh", first_rate=0.004, seeds=(1, 2), epochs=60, data="formula32", expected_epochs=10)


def falling(epochs_to_line, limit):
    """A run that falls on a straight line from 0.9 and is cut off at `limit`."""
    last = math.ceil(epochs_to_line) if limit is None else min(limit, math.ceil(epochs_to_line))
    return curve(*(0.9 - 0.65 * epoch / epochs_to_line for epoch in range(last + 1)))


def bowl(best_rate, calls):
    """Runs whose crossing grows by 3 epochs for each factor of two away from `best_rate`."""

    def metrics_of(config, limit):
        calls.append((config.optimiser.rate, config.seed, limit))
        return falling(10 + 3 * abs(math.log2(config.optimiser.rate / best_rate)), limit)

    return metrics_of


@pytest.mark.parametrize("best", [0.001, 0.004, 0.016])
def test_the_search_walks_to_the_fastest_rate_and_brackets_it(best):
    calls = []
    search = search_rate(STUDY, bowl(best, calls))
    assert search.best_rate == best
    assert search.bracketed
    assert search.crossings[best] == pytest.approx(10)
    assert {best / 2, best * 2} <= search.crossings.keys()
    assert len(calls) == len({rate for rate, _, _ in calls}), "no rate is tried twice"
    assert {seed for _, seed, _ in calls} == {0}


def test_a_run_is_bounded_by_the_epoch_at_which_another_has_crossed():
    calls = []
    search_rate(STUDY, bowl(0.004, calls))
    assert calls == [(0.004, 0, None), (0.002, 0, 10), (0.008, 0, 10)]


def test_when_nothing_crosses_the_search_goes_down_and_then_gives_up():
    calls = []

    def never(config, limit):
        calls.append(config.optimiser.rate)
        return curve(0.9, 0.9)

    search = search_rate(STUDY, never, max_places=3)
    assert search.best_rate is None
    assert calls == [0.004, 0.002, 0.001]
    assert run_study(STUDY, never).metrics == {}


def test_the_reported_seeds_did_not_choose_the_rate():
    calls = []
    result = run_study(STUDY, bowl(0.004, calls))
    assert result.crossings == {1: pytest.approx(10), 2: pytest.approx(10)}
    assert [call for call in calls if call[1] != 0] == [(0.004, 1, None), (0.004, 2, None)]


def test_seeds_wait_for_a_search_that_is_complete():
    def only_first(config, limit):
        return falling(10, None) if config.optimiser.rate == 0.004 else None

    result = run_study(STUDY, only_first)
    assert not result.search.bracketed
    assert result.metrics == {}


@pytest.mark.parametrize("scale", ["toy", "cpu", "paper"])
def test_relu_and_tanh_differ_in_nothing_but_activation_and_rate(scale):
    studies = fig1_studies(scale)
    for relu, tanh in zip(studies[::2], studies[1::2], strict=True):
        a, b = relu.config(0.001, seed=1), tanh.config(0.001, seed=1)
        assert a.net.activation == "relu"
        assert b.net.activation == "tanh"
        assert (a.optimiser, a.data, a.epochs, a.net.topology, a.net.first_sd) == (
            b.optimiser, b.data, b.epochs, b.net.topology, b.net.first_sd)  # fmt: skip


def test_at_full_scale_the_runs_are_on_cifar10_without_any_regularisation():
    for study in fig1_studies("cpu"):
        config = study.config(study.first_rate, seed=1)
        assert config.data == "cifar10"
        assert config.optimiser.weight_decay == 0
        assert config.net.first_sd == 1e-4
        assert config.net.width == 1.0
        assert len(study.seeds) >= 3


def test_a_run_is_found_again_by_its_name():
    for study in fig1_studies("cpu"):
        config = study.config(study.rate(-3), seed=7)
        assert config_named("fig1-relu", "cpu", config.variant, 7) == config


def test_an_unknown_variant_or_claim_is_refused_with_the_nearest_name():
    with pytest.raises(UserError, match=r"did you mean '19pct-relu-rate-0.004'"):
        config_named("fig1-relu", "cpu", "19pct-relu-rat-0.004", 0)
    with pytest.raises(UserError, match="did you mean 'fig1-relu'"):
        config_named("fig1-rel", "cpu", "x", 0)
