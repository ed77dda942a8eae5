"""The queue with real processes and real signals."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest

from alexnet import experiments as declared
from alexnet import files
from alexnet.config import UserError
from alexnet.experiments import artefacts, plan, results, runner, runs
from alexnet.experiments.answers import gain
from alexnet.experiments.declare import Experiment, cifar
from alexnet.training import checkpoint

SCRIPT = """
import sys
from alexnet import experiments
from tests_runner import experiment
from alexnet.experiments import runner
experiments.EXPERIMENTS = (experiment(int(sys.argv[1])),)
runner.train_missing("toy", threads=2)
"""


def experiment(epochs):
    """Two arms that train in a second for each few epochs; `toy` takes an eightieth of the epochs."""
    arms = {
        word: cifar("19pct", epochs=80 * epochs, width=0.25, rate=rate) for word, rate in (("with", 2e-3), ("without", 1e-3))
    }
    return Experiment("s3.3-lrn-cifar", arms, {"gain": gain("without", "with", top=1)})


@pytest.fixture
def toy(tiny, monkeypatch):
    """An experiment of two runs, alone in the world."""
    monkeypatch.setattr(declared, "EXPERIMENTS", (experiment(2),), raising=False)
    results.family.cache_clear()
    return declared.EXPERIMENTS[0]


def test_the_queue_trains_every_missing_run_once_and_measures_what_is_lacking(toy, capfd):
    assert [each.state for each in plan.wanted("toy")] == ["missing", "missing"]
    runner.train_missing("toy", threads=2)
    assert capfd.readouterr().err.count("epoch 2 of 2, loss") == 2, "without a terminal a line for each epoch of each run"
    for each in plan.wanted("toy"):
        assert each.state == "done"
        assert runs.read(each.config).status == "finished"
        assert {(row["split"], row["views"]) for row in artefacts.read_errors(runs.folder_of(each.config))} == {
            ("test", "whole")
        }
    manifests = [runs.folder_of(each.config) / "manifest.json" for each in plan.wanted("toy")]
    before = [file.stat().st_mtime_ns for file in manifests]
    runner.train_missing("toy", threads=2)
    # What is lacking is measured from the weights, without training again.
    each = plan.wanted("toy")[0]
    (runs.folder_of(each.config) / "errors.csv").unlink()
    assert each.state == "not measured"
    runner.train_missing("toy", threads=2)
    assert each.state == "done"
    assert [file.stat().st_mtime_ns for file in manifests] == before


def test_a_run_that_another_process_has_is_left_alone(toy):
    first, second = (each.config for each in plan.wanted("toy"))
    with files.locked(runs.lock_of(first), "busy"):
        runner.train_missing("toy", threads=2)
        assert [each.state for each in plan.wanted("toy")] == ["in work", "done"]
    assert runs.read(first) is None
    assert runs.read(second).status == "finished"


def test_one_command_is_printed_for_each_run_that_can_begin(toy):
    commands = plan.commands("toy")
    assert commands == [f"alexnet train {each.name}" for each in plan.wanted("toy")]
    words = [sys.executable, "-m", *commands[0].split(), "--threads", "1"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1, "the command of another process does not know this test's experiment"
    assert "There is no run" in done.stderr


def test_an_error_of_one_run_is_told_and_the_others_are_done(toy, monkeypatch, capfd):
    first, second = (each.config for each in plan.wanted("toy"))
    folder = runs.folder_of(first)
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("{")
    with pytest.raises(UserError, match=f"{runs.name_of(first)} is damaged"):
        runner.train_missing("toy", threads=2)
    assert re.search(r"manifest\.json cannot be read .*Restore the file", capfd.readouterr().err)
    assert (folder / "manifest.json").read_text() == "{", "nothing is trained on top of it before it is mended"
    assert runs.read(second).status == "finished"


@pytest.mark.parametrize(
    ("number", "to"), [(signal.SIGINT, "group"), (signal.SIGTERM, "parent"), (signal.SIGKILL, "parent")]
)
def test_a_stopped_or_killed_queue_leaves_no_process_and_a_checkpoint_of_each_run(tiny, tmp_path, number, to):
    (tmp_path / "tests_runner.py").write_text(
        f"import sys; sys.path.insert(0, {os.path.dirname(__file__)!r})\nfrom test_runner import experiment\n"
    )
    env = os.environ | {"PYTHONPATH": str(tmp_path)}
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, "500"], env=env, stderr=subprocess.PIPE, start_new_session=True
    )
    both = [config for _, config in experiment(500).configs("toy")][:1]
    wait_until(lambda: all((runs.folder_of(config) / "history.jsonl").is_file() for config in both), process)
    (os.killpg if to == "group" else os.kill)(process.pid, number)
    process.communicate(timeout=60)
    assert process.returncode != 0
    wait_until(lambda: not any(files.is_locked(runs.lock_of(config)) for config in both))
    wait_until(lambda: no_process_in(process.pid))
    for config in both:
        assert checkpoint.read(runs.folder_of(config)) is not None
        assert runs.read(config).status in ("stopped", "running")


def test_a_worker_that_is_killed_is_named_and_does_not_stop_the_queue(toy, monkeypatch, capfd):
    give = runner.Worker.give

    def killed(self, wanted):
        give(self, wanted)
        if wanted.config.optimiser.rate == 2e-3:
            self.process.kill()

    monkeypatch.setattr(runner.Worker, "give", killed)
    with pytest.raises(UserError, match=r"status -9 \(killed, perhaps for want of memory\)"):
        runner.train_missing("toy", threads=2)
    assert sorted(each.state for each in plan.wanted("toy")) == ["done", "missing"]


def test_places_are_devices_or_shares_of_the_cores(toy, monkeypatch):
    import torch

    wanted = plan.wanted("toy")
    monkeypatch.setattr(runner.machine, "available_cores", lambda: 8)
    assert runner.places(wanted) == ([None, None], 4)
    assert runner.places(wanted, threads=8) == ([None], 8)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert runner.places(wanted) == ([0, 1], 4)


def wait_until(true, process=None, seconds=60):
    """Wait until something is true; fail after a minute, or when a process that should run has ended."""
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, "it did not come about"
        if process is not None and process.poll() is not None:
            pytest.fail(process.stderr.read().decode())
        time.sleep(0.05)


def no_process_in(session):
    """Return whether no process of a session is left."""
    listed = subprocess.run(["ps", "-eo", "sess=,stat="], capture_output=True, text=True).stdout.split("\n")
    return not [line for line in listed if line.split()[:1] == [str(session)] and "Z" not in line]


def test_more_seeds_are_trained_when_asked_for_and_count_in_the_verdict(toy):
    runner.train_missing("toy", seeds=2, threads=2)
    assert [each.config.seed for each in plan.wanted("toy", seeds=2)] == [0, 1, 0, 1]
    assert {each.state for each in plan.wanted("toy", seeds=2)} == {"done"}
    (answer,) = results.Results(toy, "toy").answers()
    assert answer.interval.n == 2, "the declaration has one"
    name = plan.wanted("toy", seeds=3)[2].name
    assert plan.find(name).seed == 2, "a repetition can be asked for by its name"
    assert plan.artefacts_wanted(plan.find(name)) == {"errors/test/whole"}


def test_a_run_that_an_equal_task_began_meanwhile_is_no_failure(toy, monkeypatch):
    """Both saw that it was missing; one was first to lock it."""
    first, _ = (each.config for each in plan.wanted("toy"))
    give = runner.Worker.give

    def late(self, wanted):
        if wanted.config == first and not locks:
            locks.append(files.locked(runs.lock_of(first), "busy"))
            locks[0].__enter__()
        give(self, wanted)

    locks = []
    monkeypatch.setattr(runner.Worker, "give", late)
    assert runner.train_missing("toy", threads=2) == []
    assert [each.state for each in plan.wanted("toy")] == ["in work", "done"]
    locks[0].__exit__(None, None, None)


def test_a_divergence_is_returned_once(tiny, monkeypatch):
    wild = cifar("19pct", epochs=80, width=0.25, rate=1e6)
    monkeypatch.setattr(declared, "EXPERIMENTS", (Experiment("s3.3-lrn-cifar", {"with": wild}),), raising=False)
    (told,) = runner.train_missing("toy", threads=2)
    assert "rate that is too high" in told
    assert runner.train_missing("toy", threads=2) == []


def test_runs_that_wait_for_a_set_which_few_have_are_told_and_fail_nothing(toy, monkeypatch):
    failed = {"fall2009/a": "fall2009/a: fall2009 is made of images on disk."}
    monkeypatch.setattr(runner.Queue, "advance", lambda self: self.failed.update(failed))
    assert runner.train_missing("toy") == list(failed.values())
    failed["formula32/b"] = "formula32/b: its manifest is damaged."
    with pytest.raises(UserError, match="2 of the runs failed"):
        runner.train_missing("toy")
