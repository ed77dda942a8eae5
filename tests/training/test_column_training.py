"""The two-column net in the training loop, on a few images made by formula."""

from dataclasses import replace

import pytest
import torch

from alexnet.config import CifarNet, ColumnNet, Optimiser, RunConfig, Schedule, UserError
from alexnet.preprocessing.augment import SOURCE2012
from alexnet.training import checkpoint, evaluate, loop

# 34 + 12 images, a sixteenth of the net.
CONFIG = RunConfig(
    data="formula256",
    net=ColumnNet("source2012", width=1 / 16, num_classes=20),
    optimiser=Optimiser(rate=0.01, weight_decay=5e-4, batch_size=10),
    epochs=2,
    precision="fp32",
    schedule=Schedule(),
    augmentation=SOURCE2012,
)


def test_a_training_counts_errors_of_central_views_each_epoch_and_of_ten_when_asked(photographs, tmp_path):
    times = []
    training, outcome = loop.train(CONFIG, photographs, tmp_path, on_epoch=lambda at, took: times.append(took), bar=False)
    assert (outcome, training.warning()) == ("epochs", None)
    assert [line["images_seen"] for line in training.progress.history] == [0, 34, 68]
    rows = [row for row in training.progress.metrics if row["views"] == "central"]
    assert [(row["epoch"], row["split"], row["k"], row["total"]) for row in rows] == [
        (epoch, "test", k, 12) for epoch in (0, 1, 2) for k in (1, 5)
    ]
    for top1, top5 in zip(rows[::2], rows[1::2], strict=True):
        assert 0 <= top5["wrong"] <= top1["wrong"] <= 12
    assert times[0] == {}
    assert all(took["images_per_second"] > 0 and 0 <= took["waiting"] < 1 for took in times[1:])
    again = evaluate.count_split(training, photographs, CONFIG, "test", "central")
    assert [{"epoch": 2, **row} for row in again] == rows[-2:]
    probabilities, labels = evaluate.predict_split(training, photographs, CONFIG, "test", "ten")
    top1, top5 = evaluate.count_split(training, photographs, CONFIG, "test", "ten")
    assert (top1["views"], top1["wrong"]) == ("ten", (probabilities.argmax(1) != labels).sum().item())
    assert top5["wrong"] <= top1["wrong"]


def test_a_training_stopped_in_the_midst_of_an_epoch_resumes_bit_for_bit(photographs, tmp_path):
    whole, _ = loop.train(CONFIG, photographs, tmp_path / "whole", bar=False)
    training = loop.Training(CONFIG, photographs, tmp_path / "parts")
    training.close_epoch(first=True)
    steps = training.run_epoch()
    for _ in range(3):
        next(steps)
    training.save()
    again, _ = loop.train(CONFIG, photographs, tmp_path / "parts", bar=False)
    assert again.progress == whole.progress
    for ours, theirs in ((again.weights(), whole.weights()), (again.velocities(), whole.velocities())):
        assert checkpoint.weights_digest(ours) == checkpoint.weights_digest(theirs)


def test_features_are_the_last_hidden_layer(photographs):
    learner = loop.Learner(CONFIG)
    features_ND = evaluate.features_split(learner, photographs, CONFIG, "test")
    assert features_ND.shape == (12, 4096 // 16)
    probabilities, _ = evaluate.predict_split(learner, photographs, CONFIG, "test", "central")
    weights = learner.weights()
    logits = features_ND.double() @ weights["fc8.weight"].double().T + weights["fc8.bias"].double()
    torch.testing.assert_close(probabilities.double(), logits.softmax(1), rtol=1e-4, atol=1e-6)
    with pytest.raises(UserError, match="must be one of"):
        evaluate.features_split(learner, photographs, CONFIG, "test", "fc8")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"augmentation": None}, "Change --augmentation"),
        ({"net": CifarNet(num_classes=20)}, "sees 32 pixels a side, and would be shown crops of 224"),
        ({"net": ColumnNet(ablation="no-nrom", num_classes=20)}, "did you mean 'no-norm'"),
        ({"net": ColumnNet(num_classes=1000)}, "The net has 1000 classes, the images of formula256 20"),
    ],
)
def test_a_net_that_does_not_fit_its_images_is_refused_with_what_to_change(photographs, tmp_path, change, words):
    with pytest.raises(UserError, match=words):
        loop.train(replace(CONFIG, **change), photographs, tmp_path)


def test_images_smaller_than_a_view_are_refused(tiny, tmp_path):
    net = replace(CONFIG.net, num_classes=10)
    with pytest.raises(UserError, match="sees 224 pixels a side, and would be shown crops of 224 of the 32"):
        loop.train(replace(CONFIG, data="formula32", net=net), tiny, tmp_path)
