import numpy as np
import pytest
import torch

from alexnet.config import CifarNet, Optimiser
from alexnet.model.cifar import build_cifar_net
from alexnet.training.optimiser import PaperSGD, build_optimiser


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
    weights, biases = build_optimiser(net, Optimiser(rate=0.01, weight_decay=0.004)).param_groups
    assert (weights["rate"], weights["weight_decay"]) == (0.01, 0.004)
    assert (biases["rate"], biases["weight_decay"]) == (0.02, 0.0)
    assert [len(weights["params"]), len(biases["params"])] == [5, 5]
    assert all(torch.equal(b, torch.zeros_like(b)) for b in biases["params"])
