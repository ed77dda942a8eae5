"""The two-column net in the training loop, on a few images made by formula."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from alexnet.claims import runs
from alexnet.claims.record import read_kernels, weights_digest
from alexnet.config import CifarNet, ColumnNet, Optimiser, RunConfig, Schedule, UserError
from alexnet.training import evaluate, loop
from alexnet.training.loop import Outcome

# The variant, and how it departs from its config: 34 + 12 images, a sixteenth of the net.
CONFIG = RunConfig(
    claim="s3.5-architecture",
    variant="source2012-eighth",
    data="formula256",
    net=ColumnNet("source2012", width=1 / 16, num_classes=20),
    optimiser=Optimiser(rate=0.01, weight_decay=5e-4, batch_size=10),
    epochs=2,
    precision="fp32",
    schedule=Schedule(),
    augmentation="source2012",
)
OPTIONS = ["--width", "0.0625", "--batch-size", "10", "--epochs", "2", "--precision", "fp32"]


def test_a_training_measures_both_errors_each_epoch_and_ten_views_at_its_end(photographs, tmp_path):
    times = []
    training, outcome = loop.train(CONFIG, photographs, tmp_path, on_epoch=lambda metrics, took: times.append(took))
    assert outcome == Outcome("epochs")
    first, middle, last = training.progress.metrics
    assert (first["loss"], middle["images_seen"], last["images_seen"]) == (None, 34, 68)
    for line in (first, middle, last):
        assert 0 <= line["test_error_top5"] <= line["test_error"] <= 1
    views = training.sets["test"].views_in_order(12, ten=True)
    probabilities, labels = evaluate.probabilities(training.net, views)
    assert last["test_error_ten_views"] == (probabilities.argmax(1) != labels).double().mean().item()
    assert "test_error_ten_views" not in middle
    assert times[0] == {}
    assert all(took["images_per_second"] > 0 and 0 <= took["waiting"] < 1 for took in times[1:])


def test_the_last_measurement_is_made_up_for_after_a_stop(photographs, tmp_path):
    """The ten views are measured after the last epoch's checkpoint: a training killed in between has them afterwards."""
    whole, _ = loop.train(CONFIG, photographs, tmp_path / "whole")
    loop.train(CONFIG, photographs, tmp_path / "parts", epoch_limit=1)
    training = loop.Training(CONFIG, photographs, tmp_path / "parts")
    training.run_epoch(lambda: True)
    training.close_epoch()
    again, _ = loop.train(CONFIG, photographs, tmp_path / "parts")
    assert again.progress == whole.progress
    assert weights_digest(again.weights()) == weights_digest(whole.weights())
    assert weights_digest(again.velocities()) == weights_digest(whole.velocities())


def test_a_run_begun_on_one_rank_goes_on_on_two_to_the_bit(photographs, tmp_path, monkeypatch):
    monkeypatch.setenv("ALEXNET_RUNS", str(tmp_path / "whole"))
    threads = torch.get_num_threads()
    whole = runs.get(CONFIG, threads=1)
    monkeypatch.setenv("ALEXNET_RUNS", str(tmp_path / "parts"))
    assert runs.get(CONFIG, threads=1, epoch_limit=1).status == "overtaken"
    torch.set_num_threads(threads)
    words = ["train", CONFIG.claim, "--scale", "toy", "--variant", CONFIG.variant, *OPTIONS, "--devices", "2"]
    done = subprocess.run(
        [sys.executable, "-m", "alexnet", *words], env=os.environ, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert "finished after epoch 2" in done.stdout
    run = runs.read(CONFIG)
    assert run.metrics == whole.metrics
    assert run.manifest["weights_sha256"] == whole.manifest["weights_sha256"]
    assert [part["ranks"] for part in run.manifest["parts"]] == [1, 2]
    learner, _ = runs.load_learner(run)
    for folder in (run.folder, whole.folder):
        assert np.array_equal(read_kernels(folder), learner.weights()["conv1.weight"].numpy())
    timing = [json.loads(line) for line in (run.folder / "timing.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in timing] == [1, 2]


def test_a_schedule_without_a_rate_left_ends_the_training(tiny, config, tmp_path):
    """At a rate of 0 the error never improves on the first epoch's: with patience 1 three drops and the end follow."""
    still = replace(config, epochs=50, optimiser=replace(config.optimiser, rate=0.0))
    schedule = Schedule(kind="plateau", patience=1, conv1_drop=None, conv1_freeze=None)
    training, outcome = loop.train(replace(still, schedule=schedule), tiny, tmp_path)
    assert outcome.kind == "settled"
    assert training.progress.epoch == 5


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"augmentation": None}, "--augmentation"),
        ({"net": CifarNet()}, "leave out --augmentation"),
        ({"net": ColumnNet(ablation="no-nrom")}, "did you mean 'no-norm'"),
    ],
)
def test_a_net_that_does_not_fit_its_images_is_refused_with_what_to_change(photographs, tmp_path, change, words):
    with pytest.raises(UserError, match=words):
        loop.train(replace(CONFIG, **change), photographs, tmp_path)


def test_images_smaller_than_a_view_are_refused(tiny, tmp_path):
    with pytest.raises(UserError, match="32 pixels a side, the net needs 224"):
        loop.train(replace(CONFIG, data="formula32"), tiny, tmp_path)
