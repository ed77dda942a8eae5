import math

import numpy as np
import pytest
import torch
from torch import nn

from alexnet.training.evaluate import (
    CHUNK,
    Count,
    Errors,
    count_errors,
    count_errors_over_views,
    errors_by_class,
    errors_of,
    num_wrong,
    probabilities,
)

NAN = float("nan")


def wrong_by_loops(scores, labels, best=1):
    """Images of which `best` other classes have a score that is not below the true one's, or whose own is not a number."""
    wrong = 0
    for row, label in zip(scores.tolist(), labels.tolist(), strict=True):
        rivals = [k for k, value in enumerate(row) if k != label and not value < row[label]]
        wrong += len(rivals) >= best or math.isnan(row[label])
    return wrong


def errors_by_loops(scores, labels):
    return Errors(*(Count(wrong_by_loops(scores, labels, best), len(labels)) for best in (1, 5)))


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def drawn_labels(count, num_classes, seed=1):
    return torch.randint(0, num_classes, (count,), generator=torch.Generator().manual_seed(seed))


def test_errors_are_counted_as_loops_count_them():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randint(0, 4, (500, 10), generator=generator).float()  # small integers: many ties
    labels = torch.randint(0, 10, (500,), generator=generator)
    assert num_wrong(logits, labels) == wrong_by_loops(logits, labels)


@pytest.mark.parametrize(
    ("row", "wrong"), [([2.0, 1.0], 0), ([1.0, 2.0], 1), ([2.0, 2.0], 1), ([NAN, 1.0], 1), ([1.0, NAN], 1)]
)
def test_ties_and_nan_count_against_us(row, wrong):
    assert num_wrong(torch.tensor([row]), torch.tensor([0])) == wrong


@pytest.mark.parametrize("size", [1, 7, 64, 100])
def test_the_count_is_the_same_integer_for_any_batch_size(size):
    generator = torch.Generator().manual_seed(0)
    images, labels = torch.randn(100, 12, generator=generator), torch.randint(0, 5, (100,), generator=generator)
    net = torch.nn.Linear(12, 5)
    torch.nn.init.eye_(net.weight)
    batches = [(images[i : i + size], labels[i : i + size]) for i in range(0, 100, size)]
    counted = count_errors(net, batches)
    assert (counted.wrong, counted.total) == (wrong_by_loops(net(images).detach(), labels), 100)


@pytest.mark.parametrize("num_classes", [2, 4, 5, 6, 20])
def test_both_errors_are_counted_as_loops_count_them(num_classes):
    """With many ties and some NaN; of at most five classes the true one is always among the five, if it is a number."""
    scores = torch.randint(0, 8, (400, num_classes), generator=torch.Generator().manual_seed(0)).double()
    scores[drawn(400, num_classes, seed=2) > 2.2] = NAN
    labels = drawn_labels(400, num_classes)
    counted = errors_of(scores, labels)
    assert counted == errors_by_loops(scores, labels)
    assert counted.top1.wrong == num_wrong(scores, labels)
    if num_classes <= 5:
        assert counted.top5.wrong == scores[range(400), labels].isnan().sum() > 0


@pytest.mark.parametrize(
    ("row", "top1", "top5"),
    [
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
    assert errors_of(torch.tensor([row]), torch.tensor([0])) == Errors(Count(top1, 1), Count(top5, 1))


def test_errors_by_class_are_the_errors_among_its_images():
    scores, labels = drawn(300, 7).round(decimals=1), drawn_labels(300, 6)  # no image of the last class
    by_class = errors_by_class(scores, labels)
    assert len(by_class) == 7
    for k, errors in enumerate(by_class):
        assert errors == errors_by_loops(scores[labels == k], labels[labels == k]), k
    assert by_class[6] == Errors(Count(0, 0), Count(0, 0))


class Doubler(nn.Module):
    """A net made by hand: the logits are twice the first values of an image. Notes whether it was in training."""

    def __init__(self, num_classes):
        super().__init__()
        self.num_classes, self.modes = num_classes, []

    def forward(self, images_NCHW):
        self.modes.append(self.training)
        return 2 * images_NCHW.flatten(1)[:, : self.num_classes]


def test_ten_views_give_the_mean_of_their_softmax_outputs():
    """Not the softmax of the mean, nor the mean of the logits: those differ in the third digit here."""
    views, labels = [drawn(9, 3, 2, 2, seed=v) * 2 for v in range(10)], drawn_labels(9, 8)
    net = Doubler(8)
    mean, same_labels = probabilities(net, [(views, labels)])
    expected = np.zeros((9, 8))
    for view in views:
        for n, row in enumerate(view.double().numpy().reshape(9, 12)):
            powers = [math.exp(2 * value) for value in row[:8]]
            expected[n] += np.array(powers) / sum(powers) / 10
    assert mean.dtype == torch.float64
    np.testing.assert_allclose(mean.numpy(), expected, rtol=1e-12)
    assert torch.equal(same_labels, labels)
    assert count_errors_over_views(net, [(views, labels)]) == errors_by_loops(torch.from_numpy(expected), labels)
    assert net.modes == [False] * 20
    assert net.training


def test_views_are_made_one_after_the_other_for_a_batch_of_the_right_size():
    alive = []

    def views():
        for v in range(10):
            alive.append(v)
            yield drawn(CHUNK, 3, 2, 2, seed=v)

    class Watching(Doubler):
        def forward(self, images_NCHW):
            seen.append(len(alive))
            return super().forward(images_NCHW)

    seen = []
    count_errors_over_views(Watching(8), [(views(), drawn_labels(CHUNK, 8))])
    assert seen == list(range(1, 11))


@pytest.fixture(scope="module")
def scored():
    """A small net with convolutions, 2 * CHUNK + 60 images in two views, and the net's answers to whole pieces."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 20, 5), nn.ReLU(), nn.MaxPool2d(3), nn.Flatten(), nn.Linear(20 * 9, 12))
    total = 2 * CHUNK + 60
    views, labels = [drawn(total, 3, 13, 13, seed=v) for v in range(2)], drawn_labels(total, 12)
    return net, views, labels, probabilities(net, batches_of(views, labels, CHUNK))[0]


def batches_of(views, labels, size, first=0, stride=1):
    for at in range(first * size, len(labels), stride * size):
        yield [view[at : at + size] for view in views], labels[at : at + size]


@pytest.mark.parametrize("size", [1, 7, 64, 124, 126, 250, 1000])
def test_probabilities_have_the_same_bits_for_any_batch_size(scored, size):
    net, views, labels, expected = scored
    mean, same_labels = probabilities(net, batches_of(views, labels, size))
    assert torch.equal(mean, expected)
    assert torch.equal(same_labels, labels)


def test_the_parts_of_ranks_add_up_to_the_same_integers(scored):
    net, views, labels, expected = scored
    whole = count_errors_over_views(net, batches_of(views, labels, CHUNK))
    assert whole == errors_by_loops(expected, labels)
    for ranks in (2, 3, 4):  # the last of four has no images
        parts = [count_errors_over_views(net, batches_of(views, labels, CHUNK, r, ranks)) for r in range(ranks)]
        assert sum(parts[1:], parts[0]) == whole


def test_a_net_never_sees_more_images_than_a_piece(scored):
    _, views, labels, _ = scored

    class Counting(Doubler):
        def forward(self, images_NCHW):
            sizes.append(len(images_NCHW))
            return super().forward(images_NCHW)

    for size in (40, CHUNK, 3 * CHUNK):
        sizes = []
        count_errors_over_views(Counting(12), batches_of(views, labels, size))
        assert sizes == [CHUNK] * 4 + [60] * 2


def test_a_set_without_images_has_no_probabilities():
    with pytest.raises(ValueError, match="no images"):
        probabilities(Doubler(3), [])
    assert count_errors_over_views(Doubler(3), []) == Errors(Count(0, 0), Count(0, 0))
