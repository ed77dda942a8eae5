import itertools
import re

import numpy as np
import pytest
import torch

from alexnet.training.ensembles import ROWS, STEPS, average, errors_of_average, tune_parts
from alexnet.training.evaluate import errors_of


def nets_of(qualities, count=300, num_classes=12, seed=0):
    """Probabilities of nets that know the true class the better the higher their quality, each with noise of its own."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, num_classes, (count,), generator=generator)
    truth = torch.eye(num_classes)[labels]
    noise = torch.randn(len(qualities), count, num_classes, generator=generator)
    return [(q * truth + n).double().softmax(dim=1) for q, n in zip(qualities, noise, strict=True)], labels


def test_the_average_is_that_of_loops():
    nets, _ = nets_of([1, 2, 3], count=5)
    for parts in ((), (1, 1, 1), (3, 0, 17)):
        mean, weights = average(nets, parts), parts or (1, 1, 1)
        for n, k in itertools.product(range(5), range(12)):
            by_hand = sum(w * float(net[n, k]) for w, net in zip(weights, nets, strict=True)) / sum(weights)
            assert float(mean[n, k]) == pytest.approx(by_hand, rel=1e-14)
    assert mean.dtype == torch.float64


def test_nets_of_single_precision_are_added_in_double():
    nets = [torch.tensor([[1.0, 2.0**-30]]), torch.tensor([[2.0**-30, 1.0]])]
    assert average(nets).tolist() == [[(1 + 2**-30) / 2] * 2]


def test_a_net_of_weight_zero_has_no_say_even_without_numbers():
    nets, labels = nets_of([1, 2])
    nets.append(torch.full_like(nets[0], float("nan")))
    assert errors_of_average(nets, labels, (1, 1, 0)) == errors_of_average(nets[:2], labels)


def test_errors_counted_by_parts_are_those_of_the_whole():
    nets, labels = nets_of([1, 2], count=ROWS + 17)
    assert errors_of_average(nets, labels, (1, 2)) == errors_of(average(nets, (1, 2)), labels)


def all_mixtures(count):
    return [parts for parts in itertools.product(range(STEPS + 1), repeat=count) if sum(parts) == STEPS]


@pytest.mark.parametrize("lowest", ["top1", "top5"])
@pytest.mark.parametrize("seed", range(3))
def test_no_transfer_between_two_nets_improves_tuned_weights_which_are_near_the_best_of_all(lowest, seed):
    nets, labels = nets_of([0.3, 1.0, 1.6], seed=seed)
    parts, errors = tune_parts(nets, labels, lowest)
    wrong = {m: getattr(errors_of(average(nets, m), labels), lowest).wrong for m in all_mixtures(3)}
    found = getattr(errors, lowest).wrong
    assert errors == errors_of(average(nets, parts), labels)
    assert sum(parts) == STEPS
    for mixture, count in wrong.items():
        if any(a == b for a, b in zip(parts, mixture, strict=True)):
            assert count >= found, mixture
    assert found < getattr(errors_of_average(nets, labels), lowest).wrong
    assert found <= np.percentile(list(wrong.values()), 5)


def test_equal_weights_stay_where_nothing_is_better():
    (net,), labels = nets_of([2.0])
    assert tune_parts([net, net, net], labels) == ((1, 1, 1), errors_of(net, labels))
    assert tune_parts([net], labels) == ((1,), errors_of(net, labels))


def test_tuned_weights_are_the_same_each_time_and_useless_nets_lose_theirs():
    nets, labels = nets_of([3.0, 3.0, -3.0])
    parts, errors = tune_parts(nets, labels, "top1")
    assert (parts, errors) == tune_parts(nets, labels, "top1")
    assert parts[2] < min(parts[:2])


@pytest.mark.parametrize("parts", [(1,), (1, 2, 3), (-1, 2), (0, 0)])
def test_weights_that_do_not_fit_are_refused(parts):
    nets, _ = nets_of([1, 2])
    with pytest.raises(ValueError, match=re.escape(f"`parts` (={parts})")):
        average(nets, parts)


def test_nets_of_different_sets_are_refused():
    (a,), (b,) = nets_of([1], count=10)[0], nets_of([1], count=11)[0]
    for nets in ([a, b], []):
        with pytest.raises(ValueError, match="same images"):
            average(nets)
