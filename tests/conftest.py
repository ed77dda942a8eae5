"""Small prepared sets and folders of their own for tests that train."""

import os
import signal
from contextlib import suppress

import numpy as np
import pytest
import torch

from alexnet.config import CifarNet, Optimiser, RunConfig
from alexnet.preprocessing import prepared_set, synthetic

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # before anything imports Triton

# Why: what is started in the background of a script ignores these, and so would the processes that tests send them to.
for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) == signal.SIG_IGN:
        with suppress(ValueError):  # not the main thread
            signal.signal(number, handler)

CLASSES = tuple(f"class {k}" for k in range(10))
# Why: `make test` deals modules out in order, and a long one begun last would keep one worker busy and the other idle.
LONGEST_FIRST = (
    "test_book",
    "test_runner",
    "test_rehearsal",
    "test_killed",
    "test_runs",
    "test_distributed",
    "test_agreement",
)


def pytest_collection_modifyitems(items):
    """Begin with the modules that take longest."""
    items.sort(key=lambda item: -LONGEST_FIRST[::-1].index(item.path.stem) if item.path.stem in LONGEST_FIRST else 1)


def make_set(folder, train=300, test=60):
    """Write a set of noise images, each tinted by its class, where `formula32` would be."""
    draws = np.random.default_rng(0)
    for split, count in (("train", train), ("test", test)):
        labels = np.arange(count) % 10
        images = draws.integers(0, 156, (count, 32, 32, 3)).astype(np.uint8)
        images += (labels * 10).astype(np.uint8)[:, None, None, None]
        prepared_set.write_split(folder / split, images, labels)
    prepared_set.finish_set(folder, CLASSES, ("train", "test"), stand_in=True)


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A data folder with a tiny `formula32` and an empty folder for runs; returns the set, opened."""
    monkeypatch.setenv("ALEXNET_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("ALEXNET_RUNS", str(tmp_path / "runs"))
    monkeypatch.delenv("ALEXNET_TRAIN", raising=False)
    make_set(tmp_path / "data" / "formula32")
    return prepared_set.open_set("formula32")


@pytest.fixture
def config():
    """A run small enough to train in a second: a quarter of the 19pct net, two epochs."""
    net, optimiser = CifarNet(width=0.25), Optimiser(rate=0.002, batch_size=32)
    return RunConfig(net=net, optimiser=optimiser, epochs=2, precision="fp32")


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    """A data folder with 34 and 12 images of `formula256`."""
    folder = tmp_path_factory.mktemp("data")
    for split, count in (("train", 34), ("test", 12)):
        pixels, labels = synthetic.generate(synthetic.LARGE, split, count)
        prepared_set.write_split(folder / "formula256" / split, pixels, labels)
    prepared_set.finish_set(folder / "formula256", synthetic.LARGE.classes, ("train", "test"), stand_in=True)
    return folder


@pytest.fixture
def photographs(images, tmp_path, monkeypatch):
    """That small `formula256`, opened, and an empty folder for runs."""
    monkeypatch.setenv("ALEXNET_DATA", str(images))
    monkeypatch.setenv("ALEXNET_RUNS", str(tmp_path / "runs"))
    return prepared_set.open_set("formula256")
