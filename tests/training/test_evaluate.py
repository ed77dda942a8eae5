import pytest
import torch

from alexnet.training.evaluate import count_errors, num_wrong


def wrong_by_loops(logits, labels):
    wrong = 0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        rivals = [k for k, value in enumerate(row) if k != label and not value < row[label]]
        wrong += bool(rivals)
    return wrong


def test_errors_are_counted_as_loops_count_them():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randint(0, 4, (500, 10), generator=generator).float()  # small integers: many ties
    labels = torch.randint(0, 10, (500,), generator=generator)
    assert num_wrong(logits, labels) == wrong_by_loops(logits, labels)


@pytest.mark.parametrize(
    ("row", "wrong"), [([2.0, 1.0], 0), ([1.0, 2.0], 1), ([2.0, 2.0], 1), ([float("nan"), 1.0], 1), ([1.0, float("nan")], 1)]
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
