import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from alexnet.config import CifarNet, Optimiser, Schedule, UserError
from alexnet.model import StepKey
from alexnet.preprocessing import prepared_set
from alexnet.preprocessing.loader import Batches
from alexnet.training import loop
from alexnet.training.step import Learner


def test_one_step_is_the_gradient_of_the_mean_loss_and_the_papers_update(config):
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


def test_a_step_without_images_moves_weights_by_their_velocity_alone(config):
    """As on a replica without a row of a small last batch, where the others' gradients are added."""
    learner = Learner(config)
    loss, logits = learner.step(torch.empty(0, 3, 32, 32), torch.empty(0, dtype=torch.long), StepKey(0, 0, 0), 0.0)
    assert loss.item() == 0
    assert len(logits) == 0
    assert all((weight.grad == 0).all() for weight in learner.net.parameters())


def test_metrics_are_tidy_rows_of_counts_and_losses_stand_apart(tiny, config, tmp_path):
    seen = []
    decided = replace(config, stop_at_train_error=0.0)
    training, outcome = loop.train(
        decided, tiny, tmp_path, on_epoch=lambda at, times: seen.append(len(at.history)), bar=False
    )
    assert outcome == "epochs"
    assert seen == [1, 2, 3]
    at = training.progress
    assert [line["epoch"] for line in at.history] == [0, 1, 2]
    assert [line["images_seen"] for line in at.history] == [0, 300, 600]
    assert at.history[0]["loss"] is None
    assert all(0 < line["loss"] < 3 for line in at.history[1:])
    rows = [(row["epoch"], row["split"], row["views"], row["k"], row["total"]) for row in at.metrics]
    counted = [("train", "whole", 1, 300), ("train", "whole", 5, 300), ("test", "whole", 1, 60), ("test", "whole", 5, 60)]
    running = ("train", "as trained", 1, 300)
    assert rows == [(0, *row) for row in counted] + [(e, *row) for e in (1, 2) for row in [*counted, running]]
    assert all(type(row["wrong"]) is int and 0 <= row["wrong"] <= row["total"] for row in at.metrics)
    assert json.loads(json.dumps(at.metrics)) == at.metrics
    wrong = 0
    with torch.no_grad():
        for (x,), y in training.sets["train"].in_order(50, "whole"):
            wrong += (training.net(x).argmax(1) != y).sum().item()
    assert training.counted("train")[-1]["wrong"] == wrong


def test_without_an_error_to_stop_at_only_the_watched_split_is_counted(tiny, config, tmp_path):
    training, _ = loop.train(config, tiny, tmp_path, bar=False)
    assert {row["split"] for row in training.progress.metrics if row["views"] == "whole"} == {"test"}
    assert len(training.counted("test")) == 3


def test_a_long_training_watches_every_tenth_epoch_and_the_last(tiny, config, tmp_path, monkeypatch):
    monkeypatch.setattr(Batches, "epoch", lambda *how: iter(()))
    many = replace(config, epochs=103)
    training, outcome = loop.train(many, tiny, tmp_path / "many", bar=False)
    assert outcome == "epochs"
    assert [row["epoch"] for row in training.counted("test")] == [*range(0, 101, 10), 103]
    assert len(training.progress.history) == 104
    for name, change in {
        "plateau": {"schedule": Schedule(kind="plateau", patience=200)},
        "decides": {"stop_at_train_error": 0.0},
    }.items():
        training, _ = loop.train(replace(many, **change), tiny, tmp_path / name, bar=False, epoch_limit=12)
        assert len(training.counted("test")) == 13


def test_training_ends_at_the_error_to_stop_at(tiny, config, tmp_path):
    _, outcome = loop.train(replace(config, stop_at_train_error=1.0), tiny, tmp_path, bar=False)
    assert outcome == "reached"


def test_a_schedule_without_a_rate_left_ends_the_training(tiny, config, tmp_path):
    """At a rate of 0 the error never improves on the first epoch's: with patience 1 three drops and the end follow."""
    still = replace(config, epochs=50, optimiser=replace(config.optimiser, rate=0.0))
    schedule = Schedule(kind="plateau", patience=1, conv1_drop=None, conv1_freeze=None)
    training, outcome = loop.train(replace(still, schedule=schedule), tiny, tmp_path, bar=False)
    assert outcome == "settled"
    assert training.progress.epoch == 5


@pytest.mark.parametrize(
    ("decay", "words"), [(1e6, "is no longer a number from epoch 1, step"), (0.0, "exploded by epoch 1, step")]
)
def test_a_rate_that_is_too_high_is_named_as_divergence(tiny, config, tmp_path, capsys, decay, words):
    wild = replace(config, optimiser=Optimiser(rate=1e6, weight_decay=decay, batch_size=32))
    training, outcome = loop.train(wild, tiny, tmp_path, bar=False)
    assert outcome == "diverged"
    assert words in training.warning()
    assert "a learning rate that is too high (here 1e+06)" in training.warning()
    assert capsys.readouterr().err == f"{training.name}: {training.warning()}\n"
    again, same = loop.train(wild, tiny, tmp_path, bar=False)
    assert same == outcome
    assert training.progress.step < 10, "told within the epoch"
    assert again.progress.images_seen == training.progress.images_seen, "asked again, it is not trained again"
    assert not capsys.readouterr().err


@pytest.mark.parametrize(("times", "steps"), [(1010, 30), (5e4, 1), (math.nan, 1), (math.inf, 1)])
def test_a_loss_that_explodes_is_told_within_the_epoch_as_soon_as_its_mean_is_beyond_hope(
    tiny, config, tmp_path, monkeypatch, times, steps
):
    """In epochs of 300 steps: a mean of 100 times ln K over the epoch is reached by 1,010 times in a tenth of it."""
    made_up = torch.tensor(times * math.log(10))
    monkeypatch.setattr(Learner, "step", lambda self, images, *how: (made_up, torch.zeros(len(images), 10)))
    single = replace(config, optimiser=replace(config.optimiser, batch_size=1))
    training, outcome = loop.train(single, tiny, tmp_path, bar=False)
    assert outcome == "diverged"
    assert (training.progress.epoch, training.progress.step) == (0, steps)


def test_a_loss_much_above_guessing_is_told_within_the_epoch_once_and_not_the_end(
    tiny, config, tmp_path, monkeypatch, capsys
):
    told = []

    def step(self, images, *how):
        told.append(capsys.readouterr().err)
        return torch.tensor(11 * math.log(10) if len(told) < 60 else 1.0), torch.zeros(len(images), 10)

    monkeypatch.setattr(Learner, "step", step)
    single = replace(config, optimiser=replace(config.optimiser, batch_size=1))
    training, outcome = loop.train(single, tiny, tmp_path, bar=False)
    (at,) = [number for number, err in enumerate(told) if err]
    assert at == loop.SOME_STEPS
    assert "The loss is 25.3, 11 times ln 10: the usual cause is a learning rate that is too high" in told[at]
    assert (outcome, training.warning()) == ("epochs", None), "it came back"


def test_a_loss_that_stays_at_ln_k_is_told_of_while_training_goes_on(tiny, config, tmp_path, capsys):
    still, told = replace(config, optimiser=Optimiser(rate=0.0, batch_size=32), epochs=5), []
    training, outcome = loop.train(
        still, tiny, tmp_path, on_epoch=lambda at, times: told.append(capsys.readouterr().err), bar=False
    )
    assert outcome == "epochs"
    assert f"stayed at ln 10 = {math.log(10):.3f} for 3 epochs" in training.warning()
    assert "rate too low" in training.warning()
    assert [training.warning() in err for err in told] == [False] * 4 + [
        True,
        False,
    ]  # after the third, before the fourth ends


def test_a_net_that_learns_is_not_called_stuck(tiny, config, tmp_path):
    training, _ = loop.train(replace(config, epochs=6), tiny, tmp_path, bar=False)
    assert training.warning() is None


def test_without_a_terminal_there_is_a_line_for_each_epoch_with_errors_and_time_left(tiny, config, tmp_path, capsys):
    training, _ = loop.train(config, tiny, tmp_path / "seed-0")
    first, second = capsys.readouterr().err.splitlines()
    wrong = training.counted("test")[-1]["wrong"]
    assert first.startswith(f"{tmp_path.name}/seed-0: epoch 1 of 2, loss ")
    assert f"test error {wrong / 60:.1%}, at most 00:00 left" in second


def test_on_a_terminal_there_is_a_bar_in_place_of_lines(tiny, config, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    loop.train(config, tiny, tmp_path / "seed-0")
    written = capsys.readouterr().err
    assert "0/20" in written
    assert "seed-0: epoch 1 of 2" not in written


def test_a_net_may_begin_with_the_layers_of_another(tiny, config, tmp_path):
    """Fine-tuning: all layers but the last, whose weights are the initial ones; velocities start at 0."""
    initial = {name: torch.full_like(w, 1e-4) for name, w in Learner(config).weights().items() if not name.startswith("fc4")}
    training, _ = loop.train(config, tiny, tmp_path, initial=initial, epoch_limit=0, bar=False)
    fresh = Learner(config).weights()
    for name, weight in training.weights().items():
        assert torch.equal(weight, initial.get(name, fresh[name])), name
    loop.train(config, tiny, tmp_path, initial=initial, epoch_limit=1, bar=False)
    training, _ = loop.train(config, tiny, tmp_path, initial=initial, bar=False)
    assert training.progress.epoch == 2, "resumed from its checkpoint"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"net": CifarNet(num_classes=7)}, "The net has 7 classes, the images of formula32 10"),
        ({"net": CifarNet(image_side=24)}, "sees 24 pixels a side, and would be shown all of the 32"),
    ],
)
def test_a_net_that_does_not_fit_its_images_is_refused(tiny, config, tmp_path, change, words):
    with pytest.raises(UserError, match=words):
        loop.train(replace(config, **change), tiny, tmp_path)


def test_a_set_without_held_out_images_is_trained_on_and_nothing_is_watched(tmp_path, monkeypatch, config):
    """Fall 2011, which the paper pre-trains on, is training images alone."""
    monkeypatch.setenv("ALEXNET_DATA", str(tmp_path))
    labels = np.arange(40) % 10
    images = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3)).astype(np.uint8)
    prepared_set.write_split(tmp_path / "formula32" / "train", images, labels)
    classes = tuple(f"class {k}" for k in range(10))
    prepared_set.finish_set(tmp_path / "formula32", classes, ("train",), stand_in=True)
    data = prepared_set.open_set("formula32")
    training, outcome = loop.train(replace(config, epochs=1), data, tmp_path / "run", bar=False)
    assert outcome == "epochs"
    assert {row["split"] for row in training.progress.metrics} == {"train"}
    with pytest.raises(UserError, match="neither val nor test"):
        loop.train(replace(config, schedule=Schedule(kind="plateau")), data, tmp_path / "other", bar=False)
