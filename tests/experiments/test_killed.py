"""A training is killed before each of the events that change its files, and resumes to the same bits without any option."""

import numpy as np
import pytest
import torch
from kills import Killed, watch_files

from alexnet import machine
from alexnet.config import CifarNet, Optimiser, RunConfig
from alexnet.experiments import recording, runs
from alexnet.preprocessing import prepared_set
from alexnet.training import checkpoint

CONFIG = RunConfig(net=CifarNet(width=0.1), optimiser=Optimiser(rate=0.002, batch_size=32), epochs=1, precision="fp32")


@pytest.fixture
def events(monkeypatch):
    return watch_files(monkeypatch)


def result(folder):
    run = runs.read(CONFIG)
    segment = run.manifest["segments"][-1]
    kept = segment["threads"], segment["precision"], segment["kernels"], run.manifest["data"]["fingerprint"]
    weights = checkpoint.weights_digest(checkpoint.read_weights(run.folder))
    assert run.manifest["weights_sha256"] == weights
    return run.status, weights, run.metrics, run.history, kept


def test_a_training_killed_before_any_file_event_ends_with_the_same_bits(tmp_path, monkeypatch, events):
    """A checkpoint after every step; one thread asked for at first, and by none of the calls that resume."""
    monkeypatch.setenv("ALEXNET_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(machine, "git_state", lambda: {"commit": None, "dirty": None})
    monkeypatch.setattr(recording, "CHECKPOINT_SECONDS", 0.0)
    for split, count in (("train", 64), ("test", 20)):
        images = np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3)).astype(np.uint8)
        prepared_set.write_split(tmp_path / "data" / "formula32" / split, images, np.arange(count) % 10)
    prepared_set.finish_set(tmp_path / "data" / "formula32", list("abcdefghij"), ("train", "test"), stand_in=True)
    threads = torch.get_num_threads()

    def train(number, at=None, **options):
        monkeypatch.setenv("ALEXNET_RUNS", str(tmp_path / f"runs-{number}"))
        events["count"], events["at"] = 0, at
        try:
            recording.train_run(CONFIG, **options)
            return True
        except Killed:
            return False
        finally:
            events["at"] = None

    try:
        train(0, threads=1)
        expected, number, done = result(tmp_path), 0, False
        while not done:
            number += 1
            done = train(number, at=number, threads=1)
            options = {} if (runs.folder_of(CONFIG) / checkpoint.CURRENT).exists() else {"threads": 1}
            train(number, **options)
            assert result(tmp_path) == expected, f"killed before event {number}"
        assert number > 40
    finally:
        torch.set_num_threads(threads)
