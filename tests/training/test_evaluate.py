"""Counts against counts by loops, with nets made by hand in place of trained ones."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from alexnet.experiments.answers import mean_probabilities
from alexnet.training.distributed import Group
from alexnet.training.evaluate import CHUNK, count_batches, num_wrong, predict_split, run

NAN = float("nan")


def wrong_by_loops(scores, labels, best=1):
    """Images of which `best` other classes have a score that is not below the true one's, or whose own is not a number."""
    wrong = 0
    for row, label in zip(scores.tolist(), labels.tolist(), strict=True):
        rivals = [k for k, value in enumerate(row) if k != label and not value < row[label]]
        wrong += len(rivals) >= best or math.isnan(row[label])
    return wrong


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def drawn_labels(count, num_classes, seed=1):
    return torch.randint(0, num_classes, (count,), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("num_classes", [2, 4, 5, 6, 20])
def test_errors_are_counted_as_loops_count_them(num_classes):
    """With many ties and some NaN; of at most five classes the true one is always among the five, if it is a number."""
    scores = torch.randint(0, 8, (400, num_classes), generator=torch.Generator().manual_seed(0)).double()
    scores[drawn(400, num_classes, seed=2) > 2.2] = NAN
    labels = drawn_labels(400, num_classes)
    for k in (1, 5):
        assert num_wrong(scores, labels, k) == wrong_by_loops(scores, labels, k)
    if num_classes <= 5:
        assert num_wrong(scores, labels, 5) == scores[range(400), labels].isnan().sum() > 0


@pytest.mark.parametrize(
    ("row", "top1", "top5"),
    [
        ([2.0, 1.0], 0, 0),
        ([2.0, 2.0], 1, 0),
        ([NAN, 1.0], 1, 1),
        ([1.0, NAN], 1, 0),
        ([0.3, 0.2, 0.2, 0.1, 0.1, 0.1], 0, 0),
        ([0.1, 0.3, 0.2, 0.2, 0.15, 0.05], 1, 0),  # the fifth
        ([0.1, 0.3, 0.2, 0.2, 0.1, 0.1], 1, 1),  # fifth and sixth are equal
        ([0.1, 0.3, 0.2, 0.15, 0.1, 0.05], 1, 0),  # fourth and fifth are equal
        ([1 / 6] * 6, 1, 1),
        ([NAN, 0.3, 0.2, 0.1, 0.1, 0.1], 1, 1),
        ([0.1, NAN, 0.2, 0.2, 0.2, 0.0], 1, 0),
        ([0.1, NAN, NAN, 0.2, 0.2, 0.2], 1, 1),
    ],
)
def test_ties_at_the_first_and_at_the_fifth_place_count_against_us(row, top1, top5):
    scores, labels = torch.tensor([row]), torch.tensor([0])
    assert (num_wrong(scores, labels, 1), num_wrong(scores, labels, 5)) == (top1, top5)


class Doubler(nn.Module):
    """A net made by hand: the logits are twice the first values of an image. Notes how it was asked."""

    def __init__(self, num_classes):
        super().__init__()
        self.num_classes, self.modes, self.sizes = num_classes, [], []

    def forward(self, images_NCHW):
        self.modes.append(self.training)
        self.sizes.append(len(images_NCHW))
        return 2 * images_NCHW.flatten(1)[:, : self.num_classes].float()


class Fixed:
    """A split as `Batches` shows it: views of all images, of which a part takes every R-th batch."""

    def __init__(self, views, labels):
        self.views, self.labels = views, labels

    def in_order(self, size, views, part=(0, 1)):
        for at in range(part[0] * size, len(self.labels), part[1] * size):
            yield [view[at : at + size] for view in self.views], self.labels[at : at + size]


def learner_of(net, precision="fp32", part=(0, 1)):
    group = Group()
    group.part = part
    return SimpleNamespace(net=net, precision=precision, group=group)


def counts(rows):
    return [(row["k"], row["wrong"], row["total"]) for row in rows]


def predicted(learner, shown, views, monkeypatch):
    monkeypatch.setattr("alexnet.training.evaluate.batches_for", lambda *_: shown)
    return predict_split(learner, None, None, "test", views)


def test_ten_views_give_the_mean_of_their_softmax_outputs(monkeypatch):
    """Not the softmax of the mean, nor the mean of the logits: those differ in the third digit here."""
    views, labels = [drawn(9, 3, 2, 2, seed=v) * 2 for v in range(10)], drawn_labels(9, 8)
    learner = learner_of(Doubler(8))
    mean, same_labels = predicted(learner, Fixed(views, labels), "ten", monkeypatch)
    expected = np.zeros((9, 8))
    for view in views:
        for n, row in enumerate(view.double().numpy().reshape(9, 12)):
            powers = [math.exp(2 * value) for value in row[:8]]
            expected[n] += np.array(powers) / sum(powers) / 10
    assert mean.dtype == torch.float32
    np.testing.assert_allclose(mean.numpy(), expected, rtol=1e-6)
    assert torch.equal(same_labels, labels)
    rows = count_batches(learner, Fixed(views, labels), "test", "ten")
    assert counts(rows) == [(k, wrong_by_loops(torch.from_numpy(expected), labels, k), 9) for k in (1, 5)]
    assert {(row["split"], row["views"]) for row in rows} == {("test", "ten")}
    assert not any(learner.net.modes)
    assert learner.net.training


def test_one_view_gives_its_softmax_outputs(monkeypatch):
    view, labels = drawn(5, 3, 2, 2), drawn_labels(5, 4)
    probabilities, _ = predicted(learner_of(Doubler(4)), Fixed([view], labels), "central", monkeypatch)
    np.testing.assert_allclose(probabilities, (2 * view.flatten(1)[:, :4].double()).softmax(1), rtol=1e-6)


def test_views_are_made_one_after_the_other():
    made = []

    class Watched(Fixed):
        def in_order(self, size, views, part=(0, 1)):
            yield (made.append(v) or self.views[v] for v in range(10)), self.labels

    class Watching(Doubler):
        def forward(self, images_NCHW):
            seen.append(len(made))
            return super().forward(images_NCHW)

    seen = []
    shown = Watched([drawn(4, 3, 2, 2, seed=v) for v in range(10)], drawn_labels(4, 8))
    count_batches(learner_of(Watching(8)), shown, "test", "ten")
    assert seen == list(range(1, 11))


def test_the_parts_of_ranks_add_up_to_the_same_integers():
    """A net sees the same pieces whoever has them, so the sums are equal and not only nearly; the last of four has none."""
    torch.manual_seed(0)
    total = 2 * CHUNK + 60
    net = nn.Sequential(nn.Conv2d(3, 20, 5), nn.ReLU(), nn.MaxPool2d(3), nn.Flatten(), nn.Linear(20 * 9, 12))
    shown = Fixed([drawn(total, 3, 13, 13)], drawn_labels(total, 12))
    whole = counts(count_batches(learner_of(net), shown, "test", "central"))
    with torch.no_grad():
        scores = torch.cat([net(piece) for piece in shown.views[0].split(CHUNK)])
    assert whole == [(k, wrong_by_loops(scores, shown.labels, k), total) for k in (1, 5)]
    for ranks in (2, 3, 4):
        parts = [counts(count_batches(learner_of(net, part=(r, ranks)), shown, "test", "central")) for r in range(ranks)]
        added = [(k, sum(part[i][1] for part in parts), sum(part[i][2] for part in parts)) for i, k in enumerate((1, 5))]
        assert added == whole


def test_a_net_sees_pieces_of_one_size_and_the_rest():
    net = Doubler(12)
    count_batches(
        learner_of(net), Fixed([drawn(2 * CHUNK + 60, 3, 2, 2)], drawn_labels(2 * CHUNK + 60, 12)), "test", "whole"
    )
    assert net.sizes == [CHUNK, CHUNK, 60]


def test_errors_are_counted_from_fp32_logits_of_a_net_that_has_ties_in_bf16(tiny, config):
    """Classes whose logits differ by less than bf16 can tell are apart in fp32: no image is wrong for a tie."""
    from alexnet.training.step import Learner

    learner = Learner(config, "bf16")
    weights = learner.weights()
    weights["fc4.weight"][:] = weights["fc4.weight"][:1]
    weights["fc4.bias"][:] = 100 + torch.arange(10) / 64  # bf16 has steps of 1/2 there
    learner.net.load_plain_state(weights)
    images, labels = drawn(40, 3, 32, 32) * 50, torch.full((40,), 9)
    logits = run(learner, images)
    assert logits.dtype == torch.float32
    assert (logits.bfloat16()[:, 8] == logits.bfloat16()[:, 9]).any(), "there are no ties in bf16"
    assert num_wrong(logits.bfloat16(), labels) > 0
    rows = count_batches(learner, Fixed([images], labels), "test", "whole")
    assert counts(rows) == [(1, 0, 40), (5, 0, 40)]


def test_the_mean_over_nets_is_that_of_loops_in_double():
    nets = [drawn(5, 12, seed=s).softmax(1).numpy() for s in range(3)]
    mean = mean_probabilities(nets)
    for n, k in np.ndindex(5, 12):
        assert mean[n, k] == pytest.approx(sum(float(net[n, k]) for net in nets) / 3, rel=1e-14)
    tiny = np.float32(2.0**-30)
    nets = [np.array([[1, tiny]], np.float32), np.array([[tiny, 1]], np.float32)]
    assert mean_probabilities(nets).tolist() == [[(1 + 2**-30) / 2] * 2]


def test_nets_of_different_sets_are_refused():
    with pytest.raises(ValueError, match="shapes"):
        mean_probabilities([np.ones((10, 3)), np.ones((11, 3))])
