"""Trainings by real ranks, started by `launch` as the command line starts them, and what ends them."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from alexnet.config import CifarNet, ColumnNet, UserError
from alexnet.model.column_parallel import Layout
from alexnet.preprocessing import open_set, prepared_set
from alexnet.preprocessing.loader import rows_of
from alexnet.training import checkpoint, distributed, loop
from alexnet.training.distributed import Group, StopRequests

# Two replicas train on 129 images, 64 at a time: replica 0 has none of the last one of an epoch. Rank 1 is killed in the
# first job. In the second the launching process gets a Ctrl-C, and in the third it is killed.
JOB = """
    import json, os, signal, sys, time
    from pathlib import Path
    import torch
    from alexnet.config import CifarNet, Optimiser, RunConfig
    from alexnet.model.column_parallel import Layout
    from alexnet.preprocessing import open_set
    from alexnet.training import loop
    from alexnet.training.distributed import joined

    folder, launcher = Path(sys.argv[1]), int(sys.argv[2])
    rank, job = int(os.environ["RANK"]), int(sys.argv[3])
    killer, process = ((1, os.getpid()), (0, launcher), (0, launcher))[job]
    number = (signal.SIGKILL, signal.SIGINT, signal.SIGKILL)[job]
    torch.set_num_threads(1)
    CONFIG = RunConfig(
        net=CifarNet(width=0.25), optimiser=Optimiser(rate=0.002, batch_size=64), epochs=500, precision="fp32"
    )

    class Slowly(loop.Training):
        steps = 0

        def step(self, *batch):
            Slowly.steps += 1
            if Slowly.steps == 5 and rank == killer:
                os.kill(process, number)
            time.sleep(0.1 if Slowly.steps >= 5 else 0)
            return super().step(*batch)

    loop.Training = Slowly
    with joined(Layout(1, 2)) as group:
        net = torch.nn.Linear(2, 1)
        net.weight.grad, net.bias.grad = torch.tensor([[4.0, 8.0]]) * (group.rank + 1), torch.tensor([10.0])
        group.average(net, (0.75, 0.25)[group.rank])
        found = {
            "any": group.any(group.rank == 1, False),
            "total": group.total([2**40 + group.rank, 0.25]),
            "averaged": [*net.weight.grad[0].tolist(), net.bias.grad.item()],
        }
        (folder / f"found-{group.rank}").write_text(json.dumps(found))
        options = {"group": group, "checkpoint_seconds": 0.0, "bar": False}
        training, outcome = loop.train(CONFIG, open_set("formula32"), folder / "run", **options)
        at = training.progress
        (folder / f"ended-{group.rank}").write_text(json.dumps([outcome, at.epoch, at.step]))
        if outcome == "stopped":
            raise KeyboardInterrupt
"""
LAUNCH = """
    import os, sys
    from alexnet.model.column_parallel import Layout
    from alexnet.training.distributed import launch
    sys.exit(launch([sys.argv[2], str(os.getpid()), "2"], Layout(1, 2), [sys.argv[1]]))
"""


def wait_for(condition):
    for _ in range(600):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError("it never came true")


@pytest.fixture(scope="module")
def jobs(tmp_path_factory):
    """How three jobs ended, with the checkpoints after each, and what the ranks found."""
    folder = tmp_path_factory.mktemp("job")
    (folder / "job.py").write_text(textwrap.dedent(JOB))
    images = np.random.default_rng(0).integers(0, 256, (129, 32, 32, 3)).astype(np.uint8)
    for split, count in (("train", 129), ("test", 10)):
        prepared_set.write_split(folder / "data" / "formula32" / split, images[:count], np.arange(count) % 10)
    prepared_set.finish_set(folder / "data" / "formula32", tuple("0123456789"), ("train", "test"), stand_in=True)
    statuses, stood = [], []
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"ALEXNET_DATA": folder / "data", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}.items():
            patch.setenv(name, str(value))
        program = (str(folder / "job.py"),)
        for job in ("0", "1"):
            statuses.append(distributed.launch([str(folder), str(os.getpid()), job], Layout(1, 2), program))
            stood.append(checkpoint.read(folder / "run").progress)
        asked = [json.loads((folder / f"ended-{rank}").read_text()) for rank in range(2)]
        for rank in range(2):
            (folder / f"ended-{rank}").unlink()
        done = subprocess.run([sys.executable, "-c", textwrap.dedent(LAUNCH), *program, folder], timeout=300)
        statuses.append(done.returncode)
        assert done.returncode == -signal.SIGKILL, "it ended by itself"
        files = [folder / f"ended-{rank}" for rank in range(2)]
        wait_for(lambda: all(file.exists() for file in files))
        left = [json.loads(file.read_text()) for file in files]
        stood.append(checkpoint.read(folder / "run").progress)
    found = [json.loads((folder / f"found-{rank}").read_text()) for rank in range(2)]
    return {"statuses": statuses, "stood": stood, "asked": asked, "left": left, "found": found, "data": folder / "data"}


def steps_of(progress):
    return progress.epoch * 3 + progress.step


def test_a_killed_rank_ends_the_job_and_the_same_command_resumes(jobs):
    assert jobs["statuses"][0] == 1
    killed, asked, _ = jobs["stood"]
    assert steps_of(killed) == 4, "it was killed in the fifth step"
    assert steps_of(asked) >= 4 + 5


def test_ctrl_c_in_the_launching_process_stops_every_rank_after_the_same_step(jobs):
    assert jobs["statuses"][1] == distributed.STOPPED
    at = jobs["stood"][1]
    assert jobs["asked"] == [["stopped", at.epoch, at.step]] * 2


def test_a_request_to_stop_reaches_ranks_through_those_who_launched_them(tmp_path):
    """As a worker of the queue has it, whose queue is gone: ranks that nothing reaches would fail after a minute."""
    (tmp_path / "waits.py").write_text("import select, sys; sys.exit(not select.select([0], [], [], 60)[0])")
    (stop := distributed.StopRequests()).request()
    assert distributed.launch([], Layout(1, 2), (str(tmp_path / "waits.py"),), stop) == distributed.STOPPED


def test_ranks_whose_launching_process_is_killed_stop_after_the_same_step_and_save(jobs):
    assert jobs["statuses"][2] == -signal.SIGKILL
    at = jobs["stood"][2]
    assert jobs["left"] == [["stopped", at.epoch, at.step]] * 2
    assert steps_of(at) >= steps_of(jobs["stood"][1]) + 5


def test_a_replica_without_images_of_the_last_batch_trains_as_one_process_does(jobs, tmp_path, monkeypatch, config):
    """But for the order of sums; through two stops, for all epochs that the jobs came to, of 64, 64 and 1 images."""
    monkeypatch.setenv("ALEXNET_DATA", str(jobs["data"]))
    at = jobs["stood"][2]
    alike = replace(config, optimiser=replace(config.optimiser, batch_size=64), epochs=500)
    alone, _ = loop.train(alike, open_set("formula32"), tmp_path, epoch_limit=at.epoch, bar=False)
    assert at.epoch >= 4
    expected = [line["loss"] for line in alone.progress.history]
    assert [line["loss"] for line in at.history][1:] == pytest.approx(expected[1:], rel=1e-5)
    assert [line["images_seen"] for line in at.history] == [129 * epoch for epoch in range(at.epoch + 1)]


def test_ranks_agree_and_average_over_replicas(jobs):
    for found in jobs["found"]:
        assert found["any"] == [True, False]
        assert found["total"] == [2 * 2**40 + 1, 0.5]
        assert found["averaged"] == [0.75 * 4 + 0.25 * 8, 0.75 * 8 + 0.25 * 16, 10.0]


@pytest.fixture
def alone(monkeypatch):
    """An environment in which nothing has started this process as a rank."""
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_a_single_process_is_a_group_by_itself(alone):
    assert not distributed.is_rank()
    with distributed.joined(Layout()) as group:
        assert (group.num_ranks, group.is_main, group.part, group.device.type) == (1, True, (0, 1), "cpu")
        assert group.column_group is group.replica_group is None
        assert group.any(True, False) == (True, False)
        assert group.total([3, 0.5]) == [3.0, 0.5]


def test_too_few_or_too_many_ranks_are_refused_with_the_command_that_starts_enough(alone):
    def refused():
        with pytest.raises(UserError) as caught, distributed.joined(Layout(2, 2)):
            pass
        return str(caught.value)

    assert refused().startswith("--devices 2 --replicas 2 needs 4 ranks, not 1.")
    assert "torchrun --nproc-per-node 4" in refused()
    alone.setenv("RANK", "5")
    alone.setenv("WORLD_SIZE", "8")
    assert distributed.is_rank()
    assert "4 ranks, not 8" in refused()


def test_ranks_of_a_mesh_are_numbered_pair_by_pair():
    groups = [Group(layout=Layout(2, 3), rank=rank) for rank in range(6)]
    assert [(group.replica, group.column) for group in groups] == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)]
    assert [group.part for group in groups[::2]] == [(0, 3), (1, 3), (2, 3)]
    assert [group.is_main for group in groups] == [True] + [False] * 5


def test_replicas_share_out_every_image_once():
    for replicas in (1, 2, 3, 8):
        for size in (1, 2, 7, 128):
            rows = [range(size)[rows_of(size, Group(layout=Layout(1, replicas), rank=r).part)] for r in range(replicas)]
            assert [image for part in rows for image in part] == list(range(size))
            assert max(map(len, rows)) - min(map(len, rows)) <= 1


def test_a_rank_whose_agent_has_ended_is_asked_to_stop(alone):
    alone.setenv("TORCHELASTIC_RUN_ID", "none")
    assert not StopRequests().requested
    alone.setattr(os, "getppid", lambda: 1)
    assert StopRequests().requested


def test_a_layout_that_does_not_fit_a_net_is_refused():
    for net in (CifarNet(), ColumnNet(ablation="one-column")):
        with pytest.raises(UserError, match=r"--devices 2 .* this net has 1: use --devices 1, and --replicas 2"):
            distributed.columns_here(net, Layout(2, 1))
        assert distributed.columns_here(net, Layout(1, 4)) == ()
    with pytest.raises(UserError, match=r"--devices 3 .* has 2: use --devices 2"):
        distributed.columns_here(ColumnNet(), Layout(3, 1))
    assert [distributed.columns_here(ColumnNet(), Layout(2, 1), column) for column in (0, 1)] == [("a",), ("b",)]


def test_each_rank_has_a_cuda_device_of_its_own(alone):
    alone.setattr(torch.cuda, "is_available", lambda: False)
    assert distributed.device_of_rank(1) == torch.device("cpu")
    alone.setattr(torch.cuda, "is_available", lambda: True)
    alone.setattr(torch.cuda, "device_count", lambda: 2)
    assert distributed.device_of_rank(1) == torch.device("cuda", 1)
    with pytest.raises(UserError, match="4 ranks need a CUDA device each, and this machine shows 2"):
        distributed.launch(["train"], Layout(2, 2))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_is_a_request_and_the_second_acts_as_always(number):
    acted = []
    before = signal.signal(number, lambda *_: acted.append(number))
    try:
        with StopRequests() as stop:
            assert not stop.requested
            os.kill(os.getpid(), number)
            wait_for(lambda: stop.requested)
            assert not acted
            os.kill(os.getpid(), number)
            wait_for(lambda: acted)
        os.kill(os.getpid(), number)
        wait_for(lambda: len(acted) == 2)
    finally:
        signal.signal(number, before)


def test_a_signal_that_is_ignored_stays_so():
    """As under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopRequests() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.requested
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_thread_may_ask_a_training_to_stop(tiny, config, tmp_path):
    stop = StopRequests()

    def ask(progress, times):
        thread = threading.Thread(target=stop.request)
        thread.start()
        thread.join()

    training, outcome = loop.train(config, tiny, tmp_path, on_epoch=ask, stop=stop, bar=False)
    assert outcome == "stopped"
    assert (training.progress.epoch, training.progress.step) == (0, 1)


def test_the_end_of_standard_input_is_a_request_where_the_environment_says_so(monkeypatch):
    ours, theirs = os.pipe()
    before = os.dup(0)
    os.dup2(ours, 0)
    try:
        monkeypatch.setenv(distributed.STOP_AT_EOF, "1")
        assert not StopRequests().requested
        os.close(theirs)
        assert StopRequests().requested
        monkeypatch.delenv(distributed.STOP_AT_EOF)
        assert not StopRequests().requested
    finally:
        os.dup2(before, 0)
        os.close(before)
        os.close(ours)
