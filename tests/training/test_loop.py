import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from alexnet.config import Optimiser
from alexnet.training import loop
from alexnet.training.learner import Learner
from alexnet.training.loop import Outcome


def test_one_step_is_the_gradient_of_the_mean_loss_and_the_papers_update(tiny, config):
    """Checked against autograd in float64 and the update written out."""
    learner = Learner(config)
    x = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0)).mul(60)
    labels = torch.arange(8)
    before = {name: w.detach().double().clone() for name, w in learner.net.named_parameters()}
    reference = Learner(config).net.double()
    log_probabilities = torch.log_softmax(reference(x.double()), dim=1)
    expected_loss = -log_probabilities[range(8), labels].mean()
    expected_loss.backward()
    loss, logits = learner.step(x, labels)
    assert loss.item() == pytest.approx(expected_loss.item(), rel=1e-5)
    assert logits.shape == (8, 10)
    for name, parameter in learner.net.named_parameters():
        rate = config.optimiser.rate * (2 if name.endswith("bias") else 1)
        expected = before[name] - rate * reference.get_parameter(name).grad
        np.testing.assert_allclose(parameter.detach().double(), expected, rtol=1e-4, atol=1e-7)


def test_metrics_have_one_line_for_each_epoch_and_one_before_the_first(tiny, config, tmp_path):
    lines = []
    training, outcome = loop.train(config, tiny, tmp_path, on_epoch=lambda metrics, seconds: lines.append(metrics[-1]))
    assert outcome == Outcome("epochs")
    assert [line["epoch"] for line in lines] == [0, 1, 2]
    assert [line["images_seen"] for line in lines] == [0, 300, 600]
    assert lines[0]["loss"] is None
    right = 0
    with torch.no_grad():
        for x, y in training.sets["train"].in_order(50):
            right += (training.net(x).argmax(1) == y).sum().item()
    assert lines[-1]["train_error"] == 1 - right / 300


def test_training_ends_at_the_error_to_stop_at(tiny, config, tmp_path):
    _, outcome = loop.train(replace(config, stop_at_train_error=1.0), tiny, tmp_path)
    assert outcome.kind == "reached"


@pytest.mark.parametrize(("rate", "words"), [(1e30, "is no longer a number from epoch 1, step"), (1e6, "exploded to")])
def test_a_rate_that_is_too_high_is_named_as_divergence(tiny, config, tmp_path, rate, words):
    wild = replace(config, optimiser=Optimiser(rate=rate, batch_size=32))
    training, outcome = loop.train(wild, tiny, tmp_path)
    assert outcome.kind == "diverged"
    assert words in outcome.warning
    assert f"a rate that is too high (here {rate:g})" in outcome.warning
    again, same = loop.train(wild, tiny, tmp_path)
    assert same == outcome
    assert again.progress.images_seen == training.progress.images_seen, "asked again, it is not trained again"


def test_a_loss_that_stays_at_ln_k_is_named_as_a_plateau(tiny, config, tmp_path):
    still = replace(config, optimiser=Optimiser(rate=0.0, batch_size=32), epochs=3)
    _, outcome = loop.train(still, tiny, tmp_path)
    assert outcome.kind == "epochs"
    assert f"stayed at ln 10 = {math.log(10):.3f} for 3 epochs" in outcome.warning
    assert "rate too low" in outcome.warning


def test_a_net_that_learns_is_not_called_stuck(tiny, config, tmp_path):
    _, outcome = loop.train(replace(config, epochs=6), tiny, tmp_path)
    assert outcome.warning is None
