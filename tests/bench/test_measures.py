import pytest
import torch

from alexnet.bench import __main__ as bench
from alexnet.bench import costs, figure1, network, rows
from alexnet.bench.rows import Row, Setting, both
from alexnet.config import CifarNet
from alexnet.model import build
from alexnet.model.presets import source2012
from alexnet.paper.arithmetic import operations


@pytest.mark.parametrize(
    ("topology", "multiplications"),
    [
        # weights times places, twice for conv1 (no gradient to the pixels), three times for the others
        ("19pct", 2 * 2400 * 1024 + 3 * (25_600 * 256 + 51_200 * 64 + 10_240)),
        ("conv-local-13pct", 2 * 4800 * 1024 + 3 * (102_400 * 256 + 64 * 18_432 + 64 * 9216 + 20_480)),
    ],
)
def test_the_operations_of_a_step_are_counted_by_hand(topology, multiplications):
    net = build(CifarNet(topology=topology), seed=0)
    assert figure1.operations_per_image(net) == 2 * multiplications


def test_a_ratio_compares_speeds(monkeypatch):
    seconds = iter([1.0, 3.0] * rows.REPEATS)
    monkeypatch.setattr(rows, "seconds_of", lambda work: next(seconds))
    assert rows.compare(lambda: None, lambda: None) == (3.0, 1.0, 3.0)


def test_the_operations_of_the_full_net_are_counted_by_hand():
    """Multiplications of one image forward: places times kernels times what a kernel sees; both columns."""
    forward = {
        "conv1": 55**2 * 96 * 363,
        "conv2": 27**2 * 256 * 25 * 48,
        "conv3": 13**2 * 384 * 9 * 256,
        "conv4": 13**2 * 384 * 9 * 192,
        "conv5": 13**2 * 256 * 9 * 192,
        "fc6": 9216 * 4096,
        "fc7": 4096 * 4096,
        "fc8": 4096 * 1000,
    }
    times = {name: 4 if name == "conv1" else 6 for name in forward}  # two operations each; no gradient to the pixels
    assert operations(source2012()) == {name: count * times[name] for name, count in forward.items()}


def test_a_target_is_that_of_the_kind_of_machine_at_hand():
    row = Row("ours", "theirs", 2.0, "", both(1.5, 5.0))
    assert (row.met("fp32"), row.met("bf16")) == ("yes", "no")
    text = bench.as_text([row, Row("free", "of targets", 1.0, "")], "fp32")
    assert "at least (fp32 machine)" in text.replace("\n", " ")
    assert "not measured here" in " ".join(text.split())


@pytest.mark.parametrize("topology", ["19pct", "conv-local-13pct"])
def test_the_plain_net_is_the_same_net(topology):
    ours, plain = build(CifarNet(topology=topology), seed=0), figure1.plain_net(topology)
    images = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 50
    torch.testing.assert_close(plain(images), ours(images), rtol=1e-4, atol=1e-5)
    assert all(parameter.is_contiguous() for parameter in plain.parameters())


def test_a_share_compares_with_the_matmul_timed_next_to_it(monkeypatch):
    seconds, speeds = iter([0.1, 1.0, 0.5]), iter([100.0, 20.0, 25.0])
    monkeypatch.setattr(rows, "seconds_of", lambda work: next(seconds))
    monkeypatch.setattr(rows, "matmul_speed", lambda *_, **__: next(speeds))
    share, figures = rows.share_of_matmul(lambda: None, 10e9, Setting("fp32", 64), repeats=3)
    assert share == 0.8  # of 100 / 100, 10 / 20 and 20 / 25
    assert figures == "20 against 25 GFLOP/s"


def test_the_obvious_net_has_as_many_parameters_as_the_two_columns():
    with torch.device("meta"):
        plain = network.ObviousAlexNet(1000)
    assert sum(p.numel() for p in plain.parameters()) == 60_965_224


def test_every_layer_that_learns_has_a_cost():
    """fc8 at 1/16 of the width, in each of two columns: 128 values and 10 logits of two images, 10 x 128 weights."""
    step, learner = network.our_step(Setting("fp32", 2), width=1 / 16, classes=10)
    assert step()[1].shape == (2, 10)
    inputs = costs._inputs(learner.net, Setting("fp32", 2))
    assert [name for name, _ in inputs] == ["conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8"]
    name, seen = inputs[-1]
    cost = costs._cost(learner.net, name, seen, "fp32")
    assert cost["bytes"] == 2 * 3 * 4 * (2 * 128 + 2 * 10 + 10 * 128)
    assert cost["seconds"] > 0
