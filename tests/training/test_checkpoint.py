import pickle
from dataclasses import replace

import pytest
import torch

from alexnet.config import Optimiser, UserError, to_dict
from alexnet.training import checkpoint, loop
from alexnet.training.checkpoint import Progress
from alexnet.training.learner import Learner


def saved(config, folder, epoch=1):
    learner = Learner(config)
    learner.step(torch.ones(4, 3, 32, 32), torch.arange(4))
    progress = Progress(epoch=epoch, loss_sum=0.1 + 0.2)
    checkpoint.save(folder, to_dict(config), progress, learner.weights(), learner.velocities())
    return learner


def load(config, folder):
    learner = Learner(replace(config, seed=config.seed))
    return learner, checkpoint.load(folder, to_dict(config), learner.restore)


def test_what_is_saved_comes_back_to_the_bit(config, tmp_path):
    before = saved(config, tmp_path)
    after, progress = load(config, tmp_path)
    assert progress == Progress(epoch=1, loss_sum=0.1 + 0.2)
    for ours, theirs in zip(before.net.parameters(), after.net.parameters(), strict=True):
        assert torch.equal(ours, theirs)
        assert torch.equal(before.optimiser.state[ours]["velocity"], after.optimiser.state[theirs]["velocity"])


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before_it(config, tmp_path):
    saved(config, tmp_path, epoch=1)
    saved(config, tmp_path, epoch=2)
    file = tmp_path / checkpoint.CURRENT
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.warns(UserWarning, match="cannot be read"):
        _, progress = load(config, tmp_path)
    assert progress.epoch == 1


def test_a_checkpoint_cannot_run_code(config, tmp_path):
    marker = tmp_path / "was-run"

    class Attack:
        def __reduce__(self):
            return (open, (str(marker), "w"))

    torch.save({"config": Attack()}, tmp_path / checkpoint.CURRENT, pickle_module=pickle)
    with pytest.warns(UserWarning, match="cannot be read"):
        _, progress = load(config, tmp_path)
    assert progress == Progress()
    assert not marker.exists()


def test_another_config_is_refused_and_the_fields_are_named(config, tmp_path):
    saved(config, tmp_path)
    other = replace(config, epochs=9, optimiser=Optimiser(rate=config.optimiser.rate, batch_size=64))
    with pytest.raises(UserError) as refusal:
        load(other, tmp_path)
    assert "epochs (2 recorded, 9 asked)" in str(refusal.value)
    assert "optimiser.batch_size (32 recorded, 64 asked)" in str(refusal.value)
    assert "rate" not in str(refusal.value)
    assert "--seed, --variant" in str(refusal.value)


def test_a_failed_write_leaves_the_checkpoint_that_was_there(config, tmp_path, monkeypatch):
    saved(config, tmp_path, epoch=1)

    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="No space"):
        saved(config, tmp_path, epoch=2)
    assert load(config, tmp_path)[1].epoch == 1


def test_stopping_and_going_on_gives_the_bits_of_an_uninterrupted_training(tiny, config, tmp_path):
    """Stopped by the caller after each epoch here; a real SIGKILL is in tests/claims/test_runs.py."""
    whole, _ = loop.train(config, tiny, tmp_path / "whole")
    loop.train(config, tiny, tmp_path / "parts", epoch_limit=1)
    parts, _ = loop.train(config, tiny, tmp_path / "parts")
    assert parts.progress == whole.progress
    for ours, theirs in zip(whole.net.parameters(), parts.net.parameters(), strict=True):
        assert torch.equal(ours, theirs)
