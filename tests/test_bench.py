import pytest

from alexnet import bench
from alexnet.config import CifarNet
from alexnet.model.cifar import build_cifar_net


@pytest.mark.parametrize(
    ("topology", "multiplications"),
    [
        # weights times places, twice for conv1 (no gradient to the pixels), three times for the others
        ("19pct", 2 * 2400 * 1024 + 3 * (25_600 * 256 + 51_200 * 64 + 10_240)),
        ("conv-local-13pct", 2 * 4800 * 1024 + 3 * (102_400 * 256 + 64 * 18_432 + 64 * 9216 + 20_480)),
    ],
)
def test_the_operations_of_a_step_are_counted_by_hand(topology, multiplications):
    net = build_cifar_net(CifarNet(topology=topology), seed=0)
    assert bench.operations_per_image(net) == 2 * multiplications


def test_a_ratio_compares_speeds(monkeypatch):
    seconds = iter([1.0, 3.0] * bench.REPEATS)
    monkeypatch.setattr(bench, "seconds_of", lambda work: next(seconds))
    assert bench.compare(lambda: None, lambda: None) == (3.0, 1.0, 3.0)
