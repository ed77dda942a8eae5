import numpy as np
import pytest
import torch

from alexnet import compiled
from alexnet.config import CifarNet, Optimiser, Schedule
from alexnet.model.cifar import build_cifar_net
from alexnet.training.optimiser import PaperSGD, Rates, build_optimiser, rates_of, set_rates


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
    net = build_cifar_net(CifarNet(topology="conv-local-13pct", width=0.125), seed=0)
    groups = {group["kind"]: group for group in build_optimiser(net, Optimiser(rate=0.01, weight_decay=0.004)).param_groups}
    assert {kind: len(group["params"]) for kind, group in groups.items()} == {
        **{"conv1_weights": 1, "conv1_biases": 1, "weights": 4, "biases": 4}
    }
    for kind, group in groups.items():
        expected = (0.02, 0.0) if "biases" in kind else (0.01, 0.004)
        assert (group["rate"], group["weight_decay"]) == expected
        assert all(parameter.ndim == 1 or "weights" in kind or not parameter.any() for parameter in group["params"])


def test_the_papers_rule_decays_biases_too():
    net = build_cifar_net(CifarNet(width=0.125), seed=0)
    optimiser = build_optimiser(net, Optimiser(rate=0.01, bias_rate_factor=1.0, weight_decay=5e-4, bias_decay=5e-4))
    assert {(group["rate"], group["weight_decay"]) for group in optimiser.param_groups} == {(0.01, 5e-4)}


# The log of #145-2010 (Table 1), 93 epochs: the first epoch at each setting, with the rates of weights, of biases, and of
# conv1's weights over their initial values, and whether colour noise was on.
LOG_145_2010 = [
    (0, 1.0, 1.0, 1.0, True),
    (23, 0.1, 0.1, 0.1, True),
    (51, 0.01, 0.1, 0.01, True),
    (68, 0.01, 0.1, 0.001, False),
    (72, 0.01, 0.1, 0.0, False),
    (78, 0.001, 0.1, 0.0, False),
]


def test_the_fractions_give_the_epochs_of_the_2012_log_within_one():
    found = []
    for epoch in range(93):
        rates = rates_of(Schedule(), 93, [0.5] * epoch)
        setting = (rates.weights, rates.biases, rates.conv1_weights, rates.colour_noise)
        if not found or found[-1][1:] != pytest.approx(setting):
            found.append((epoch, *setting))
    assert [row[1:] for row in found] == [pytest.approx(row[1:]) for row in LOG_145_2010]
    assert all(abs(ours[0] - log[0]) <= 1 for ours, log in zip(found, LOG_145_2010, strict=True))


def test_a_plateau_drops_every_rate_three_times_and_then_ends():
    """Patience 2: errors that stop improving after the second epoch, improve once more, and stop again."""
    schedule = Schedule(kind="plateau", patience=2, bias_drops=3, conv1_drop=None, conv1_freeze=None)
    errors = [0.9, 0.8, 0.8, 0.81, 0.7, 0.7, 0.75, 0.7, 0.9, 0.71, 0.72, 0.6]
    drops_after = [0, 0, 0, 0, 1, 1, 1, 2, 2, 3, 3, 4]  # after 0, 1, 2 ... errors; four mean the end
    for seen, drops in enumerate(drops_after):
        rates = rates_of(schedule, 90, errors[:seen])
        if drops == 4:
            assert rates is None
        else:
            assert (rates.weights, rates.biases, rates.conv1_weights) == pytest.approx((0.1**drops,) * 3)
            assert rates.colour_noise


def test_without_a_schedule_the_rates_stay():
    assert rates_of(None, 60, [0.5] * 59) == Rates()


def test_rates_multiply_the_initial_ones_and_leave_velocities_alone():
    net = build_cifar_net(CifarNet(width=0.125), seed=0)
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


def trained(weights, gradients, momentum=0.9, decay=5e-4):
    """Weights and velocities after three steps, at a rate that drops."""
    parameters = [torch.nn.Parameter(weight.clone(memory_format=torch.preserve_format)) for weight in weights]
    optimiser = PaperSGD(parameters, rate=0.01, momentum=momentum, weight_decay=decay)
    for rate in (0.01, 0.01, 0.001):
        optimiser.param_groups[0]["rate"] = rate
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        optimiser.step()
    return [*parameters, *(optimiser.state[parameter]["velocity"] for parameter in parameters)]


@pytest.mark.parametrize(("momentum", "decay"), [(0.9, 5e-4), (0.9, 0.0), (0.5, 0.1)])
def test_the_loop_in_c_does_what_the_operations_do(momentum, decay):
    """On kernels in channels_last order, matrices, biases, one value; gradients in another order or type than weights."""
    draws = torch.Generator().manual_seed(0)
    shapes = [(8, 6, 5, 5), (40, 70), (1003,), ()]
    weights, gradients = ([torch.randn(shape, generator=draws) for shape in shapes] for _ in range(2))
    weights[0] = weights[0].contiguous(memory_format=torch.channels_last)
    gradients[1] = gradients[1].T.contiguous().T
    plain = trained(weights, gradients, momentum, decay)
    exact = trained([w.double() for w in weights], [g.double() for g in gradients], momentum, decay)
    if not compiled.use(True):
        pytest.skip(f"nothing can be compiled here: {compiled.why_not()}")
    try:
        found = trained(weights, gradients, momentum, decay)
        mixed = trained([weights[0], weights[0].double()], [gradients[0], gradients[0].double()], momentum, decay)
    finally:
        compiled.use(False)
    for own, other, expected in zip(found, plain, exact, strict=True):
        torch.testing.assert_close(own.double(), expected, rtol=1e-6, atol=1e-7)
        torch.testing.assert_close(own, other, rtol=3e-7, atol=1e-8)  # the same bits where a b + c is rounded once
    torch.testing.assert_close(mixed[1], exact[0], rtol=1e-12, atol=0)
