import fnmatch
import json
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from dataclasses import replace

import pytest
import records

from alexnet import cli
from alexnet.config import PROJECT_DIR, Optimiser, RunConfig, UserError, config_hash, from_dict, to_dict
from alexnet.experiments import EXPERIMENTS, artefacts, plan, recording, results, runs
from alexnet.experiments.recording import train_run
from alexnet.training import checkpoint

SCRIPT = """
import json, os, signal, sys
from alexnet.config import RunConfig, from_dict
from alexnet.experiments import recording
from alexnet.training.step import Learner

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
    kill_at(int(call), *{"step": (Learner, "step"), "rename": (os, "replace"), "fsync": (os, "fsync")}[where])
recording.CHECKPOINT_SECONDS = 0.0
recording.train_run(from_dict(RunConfig, json.loads(sys.argv[1])), threads=1)
"""


def start(config, runs_dir, *kill):
    environment = os.environ | {"ALEXNET_RUNS": str(runs_dir)}
    words = [sys.executable, "-c", SCRIPT, json.dumps(to_dict(config)), *map(str, kill)]
    return subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(process):
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors.decode()


def test_a_run_killed_again_and_again_ends_equal_bit_for_bit(tiny, config, tmp_path):
    """SIGKILL in the middle of an epoch, while a file is written, and between the two renames of a checkpoint."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    finish(start(config, whole))
    folder = killed / runs.name_of(config)
    for where, call in (("step", 8), ("fsync", 9), ("rename", 8)):
        process = start(config, killed, where, call)
        process.communicate(timeout=120)
        assert process.returncode == -signal.SIGKILL
        assert json.loads((folder / "manifest.json").read_text())["status"] == "running"
    finish(start(config, killed))
    ours, theirs = (json.loads((d / runs.name_of(config) / "manifest.json").read_text()) for d in (killed, whole))
    assert ours["weights_sha256"] == theirs["weights_sha256"] is not None
    for file in ("metrics.jsonl", "history.jsonl"):
        assert (folder / file).read_bytes() == (whole / runs.name_of(config) / file).read_bytes()
    assert (len(ours["segments"]), len(theirs["segments"])) == (4, 1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_run_is_held_until_a_signal_finishes_the_step_and_leaves_a_checkpoint(tiny, config, tmp_path, number):
    long = replace(config, epochs=500)
    process = start(long, tmp_path / "runs")
    while not (runs.folder_of(long) / checkpoint.CURRENT).exists():
        time.sleep(0.01)
    with pytest.raises(UserError, match="Another process is training"):
        train_run(long)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    assert b"the same command resumes it" in errors
    assert runs.read(long).status == "stopped"
    assert checkpoint.read(runs.folder_of(long)) is not None


def test_a_finished_run_is_read_and_not_trained_again(tiny, config, monkeypatch):
    first = train_run(config)
    monkeypatch.setattr(recording.loop, "train", lambda *args, **kwargs: pytest.fail("it was trained again"))
    assert train_run(config).manifest == first.manifest
    assert first.status == "finished"


def test_the_manifest_says_what_is_needed_to_repeat_and_to_judge_the_run(tiny, config):
    manifest = train_run(config, threads=1).manifest
    assert manifest["version"] == runs.VERSION
    assert manifest["name"] == runs.name_of(config)
    assert from_dict(RunConfig, manifest["config"]) == config
    assert manifest["config_hash"] == config_hash(config)
    assert manifest["data"] == {"set": "formula32", "fingerprint": tiny.fingerprint, "stand_in": True}
    assert (manifest["epochs"], manifest["images_seen"], manifest["outcome"]) == (2, 600, "epochs")
    assert manifest["command"] == f"alexnet train {runs.name_of(config)} --threads 1"
    (segment,) = manifest["segments"]
    assert (segment["threads"], segment["epochs"], segment["ranks"], segment["device"]) == (1, [0, 2], 1, "cpu")
    assert segment["versions"]["torch"]
    assert segment["precision"]["choice"] == "fp32"
    assert set(segment["git"]) == {"commit", "dirty"}
    assert manifest["seconds"] == pytest.approx(segment["seconds"])


def test_the_folder_depends_on_what_decides_the_numbers_and_on_nothing_else(config):
    data, name, seed = runs.name_of(config).split("/")
    assert (data, seed) == ("formula32", "seed-0")
    assert name.startswith("19pct-relu-width-0.25-rate-0.002-2-epochs-fp32-")
    assert runs.name_of(replace(config, seed=3)) == f"{data}/{name}/seed-3"
    assert runs.name_of(replace(config, optimiser=replace(config.optimiser, momentum=0.8))).split("/")[1] != name
    whole = replace(config, stop_at_train_error=1)
    assert runs.name_of(whole) == runs.name_of(replace(config, stop_at_train_error=1.0)), "another spelling of a number"


def test_an_overtaken_run_is_done_for_its_limit_and_resumes_beyond_it(tiny, config):
    overtaken = train_run(config, epoch_limit=1)
    assert overtaken.status == "overtaken"
    assert overtaken.is_done(1)
    assert not overtaken.is_done(2)
    assert not overtaken.is_done(None)
    rows = overtaken.metrics
    finished = train_run(config)
    assert finished.status == "finished"
    assert finished.metrics[: len(rows)] == rows


def test_a_run_on_other_images_is_not_resumed(tiny, config):
    train_run(config, epoch_limit=1)
    folder = runs.folder_of(config)
    found = checkpoint.read(folder)
    found.kept["fingerprint"] = "another"
    checkpoint.save(folder, found)
    with pytest.raises(UserError, match="begun on other images"):
        train_run(config)


def test_a_divergence_is_in_the_manifest_and_told(tiny, config, capsys):
    wild = replace(config, optimiser=Optimiser(rate=1e6, batch_size=32))
    run = train_run(wild)
    assert "rate that is too high" in capsys.readouterr().err
    assert run.status == "diverged"
    assert "rate that is too high" in run.manifest["warning"]
    assert run.is_done()


def test_the_net_of_a_run_is_loaded_only_when_it_is_the_one_that_was_measured(tiny, config):
    run = train_run(config)
    assert not (run.folder / checkpoint.CURRENT).exists(), "a finished run keeps its weights alone"
    trained = recording.load(run)
    assert checkpoint.weights_digest(trained.learner.weights()) == run.manifest["weights_sha256"]
    assert trained.data.fingerprint == tiny.fingerprint
    (run.folder / checkpoint.WEIGHTS).unlink()
    with pytest.raises(UserError, match="not on this machine"):
        recording.load(run)


def test_a_half_finished_run_is_not_evaluated_and_the_message_says_how_to_finish_it(tiny, config):
    run = train_run(config, epoch_limit=1)
    with pytest.raises(UserError, match=f"Finish it with: alexnet train {runs.name_of(config)}"):
        recording.load(replace(run, manifest=run.manifest | {"status": "stopped"}))


def test_training_that_starts_from_another_run_has_its_weights_but_for_the_last_layer(tiny, config):
    tuned = replace(config, seed=0, epochs=1, optimiser=replace(config.optimiser, rate=1e-12), start_from=config)
    with pytest.raises(UserError, match=f"Train them first: alexnet train {runs.name_of(config)}"):
        train_run(tuned)
    train_run(config)
    before = checkpoint.read_weights(train_run(config).folder)
    after = checkpoint.read_weights(train_run(tuned).folder)
    for name, weight in before.items():
        same = (weight - after[name]).abs().max() < 1e-6
        assert same == (not name.startswith("fc4.")), name


def test_a_manifest_of_an_older_version_is_read_and_one_of_a_newer_is_refused(tiny, config):
    """Version 1 had `parts` for segments, and some of them lack what later code writes."""
    run = train_run(config)
    old = {k: v for k, v in run.manifest.items() if k not in ("version", "segments", "artefacts")}
    later = ("device", "ranks", "kernels")
    old["parts"] = [{k: v for k, v in s.items() if k not in later} for s in run.manifest["segments"]]
    file = run.folder / "manifest.json"
    file.write_text(json.dumps(old))
    read = runs.read(config)
    assert read.device == "cpu"
    assert (read.manifest["segments"][0]["ranks"], read.name, read.status) == (1, run.name, "finished")
    file.write_text(json.dumps(run.manifest | {"version": runs.VERSION + 1}))
    with pytest.raises(UserError, match="update the code"):
        runs.read(config)


DAMAGED = (
    "",
    "{",
    "[1]",
    "null",
    '{"version": 2}',
    '{"config": 3, "segments": []}',
    '{"version": 2, "config": {}, "segments": []}',
    '{"version": 2, "config": {"new": 1}, "segments": [], "status": "finished"}',
    '{"version": 2, "config": {}, "segments": [], "status": "finished"}',
    '{"version": 2, "config": {}, "segments": [{}], "status": "finished", "facts": []}',
    '{"version": 2, "config": {}, "segments": [{}], "status": "finished", "facts": {"arm_of": "x"}}',
)


def test_a_damaged_manifest_is_one_line_with_its_file_and_breaks_no_other_run(tiny, config):
    train_run(config)
    train_run(replace(config, seed=1))
    file = runs.folder_of(config) / "manifest.json"
    for content in DAMAGED:
        file.write_text(content)
        with pytest.raises(UserError, match=r"manifest\.json .*alexnet train formula32") as refused:
            runs.read(config)
        assert "\n" not in str(refused.value)
        assert [run.seed for run in runs.recorded()] == [1], content


@pytest.mark.parametrize(("file", "content"), [("metrics.jsonl", "{"), ("errors.csv", "a\nb"), ("manifest.json", "[1]")])
def test_a_damaged_run_breaks_no_table_and_is_told_once(tiny, capsys, monkeypatch, file, content):
    runs._tell.cache_clear()
    lrn = next(experiment for experiment in EXPERIMENTS if experiment.claim == "s3.3-lrn")
    for seed in (0, 1):
        records.record(lrn.config("with", "toy", seed), [("val", "ten", 1, 5, 300)])
    folder = runs.folder_of(lrn.config("with", "toy", 1))
    (folder / file).write_text(content)
    monkeypatch.setattr(plan, "seconds_per_epoch", lambda config: 1.0)
    for words in (["plan"], ["plan", "--commands"], ["list"], ["compare"]):
        cli.main([words[0], lrn.claim, "--scale", "toy", *words[1:]])
    assert [run.seed for run in results.Results(lrn, "toy").runs["with"].values()] == [0]
    out, err = capsys.readouterr()
    assert err.count(f"left out: {folder / file}") == 1
    assert re.search(r"seed-1 +damaged", out)


def test_an_installed_package_reads_the_runs_that_came_along_where_the_users_folder_has_none(config, tmp_path, monkeypatch):
    monkeypatch.setenv("ALEXNET_RUNS", str(tmp_path / "site-packages" / "recorded"))
    for seed in (0, 1):
        records.record(replace(config, seed=seed), status="finished")
    monkeypatch.setattr(runs, "CAME_ALONG", runs.runs_dir())
    monkeypatch.setattr(runs, "home_dir", lambda: tmp_path)
    monkeypatch.setenv("ALEXNET_RUNS", str(tmp_path / "runs"))
    assert not list(runs.recorded()), "who says where the runs are means that place alone"
    monkeypatch.delenv("ALEXNET_RUNS")
    records.record(replace(config, seed=1), status="diverged")
    assert [(run.seed, run.status) for run in runs.recorded()] == [(0, "finished"), (1, "diverged")]
    assert runs.read(config).folder == runs.CAME_ALONG / runs.name_of(config)
    assert runs.folder_of(config) == tmp_path / "runs" / runs.name_of(config), "what is trained is the user's"


def test_what_comes_along_is_every_committed_record_and_nothing_else():
    """By the patterns of the package, which lies beside its runs in a checkout."""
    project = tomllib.loads((PROJECT_DIR / "pyproject.toml").read_text())["tool"]["setuptools"]
    package = PROJECT_DIR / "alexnet"
    taken = {file for pattern in project["package-data"]["alexnet"] for file in package.glob(pattern)}
    left = [str(package / pattern) for pattern in project["exclude-package-data"]["alexnet"]]
    came = {file for file in taken if not any(fnmatch.fnmatch(file, pattern) for pattern in left)}
    records_ = {file.relative_to(runs.CAME_ALONG).as_posix() for file in came if runs.CAME_ALONG in file.parents}
    how = {"capture_output": True, "text": True, "check": True, "cwd": PROJECT_DIR / "runs"}
    committed = subprocess.run(["git", "ls-files", "*/seed-*"], **how).stdout.split()
    assert set(committed) <= records_
    assert not [name for name in records_ if "checkpoint" in name or "formula" in name or ".large." in name]


def test_every_committed_run_is_read_and_lies_where_its_config_says(monkeypatch):
    monkeypatch.delenv("ALEXNET_RUNS", raising=False)
    files = list(runs.runs_dir().glob("[ci]*/*/seed-*/manifest.json"))
    assert len(files) >= 27
    for file in files:
        run = runs.read(file.parent.relative_to(runs.runs_dir()).as_posix())
        assert runs.folder_of(run.config) == file.parent
        assert run.manifest["version"] == runs.VERSION
        assert {row["epoch"] for row in run.metrics} == set(range(run.manifest["epochs"] + 1))


def test_a_full_disk_is_named_with_the_variable_that_moves_the_results(tiny, config, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(recording.files, "write_json", full)
    with pytest.raises(UserError, match=r"No space left on device\..*ALEXNET_RUNS"):
        train_run(config)


def test_results_that_may_not_be_written_are_one_line(tiny, config, monkeypatch):
    def refused(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(recording.files, "locked", refused)
    with pytest.raises(UserError, match=r"Permission denied\..*ALEXNET_RUNS"):
        train_run(config)


def test_the_counts_of_a_committed_run_are_of_the_weights_it_ended_with(monkeypatch):
    """Wherever `errors.csv` and the last epoch of `metrics.jsonl` have the same images in the same views."""
    monkeypatch.setenv("ALEXNET_RUNS", str(PROJECT_DIR / "runs"))
    shared = 0
    for run in runs.recorded():
        ended = [row for row in run.metrics if row["epoch"] == run.manifest["epochs"]]
        counted = {(row["split"], row["views"], row["k"]): (row["wrong"], row["total"]) for row in ended}
        for row in artefacts.read_errors(run.folder):
            expected = counted.get((row["split"], row["views"], row["k"]))
            assert expected in (None, (row["wrong"], row["total"])), f"{run.name}: {row}"
            shared += expected is not None
    assert shared > 50
