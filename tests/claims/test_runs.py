import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from alexnet.claims import runs
from alexnet.config import Optimiser, RunConfig, UserError, config_hash, from_dict, to_dict

SCRIPT = """
import json, os, signal, sys
import torch
from alexnet.claims import runs
from alexnet.config import RunConfig, from_dict
from alexnet.training.learner import Learner

def kill_at(call, owner, name):
    # SIGKILL this process just before that call of `owner.name`, counted from 1
    kept, calls = getattr(owner, name), iter(range(1, 10**6))
    def counted(*args, **kwargs):
        if next(calls) == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return kept(*args, **kwargs)
    setattr(owner, name, counted)

if sys.argv[2:]:
    where, call = sys.argv[2:]
    kill_at(int(call), *{"step": (Learner, "step"), "save": (torch, "save"), "rename": (os, "replace")}[where])
runs.get(from_dict(RunConfig, json.loads(sys.argv[1])), threads=1, bar=False, checkpoint_seconds=0.0)
"""


def start(config, runs_dir, *kill):
    environment = os.environ | {"ALEXNET_RUNS": str(runs_dir)}
    words = [sys.executable, "-c", SCRIPT, json.dumps(to_dict(config)), *map(str, kill)]
    return subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(process):
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors.decode()


def test_a_run_killed_again_and_again_ends_equal_to_the_bit(tiny, config, tmp_path):
    """SIGKILL in the middle of an epoch, while a checkpoint is written, and between the two renames of one."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    finish(start(config, whole))
    folder = killed / config.scale / config.name
    for where, call in (("step", 8), ("save", 3), ("rename", 6)):
        process = start(config, killed, where, call)
        process.communicate(timeout=120)
        assert process.returncode == -signal.SIGKILL
        assert json.loads((folder / "manifest.json").read_text())["status"] == "running"
    finish(start(config, killed))
    ours, theirs = (json.loads((d / config.scale / config.name / "manifest.json").read_text()) for d in (killed, whole))
    assert ours["weights_sha256"] == theirs["weights_sha256"] is not None
    assert (folder / "metrics.jsonl").read_bytes() == (whole / config.scale / config.name / "metrics.jsonl").read_bytes()
    assert (len(ours["parts"]), len(theirs["parts"])) == (4, 1)


def test_ctrl_c_finishes_the_step_saves_and_says_that_it_goes_on(tiny, config, tmp_path):
    long = replace(config, epochs=500)
    folder = tmp_path / "runs" / long.scale / long.name
    process = start(long, tmp_path / "runs")
    while not (folder / "checkpoint.pt").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    assert b"the same command goes on from there" in errors
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["status"] == "stopped"
    assert runs.can_go_on(long)


def test_a_finished_run_is_read_and_not_trained_again(tiny, config, monkeypatch):
    first = runs.get(config)
    monkeypatch.setattr(runs.loop, "train", lambda *args, **kwargs: pytest.fail("it was trained again"))
    assert runs.get(config) == first
    assert first.status == "finished"


def test_the_manifest_says_what_is_needed_to_repeat_and_to_judge_the_run(tiny, config):
    manifest = runs.get(config, threads=1).manifest
    assert manifest["name"] == "fig1-relu/19pct-relu-rate-0.002/seed-0"
    assert from_dict(RunConfig, manifest["config"]) == config
    assert manifest["config_hash"] == config_hash(config)
    assert manifest["data"] == {"set": "formula32", "fingerprint": tiny.fingerprint, "stand_in": True}
    assert (manifest["epochs"], manifest["images_seen"], manifest["outcome"]) == (2, 600, "epochs")
    (part,) = manifest["parts"]
    assert part["threads"] == 1
    assert part["epochs"] == [0, 2]
    assert part["hardware"]["cores"] == os.cpu_count()
    assert part["versions"]["torch"]
    assert part["precision"]["choice"] == "fp32"
    assert set(part["git"]) == {"commit", "dirty"}
    assert manifest["seconds"] == pytest.approx(part["seconds"])


def test_a_run_keeps_the_loops_that_it_began_with_and_a_new_one_has_them_compiled_beyond_toy(tiny, config, monkeypatch):
    """What is wanted of the compiler, whether or not there is one here."""
    wanted = []
    monkeypatch.setattr(runs, "compile_loops", lambda net, compiled, crew: wanted.append(compiled) or compiled)
    assert runs.get(config, epoch_limit=1).manifest["parts"][0]["compiled"] is False
    runs.get(config)
    large = replace(config, scale="cpu")
    assert runs.get(large, epoch_limit=1).manifest["parts"][0]["compiled"] is True
    assert [part["compiled"] for part in runs.get(large).manifest["parts"]] == [True, True]
    assert wanted == [False, False, True, True]


def test_the_command_in_the_manifest_names_every_change_of_the_config(tiny, config):
    command = runs.get(config, threads=1).manifest["command"]
    assert command.endswith(" --threads 1")
    assert command.startswith("alexnet train fig1-relu --scale toy --variant 19pct-relu-rate-0.002 --seed 0")
    assert "--batch-size 32" in command
    assert "--width 0.25" in command
    assert "--rate" not in command


def test_another_config_under_the_same_name_is_refused(tiny, config):
    runs.get(config)
    with pytest.raises(UserError, match=r"optimiser.batch_size \(32 recorded, 64 asked\)"):
        runs.get(replace(config, optimiser=Optimiser(rate=config.optimiser.rate, batch_size=64)))


def test_an_overtaken_run_is_done_for_its_limit_and_goes_on_beyond_it(tiny, config):
    overtaken = runs.get(config, epoch_limit=1)
    assert overtaken.status == "overtaken"
    assert overtaken.is_done(1)
    assert not overtaken.is_done(2)
    assert not overtaken.is_done(None)
    finished = runs.get(config)
    assert finished.status == "finished"
    assert finished.metrics[:2] == overtaken.metrics


def test_a_run_on_other_images_is_not_continued(tiny, config, tmp_path):
    runs.get(config, epoch_limit=1)
    file = runs.folder_of(config) / "manifest.json"
    manifest = json.loads(file.read_text())
    manifest["data"]["fingerprint"] = "another"
    file.write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="begun on other images"):
        runs.get(config)


def test_two_processes_do_not_train_the_same_run(tiny, config, tmp_path):
    long = replace(config, epochs=500)
    process = start(long, tmp_path / "runs")
    try:
        while not runs.can_go_on(long):
            time.sleep(0.01)
        with pytest.raises(UserError, match="Another process is training"):
            runs.get(long)
    finally:
        process.kill()
        process.communicate()


def test_with_training_switched_off_a_missing_run_names_the_command_that_makes_it(tiny, config, monkeypatch):
    monkeypatch.setenv("ALEXNET_TRAIN", "0")
    with pytest.raises(runs.MissingRunError, match=r"alexnet train fig1-relu --scale toy --variant 19pct-relu-rate-0.002"):
        runs.get(config)


def test_a_divergence_is_in_the_manifest_and_in_a_warning(tiny, config):
    wild = replace(config, optimiser=Optimiser(rate=1e6, batch_size=32))
    with pytest.warns(UserWarning, match="rate that is too high"):
        run = runs.get(wild)
    assert run.status == "diverged"
    assert "rate that is too high" in run.manifest["warning"]
    assert run.is_done()


def test_the_net_of_a_run_is_loaded_only_when_it_is_the_one_that_was_measured(tiny, config):
    run = runs.get(config)
    learner, data = runs.load_learner(run)
    assert runs.weights_digest(learner.weights()) == run.manifest["weights_sha256"]
    assert data.fingerprint == tiny.fingerprint
    runs.checkpoint.discard(run.folder)
    with pytest.raises(UserError, match="not on this machine"):
        runs.load_learner(run)


def test_the_hash_of_a_config_does_not_depend_on_the_order_of_its_fields(config):
    shuffled = dict(reversed(list(to_dict(config).items())))
    assert config_hash(from_dict(RunConfig, shuffled)) == config_hash(config)
    assert config_hash(replace(config, seed=1)) != config_hash(config)
    with pytest.raises(UserError, match="no field 'rat'"):
        from_dict(Optimiser, {"rat": 1})
