import pickle
from dataclasses import replace

import pytest
import torch
from kills import Killed, watch_files

from alexnet.config import Optimiser, UserError, to_dict
from alexnet.training import checkpoint, loop
from alexnet.training.checkpoint import Checkpoint, Progress
from alexnet.training.step import Learner

KEPT = {"threads": 3, "precision": {"choice": "fp32", "matmul_gflops": {"fp32": 68.5}}, "kernels": False}


def saved(config, folder, epoch=1):
    learner = Learner(config)
    learner.step(torch.ones(4, 3, 32, 32), torch.arange(4))
    progress = Progress(epoch=epoch, loss_sum=0.1 + 0.2, history=[{"epoch": 0, "images_seen": 0, "loss": None}])
    checkpoint.save(folder, Checkpoint(to_dict(config), progress, learner.weights(), learner.velocities(), KEPT))
    return learner


def test_what_is_saved_comes_back_bit_for_bit(config, tmp_path):
    before, after = saved(config, tmp_path), Learner(config)
    found = checkpoint.read(tmp_path)
    after.restore(found.weights, found.velocities)
    assert found.progress == Progress(epoch=1, loss_sum=0.1 + 0.2, history=[{"epoch": 0, "images_seen": 0, "loss": None}])
    assert found.kept == KEPT
    assert found.config == to_dict(config)
    for ours, theirs in zip(before.net.parameters(), after.net.parameters(), strict=True):
        assert torch.equal(ours, theirs)
        assert torch.equal(before.optimiser.state[ours]["velocity"], after.optimiser.state[theirs]["velocity"])


def cut(content, file):
    file.write_bytes(file.read_bytes()[:1000])


def flip(content, file):
    """One bit of a weight."""
    content["weights"]["conv2.weight"].view(torch.int32)[3, 2, 1, 0] ^= 1
    torch.save(content, file)


def reshape(content, file):
    content["velocities"]["fc4.weight"] = content["velocities"]["fc4.weight"].T.contiguous()
    torch.save(content, file)


def miss(content, file):
    del content["weights"]["conv1.bias"]
    torch.save(content, file)


def add(content, file):
    content["weights"]["conv9.bias"] = torch.zeros(1)
    torch.save(content, file)


def advance(content, file):
    content["progress"]["images_seen"] += 1
    torch.save(content, file)


def forget(content, file):
    del content["digest"]
    torch.save(content, file)


@pytest.mark.parametrize("damage", [cut, flip, reshape, miss, add, advance, forget])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before_it(config, tmp_path, damage):
    saved(config, tmp_path, epoch=1)
    saved(config, tmp_path, epoch=2)
    file = tmp_path / checkpoint.CURRENT
    damage(torch.load(file, weights_only=True), file)
    with pytest.warns(UserWarning, match="checkpoint.pt cannot be read and is passed over") as told:
        found = checkpoint.read(tmp_path)
    assert found.progress.epoch == 1
    assert [str(warning.message).count("\n") for warning in told] == [0]


def test_a_checkpoint_cannot_run_code(tmp_path):
    marker = tmp_path / "was-run"

    class Attack:
        def __reduce__(self):
            return (open, (str(marker), "w"))

    torch.save({"config": Attack()}, tmp_path / checkpoint.CURRENT, pickle_module=pickle)
    with pytest.warns(UserWarning, match="cannot be read"):
        assert checkpoint.read(tmp_path) is None
    assert not marker.exists()


def test_a_training_of_another_config_is_refused_and_the_fields_are_named(tiny, config, tmp_path):
    saved(config, tmp_path)
    other = replace(config, epochs=9, optimiser=Optimiser(rate=config.optimiser.rate, batch_size=64))
    with pytest.raises(UserError) as refusal:
        loop.train(other, tiny, tmp_path)
    assert "epochs (2 recorded, 9 asked)" in str(refusal.value)
    assert "optimiser.batch_size (32 recorded, 64 asked)" in str(refusal.value)
    assert "rate" not in str(refusal.value)


def test_a_failed_write_leaves_the_checkpoint_that_was_there(config, tmp_path, monkeypatch):
    saved(config, tmp_path, epoch=1)

    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="No space"):
        saved(config, tmp_path, epoch=2)
    assert checkpoint.read(tmp_path).progress.epoch == 1


@pytest.fixture
def events(monkeypatch):
    return watch_files(monkeypatch)


def test_a_kill_between_any_two_events_loses_nothing_that_was_saved_before(config, tmp_path, events):
    """Neither the weights nor what the run must keep: the third checkpoint or the second is there whatever happens."""
    events["count"], number, done = 0, 0, False
    while not done:
        number += 1
        folder = tmp_path / str(number)
        folder.mkdir()
        events["at"] = None
        for epoch in (1, 2):
            saved(config, folder, epoch)
        events["count"], events["at"] = 0, number
        try:
            saved(config, folder, epoch=3)
            done = True
        except Killed:
            pass
        events["at"] = None
        found = checkpoint.read(folder)
        assert found.progress.epoch in (2, 3)
        assert found.kept == KEPT
    assert number > 5


def test_of_a_finished_training_only_weights_are_kept(config, tmp_path):
    learner = saved(config, tmp_path)
    size = (tmp_path / checkpoint.CURRENT).stat().st_size
    saved(config, tmp_path)
    checkpoint.keep_weights(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == [checkpoint.WEIGHTS]
    assert (tmp_path / checkpoint.WEIGHTS).stat().st_size < 0.7 * size
    kept = checkpoint.read_weights(tmp_path)
    assert checkpoint.weights_digest(kept) == checkpoint.weights_digest(learner.weights())
    checkpoint.keep_weights(tmp_path)  # a second time does no harm
    assert checkpoint.read_weights(tmp_path).keys() == kept.keys()


def test_weights_are_kept_whatever_event_a_kill_comes_before(config, tmp_path, events):
    expected, number, done = None, 0, False
    while not done:
        number += 1
        folder = tmp_path / str(number)
        folder.mkdir()
        events["at"] = None
        expected = checkpoint.weights_digest(saved(config, folder).weights())
        events["count"], events["at"] = 0, number
        try:
            checkpoint.keep_weights(folder)
            done = True
        except Killed:
            pass
        events["at"] = None
        assert checkpoint.weights_digest(checkpoint.read_weights(folder)) == expected
    assert number > 3


def test_weights_of_a_training_at_hand_are_those_of_its_checkpoint(config, tmp_path):
    assert checkpoint.read_weights(tmp_path) is None
    learner = saved(config, tmp_path)
    assert checkpoint.weights_digest(checkpoint.read_weights(tmp_path)) == checkpoint.weights_digest(learner.weights())
    checkpoint.keep_weights(tmp_path)
    saved(config, tmp_path)
    assert not (tmp_path / checkpoint.WEIGHTS).exists(), "weights of the training before it"


def test_stopping_and_resuming_gives_the_bits_of_an_uninterrupted_training(tiny, config, tmp_path):
    """Stopped by the caller after each epoch here; real signals are in test_distributed.py."""
    whole, _ = loop.train(config, tiny, tmp_path / "whole", kept=KEPT)
    loop.train(config, tiny, tmp_path / "parts", epoch_limit=1, kept=KEPT)
    parts, _ = loop.train(config, tiny, tmp_path / "parts")
    assert parts.progress == whole.progress
    assert parts.kept == KEPT
    for ours, theirs in zip(whole.net.parameters(), parts.net.parameters(), strict=True):
        assert torch.equal(ours, theirs)
