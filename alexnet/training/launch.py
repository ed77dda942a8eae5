"""Starting the ranks of this machine with torchrun's agent, and saying in one line how they ended."""

import logging
import os
import re
import shutil
import signal
import sys
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException, Std
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from alexnet.config import UserError
from alexnet.model.columns import Layout
from alexnet.preprocessing.workers import available
from alexnet.training.ranks import LOST, backend

STOPPED = 130  # exit status after Ctrl-C
GRACE = 600  # seconds that ranks have to finish their step and save when they are asked to stop
TOGETHER = 2  # seconds within which failures are taken for one event, of which some are the consequence of another


def launch(words: Sequence[str], layout: Layout, max_restarts: int = 0, program: Sequence[str] = ("-m", "alexnet")) -> int:
    """Run `python -m alexnet <words>` as every rank of `layout` on this machine and return the exit status.

    As `torchrun --standalone` does, with its agent in this process. Rank 0 has this process's output; what the others print
    goes to files, which are deleted when all ends well. Ctrl-C and SIGTERM reach each rank once, and the status is 130 (143)
    after they have ended. If a rank fails, the others are stopped, all start again up to `max_restarts` times, and then one
    line says which rank it was and the status is 1. Raises UserError when there are not enough devices.
    """
    if backend() == "nccl" and (count := torch.cuda.device_count()) < layout.ranks:
        raise UserError(
            f"{layout.options} needs {layout.ranks} CUDA devices, and this machine shows {count}. Ask for fewer, or run "
            "on the processor: CUDA_VISIBLE_DEVICES= alexnet ..."
        )
    logs = Path(tempfile.mkdtemp(prefix="alexnet-ranks-"))
    try:
        with _shared_cores(layout.ranks), _quiet_agent(logs / "agent.log"):
            elastic_launch(_agent(layout, max_restarts, logs), sys.executable)(*program, *words)
    except ChildFailedError as failed:
        if all(failure.exitcode == STOPPED for failure in failed.failures.values()):
            return STOPPED
        print(_report(failed.failures, layout.ranks, max_restarts, logs), file=sys.stderr)
        return 1
    except SignalException as stop:
        return 128 + stop.sigval
    except KeyboardInterrupt:
        return STOPPED
    shutil.rmtree(logs, ignore_errors=True)
    return 0


def _agent(layout: Layout, max_restarts: int, logs: Path) -> LaunchConfig:
    return LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=layout.ranks,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="localhost",
        max_restarts=max_restarts,
        shutdown_timeout=GRACE,
        logs_specs=DefaultLogsSpecs(str(logs), redirects=dict.fromkeys(range(1, layout.ranks), Std.ALL)),
    )


@contextmanager
def _shared_cores(ranks: int) -> Iterator[None]:
    """Give each rank its share of the cores, unless the user says how many threads it has."""
    said = "OMP_NUM_THREADS" in os.environ
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, available() // ranks)))
    try:
        yield
    finally:
        if not said:
            del os.environ["OMP_NUM_THREADS"]


@contextmanager
def _quiet_agent(file: Path) -> Iterator[None]:
    """Send what the agent logs to a file, and give signals their handlers back."""
    logger, handler = logging.getLogger("torch.distributed"), logging.FileHandler(file)
    handlers, propagates = logger.handlers, logger.propagate
    logger.handlers, logger.propagate = [handler], False
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)}
    try:
        yield
    finally:
        for number, action in before.items():
            signal.signal(number, action)
        logger.handlers, logger.propagate = handlers, propagates
        handler.close()


def _report(failures: dict[int, ProcessFailure], ranks: int, max_restarts: int, logs: Path) -> str:
    """Say which rank failed, how, what it said last, and how to go on."""
    rank = _culprit(failures)
    status = failures[rank].exitcode
    if status >= 0:
        how = "lost the others" if status == LOST else f"ended with status {status}"
    else:
        hint = " (is there too little memory?)" if status == -signal.SIGKILL else ""
        how = f"was killed by {failures[rank].signal_name()}{hint}"
    said = ""
    if rank and status >= 0:
        lines = sorted(logs.glob(f"*/attempt_*/{rank}/stderr.log"))[-1].read_text(errors="replace").strip().splitlines()
        said = f', saying "{re.sub("^error: ", "", lines[-1])}"' if lines else ""
    again = f" after {max_restarts} restarts" if max_restarts else ""
    return (
        f"error: rank {rank} of {ranks} {how}{again}{said}; the others were stopped. The last checkpoint is whole: the same "
        f"command goes on from there. Logs of the ranks: {logs}"
    )


def _culprit(failures: dict[int, ProcessFailure]) -> int:
    """Return the rank that failed first or, among those that failed together, by itself."""
    first = min(failure.timestamp for failure in failures.values())
    together = [rank for rank, failure in failures.items() if failure.timestamp <= first + TOGETHER]
    # Why: the agent looks ten times a second, and a rank that misses another ends at once, by itself or by the agent.
    consequences = {LOST: 3, -signal.SIGTERM: 2, -signal.SIGABRT: 1}
    return min(together, key=lambda rank: consequences.get(failures[rank].exitcode, 0))
