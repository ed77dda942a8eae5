import numpy as np
import pytest
import torch

from alexnet.config import CifarNet, Optimiser, Schedule, UserError
from alexnet.model import build
from alexnet.training.optimizer import PaperSGD, Rates, build_optimiser, rates_of, set_rates


def test_the_update_is_the_papers_equation_also_when_the_rate_changes():
    """v <- 0.9 v - 0.0005 e w - e g; w <- w + v, in float64 by hand; the velocity keeps the old rate's part after a drop."""
    weight = torch.nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    optimiser = PaperSGD([weight], rate=0.1, momentum=0.9, weight_decay=0.0005)
    w, v = np.array([1.0, -2.0]), np.zeros(2)
    for step in range(12):
        rate = 0.1 if step < 6 else 0.01
        optimiser.param_groups[0]["rate"] = rate
        g = np.sin(w) + step
        weight.grad = torch.from_numpy(g.copy())
        optimiser.step()
        v = 0.9 * v - 0.0005 * rate * w - rate * g
        w = w + v
        np.testing.assert_allclose(weight.detach().numpy(), w, rtol=1e-12)


def test_at_a_constant_rate_it_equals_torchs_form_and_after_a_drop_it_does_not():
    ours, theirs = (torch.nn.Parameter(torch.tensor([1.0], dtype=torch.float64)) for _ in range(2))
    paper = PaperSGD([ours], rate=0.1, momentum=0.9, weight_decay=0.0005)
    sgd = torch.optim.SGD([theirs], lr=0.1, momentum=0.9, weight_decay=0.0005)

    def step():
        for parameter, optimiser in ((ours, paper), (theirs, sgd)):
            parameter.grad = torch.cos(parameter.detach())
            optimiser.step()

    for _ in range(8):
        step()
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-12)
    paper.param_groups[0]["rate"] = sgd.param_groups[0]["lr"] = 0.01
    step()
    assert abs(ours.item() - theirs.item()) > 1e-3


def test_biases_move_at_twice_the_rate_and_do_not_decay():
    net = build(CifarNet(topology="conv-local-13pct", width=0.125), seed=0)
    groups = {group["kind"]: group for group in build_optimiser(net, Optimiser(rate=0.01, weight_decay=0.004)).param_groups}
    assert {kind: len(group["params"]) for kind, group in groups.items()} == {
        **{"conv1_weights": 1, "conv1_biases": 1, "weights": 4, "biases": 4}
    }
    for kind, group in groups.items():
        expected = (0.02, 0.0) if "biases" in kind else (0.01, 0.004)
        assert (group["rate"], group["weight_decay"]) == expected
        assert all(parameter.ndim == 1 or "weights" in kind or not parameter.any() for parameter in group["params"])


def test_the_papers_rule_decays_biases_too():
    net = build(CifarNet(width=0.125), seed=0)
    optimiser = build_optimiser(net, Optimiser(rate=0.01, bias_rate_factor=1.0, weight_decay=5e-4, bias_decay=5e-4))
    assert {(group["rate"], group["weight_decay"]) for group in optimiser.param_groups} == {(0.01, 5e-4)}


# The 2012 run notes of #145-2010 (Table 1), 93 epochs: the first epoch at each setting, with the rates of weights, of
# biases, and of conv1's weights over their initial values, and whether colour noise was on.
NOTES_145_2010 = [
    (0, 1.0, 1.0, 1.0, True),
    (23, 0.1, 0.1, 0.1, True),
    (51, 0.01, 0.1, 0.01, True),
    (68, 0.01, 0.1, 0.001, False),
    (72, 0.01, 0.1, 0.0, False),
    (78, 0.001, 0.1, 0.0, False),
]


def test_the_fractions_give_the_epochs_of_the_2012_run_notes_within_one():
    found = []
    for epoch in range(93):
        rates = rates_of(Schedule(), 93, epoch)
        setting = (rates.weights, rates.biases, rates.conv1_weights, rates.colour_noise)
        if not found or found[-1][1:] != pytest.approx(setting):
            found.append((epoch, *setting))
    assert [row[1:] for row in found] == [pytest.approx(row[1:]) for row in NOTES_145_2010]
    assert all(abs(ours[0] - noted[0]) <= 1 for ours, noted in zip(found, NOTES_145_2010, strict=True))


def test_a_plateau_drops_every_rate_three_times_and_then_ends():
    """Patience 2: errors that stop improving after the second epoch, improve once more, and stop again."""
    schedule = Schedule(kind="plateau", patience=2, bias_drops=3, conv1_drop=None, conv1_freeze=None)
    errors = [0.9, 0.8, 0.8, 0.81, 0.7, 0.7, 0.75, 0.7, 0.9, 0.71, 0.72, 0.6]
    drops_after = [0, 0, 0, 0, 1, 1, 1, 2, 2, 3, 3, 4]  # after 0, 1, 2 ... errors; four mean the end
    for seen, drops in enumerate(drops_after):
        rates = rates_of(schedule, 90, seen, errors[:seen])
        if drops == 4:
            assert rates is None
        else:
            assert (rates.weights, rates.biases, rates.conv1_weights) == pytest.approx((0.1**drops,) * 3)
            assert rates.colour_noise


def test_without_a_schedule_the_rates_stay():
    assert rates_of(None, 60, 59) == Rates()


def test_rates_multiply_the_initial_ones_and_leave_velocities_alone():
    net = build(CifarNet(width=0.125), seed=0)
    optimiser = build_optimiser(net, Optimiser(rate=0.01))
    for parameter in net.parameters():
        optimiser.state[parameter]["velocity"].fill_(3.0)
    for rates in (Rates(0.5, 0.25, 0.125, 0.0), Rates(0.1, 0.1, 0.01, 0.1)):
        set_rates(optimiser, rates)
        found = {group["kind"]: group["rate"] for group in optimiser.param_groups}
        assert found == pytest.approx(
            {
                "weights": 0.01 * rates.weights,
                "biases": 0.02 * rates.biases,
                "conv1_weights": 0.01 * rates.conv1_weights,
                "conv1_biases": 0.02 * rates.conv1_biases,
            }
        )
    assert all((optimiser.state[p]["velocity"] == 3.0).all() for p in net.parameters())


def test_at_rate_0_weights_stand_still_at_once_and_keep_their_velocity():
    """Source 2012 skips the update; by the printed rule alone conv1 would coast on its velocity after it is frozen."""
    net = build(CifarNet(width=0.125), seed=0)
    optimiser = build_optimiser(net, Optimiser(rate=0.01, weight_decay=0.1))
    for rates in (Rates(), Rates(conv1_weights=0.0, conv1_biases=0.0)):
        set_rates(optimiser, rates)
        before = {name: weight.detach().clone() for name, weight in net.named_parameters()}
        for weight in net.parameters():
            weight.grad = torch.ones_like(weight)
        optimiser.step()
        moved = {name for name, weight in net.named_parameters() if not torch.equal(weight, before[name])}
        frozen = {"conv1.weight", "conv1.bias"} if rates.conv1_weights == 0 else set()
        assert moved == before.keys() - frozen
    velocity = optimiser.state[net.get_parameter("conv1.bias")]["velocity"]
    assert (velocity == -0.02).all(), "the first step's: twice the rate times a gradient of 1"


@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_a_short_training_begins_at_the_full_rate(epochs):
    """A quarter of one epoch rounds to 0, before any step was made."""
    assert rates_of(Schedule(), epochs, 0) == Rates()
    early = Schedule(drops=(0.0, 0.1), conv1_drop=0.2, conv1_freeze=0.3)
    assert rates_of(early, epochs, 0) == Rates()
    assert rates_of(early, epochs, 1).weights == pytest.approx(0.01)


def test_weights_of_a_layer_may_decay_at_a_rate_of_their_own():
    """As in the 2012 files of the CIFAR-10 nets: nothing in conv layers, .004 in local ones, .01 in the last (11 % net)."""
    net = build(CifarNet(topology="conv-local-13pct", width=0.125), seed=0)
    own = (("conv1", 0.0), ("conv2", 0.0), ("fc5", 0.01))
    optimiser = build_optimiser(net, Optimiser(rate=0.5, weight_decay=0.004, layer_decay=own))
    for weight in net.parameters():
        weight.data.fill_(1.0)
        weight.grad = torch.zeros_like(weight)
    optimiser.step()
    expected = {"conv1": 0.0, "conv2": 0.0, "local3": 0.004, "local4": 0.004, "fc5": 0.01}
    for name, weight in net.named_parameters():
        layer, kind = name.split(".")
        decay = expected[layer] if kind == "weight" else 0.0
        np.testing.assert_allclose(weight.detach(), 1 - 0.5 * decay, rtol=1e-6)


def test_decay_of_a_layer_that_is_not_there_is_refused():
    with pytest.raises(UserError, match="no weights of a layer 'fc4' to decay; did you mean 'fc5'"):
        build_optimiser(build(CifarNet("conv-local-13pct", width=0.125), seed=0), Optimiser(layer_decay=(("fc4", 0.1),)))
