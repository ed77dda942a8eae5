"""Jobs of real ranks, started by `launch` as the command line starts them, and what ends them."""

import json
import os
import subprocess
import sys
import textwrap
import time
from types import SimpleNamespace

import pytest
import torch

from alexnet.config import UserError
from alexnet.model.columns import Layout
from alexnet.training import launch, ranks

# Two replicas count steps and save after each. Rank 1 is killed in step 3 of the first job. In the second it is killed in
# step 6, all start again, and in step 9 the starting process gets a Ctrl-C. In the third that one is killed three steps on.
JOB = """
    import json, os, signal, sys, time
    from pathlib import Path
    import torch
    from alexnet.model.columns import Layout
    from alexnet.training import ranks
    from alexnet.training.process import StopRequests

    folder = Path(sys.argv[1])
    saved, killed, interrupted = folder / "saved", folder / "killed", folder / "interrupted"
    ending = signal.SIGKILL if interrupted.exists() else signal.SIGINT
    torch.set_num_threads(1)

    def averaged(rank, weights, gradients):
        net = torch.nn.Linear(2, 1)
        net.weight.grad = torch.tensor([gradients[rank.index]])
        net.bias.grad = torch.tensor([10.0 * (rank.index + 1)])
        ranks.average_gradients(net, rank.replica_group, weights[rank.index])
        return [*net.weight.grad[0].tolist(), net.bias.grad.item()]

    with ranks.joined(Layout(1, 2)) as rank, StopRequests() as stop:
        found = {
            "any": [ranks.any_rank(rank.index == 1, rank), ranks.any_rank(False, rank)],
            "sums": ranks.sum_over_replicas([2**40 + rank.index, 0.25], rank),
            "averaged": averaged(rank, (3 / 4, 1 / 4), ([4.0, 8.0], [12.0, 16.0])),
            "none": averaged(rank, (1.0, 0.0), ([4.0, 8.0], [float("nan"), float("nan")])),
            "first": int(saved.read_text()) if saved.exists() else 0,
        }
        for step in range(found["first"], 10**6):
            time.sleep(0.005)
            if step in (3, 6) and rank.index == 1 and not Path(f"{killed}{step}").exists():
                Path(f"{killed}{step}").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            if step == max(9, found["first"] + 3) and rank.index == 0:
                interrupted.touch()
                os.kill(os.getppid(), ending)
            torch.distributed.all_reduce(torch.ones(1000))
            if rank.speaks:
                saved.write_text(str(step + 1))
            torch.distributed.barrier()
            if ranks.any_rank(stop.requested or rank.orphaned, rank):
                found["last"] = step
                (folder / f"found-{rank.index}-{step}").write_text(json.dumps(found))
                raise SystemExit(130)
"""
LAUNCH = """
    import sys
    from alexnet.model.columns import Layout
    from alexnet.training.launch import launch
    sys.exit(launch([sys.argv[2]], Layout(1, 2), int(sys.argv[3]), [sys.argv[1]]))
"""


@pytest.fixture(scope="module")
def jobs(tmp_path_factory):
    """How three jobs ended, and what each rank found in those that it could end, by the rank's index."""
    folder = tmp_path_factory.mktemp("job")
    (folder / "job.py").write_text(textwrap.dedent(JOB))
    env = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "TMPDIR": str(folder)}
    command = [sys.executable, "-c", textwrap.dedent(LAUNCH), folder / "job.py", folder]
    ended = []
    for restarts in ("0", "1", "0"):
        done = subprocess.run([*command, restarts], env=env, capture_output=True, text=True, timeout=600)
        done.saved = int((folder / "saved").read_text())
        wanted = [folder / f"found-{index}-{done.saved - 1}" for index in (0, 1)]
        for _ in range(100 if ended else 0):  # Why: rank 1 may end a moment after what was waited for.
            if all(file.exists() for file in wanted):
                break
            time.sleep(0.1)
        done.found = [json.loads(file.read_text()) for file in wanted if file.exists()]
        ended.append(done)
    return ended


def test_a_killed_rank_ends_the_job_with_one_line_about_it(jobs):
    """Without a traceback: the other rank says that it stops, and then which rank was killed and what to do."""
    killed, _, _ = jobs
    assert killed.returncode == 1
    noticed, line = killed.stderr.strip().splitlines()
    assert noticed.startswith("error: rank 0 of 2 stops, another one is gone (")
    assert line.startswith("error: rank 1 of 2 was killed by SIGKILL (is there too little memory?); the others were stopped")
    assert "the same command goes on from there" in line


def test_the_same_command_goes_on_from_what_was_saved(jobs):
    """The second job began at step 3, was started again at step 6, and the third began where the second was stopped."""
    killed, stopped, left = jobs
    assert killed.saved == 3
    assert stopped.found[0]["first"] == 6
    assert left.found[0]["first"] == stopped.saved


def test_ctrl_c_reaches_every_rank_which_stop_after_the_same_step(jobs):
    _, stopped, _ = jobs
    assert stopped.returncode == 130, stopped.stderr
    assert [found["last"] for found in stopped.found] == [stopped.saved - 1] * 2
    assert stopped.saved > 9


def test_ranks_whose_agent_is_killed_stop_after_the_same_step_and_save(jobs):
    _, stopped, left = jobs
    assert left.returncode == -9
    assert [found["last"] for found in left.found] == [left.saved - 1] * 2
    assert left.saved > stopped.saved + 3


@pytest.mark.parametrize("index", [0, 1])
def test_ranks_agree_and_average_over_replicas(jobs, index):
    """3/4 of one replica's mean and 1/4 of the other's; nothing of one that has no images, even if that is no number."""
    found = jobs[1].found[index]
    assert found["any"] == [True, False]
    assert found["sums"] == [2**41 + 1, 0.5]
    assert found["averaged"] == [0.75 * 4 + 0.25 * 12, 0.75 * 8 + 0.25 * 16, 0.75 * 10 + 0.25 * 20]
    assert found["none"] == [4.0, 8.0, 10.0]


@pytest.fixture
def alone(monkeypatch):
    """An environment in which nothing has started this process as a rank."""
    for name in [*os.environ, "MASTER_ADDR", "MASTER_PORT"]:
        if name.startswith(("RANK", "WORLD_SIZE", "LOCAL_", "MASTER_", "SLURM_", "TORCHELASTIC_")):
            monkeypatch.setenv(name, "")
            monkeypatch.delenv(name)
    return monkeypatch


def refused(layout):
    with pytest.raises(UserError) as caught, ranks.joined(layout):
        pass
    return str(caught.value)


def test_a_single_process_is_a_rank_by_itself(alone):
    assert not ranks.is_rank()
    with ranks.joined(Layout()) as rank:
        assert (rank.index, rank.replica, rank.column, rank.speaks) == (0, 0, 0, True)
        assert rank.column_group is rank.replica_group is rank.exchange(None) is None
        assert ranks.any_rank(True, rank)
        assert ranks.sum_over_replicas([3, 0.5], rank) == [3.0, 0.5]


def test_too_few_or_too_many_ranks_are_refused_with_the_command_that_starts_enough(alone):
    message = refused(Layout(2, 2))
    assert message.startswith("--devices 2 --replicas 2 needs 4 ranks, and 1 was started.")
    assert "torchrun --nproc-per-node 4" in message
    for name, value in {"RANK": "5", "WORLD_SIZE": "8", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}.items():
        alone.setenv(name, value)
    assert ranks.is_rank()
    assert "and 8 were started" in refused(Layout(2, 2))
    alone.delenv("MASTER_ADDR")
    assert refused(Layout(2, 2)).startswith("RANK is set but MASTER_ADDR not")


@pytest.mark.parametrize(("nodes", "first"), [("node[03-05,7]", "node03"), ("gpu1,gpu2", "gpu1"), ("a-7", "a-7")])
def test_the_step_of_srun_says_where_a_rank_is_and_a_batch_script_does_not(alone, nodes, first):
    for name, value in {"PROCID": "3", "NTASKS": "8", "LOCALID": "1", "JOB_ID": "123456"}.items():
        alone.setenv(f"SLURM_{name}", value)
    assert not ranks.is_rank()
    alone.setenv("SLURM_STEP_NUM_TASKS", "8")
    alone.setenv("SLURM_STEP_NODELIST", nodes)
    assert ranks.is_rank()
    assert "and 8 were started" in refused(Layout(2, 1))
    assert os.environ["MASTER_ADDR"] == first
    assert 20000 <= int(os.environ["MASTER_PORT"]) < 40000


def test_ranks_of_a_mesh_are_numbered_pair_by_pair():
    places = [ranks.Rank(Layout(2, 3), index, torch.device("cpu")) for index in range(6)]
    assert [(rank.replica, rank.column) for rank in places] == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)]
    assert [rank.rows(7) for rank in places[::2]] == [slice(0, 2), slice(2, 4), slice(4, 7)]


def test_cuda_devices_are_reached_through_nccl_one_for_each_rank(alone):
    assert (ranks.backend(), ranks.device_of_rank(1)) == ("gloo", torch.device("cpu"))
    alone.setattr(torch.cuda, "is_available", lambda: True)
    alone.setattr(torch.cuda, "device_count", lambda: 2)
    assert (ranks.backend(), ranks.device_of_rank(1)) == ("nccl", torch.device("cuda", 1))
    with pytest.raises(UserError, match="this machine shows 2, and there are at least 3 ranks"):
        ranks.device_of_rank(2)
    with pytest.raises(UserError, match="--replicas 2 needs 4 CUDA devices, and this machine shows 2"):
        launch.launch(["train"], Layout(2, 2))


def failure(status, timestamp=100):
    return SimpleNamespace(exitcode=status, timestamp=timestamp, signal_name=lambda: "SIGSEGV")


@pytest.mark.parametrize(
    ("failures", "rank"),
    [
        ({0: failure(ranks.LOST), 1: failure(-11)}, 1),  # one notices that the other is gone within the second
        ({0: failure(-6), 1: failure(1)}, 1),  # a library aborts for want of a peer
        ({0: failure(1), 1: failure(-9, 130)}, 0),  # one that hung was killed half a minute later
        ({0: failure(-15), 1: failure(2)}, 1),
    ],
)
def test_the_rank_that_is_named_failed_by_itself(failures, rank):
    assert launch._culprit(failures) == rank


def test_the_last_words_of_a_rank_that_does_not_speak_are_repeated(tmp_path):
    for attempt, words in enumerate(("old", "Traceback ...\nerror: no space left\n")):
        log = tmp_path / "run" / f"attempt_{attempt}" / "3" / "stderr.log"
        log.parent.mkdir(parents=True)
        log.write_text(words)
    report = launch._report({3: failure(1)}, 4, 1, tmp_path)
    assert report.startswith('error: rank 3 of 4 ended with status 1 after 1 restarts, saying "no space left"; the others')
