"""Decode on all cores, and hand over the results in order."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from alexnet.config import UserError

Job = TypeVar("Job")
Task = TypeVar("Task")
Result = TypeVar("Result")

WATCH = 1.0  # seconds between two looks whether the parent is still there
_job: Any = None


def available() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def context() -> multiprocessing.context.BaseContext:
    """Return how processes are started here."""
    # Why: fork shares the listing of millions of names, and does not import the command's modules again in every process.
    return multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")


def map_in_order(
    function: Callable[[Job, Task], Result], job: Job, tasks: Iterable[Task], processes: int
) -> Iterator[Result]:
    """Yield `function(job, task)` for each task, computed by several processes that are at most two tasks ahead each.

    `job` is sent once. Raises UserError when a process dies.
    """
    if processes == 1:
        yield from (function(job, task) for task in tasks)
        return
    pool = ProcessPoolExecutor(processes, context(), _start, (job, os.getpid()))
    waiting: deque[Future] = deque()
    try:
        for task in tasks:
            waiting.append(pool.submit(_call, function, task))
            if len(waiting) > 2 * processes:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise UserError(
            "A decoding process was killed, perhaps for want of memory. What is done is kept: repeat the command, with "
            f"--processes {max(1, processes // 2)} if it happens again."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _start(job: Any, parent: int) -> None:
    global _job
    _job = job
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Why: Ctrl-C reaches every process; the first one decides
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """End this process when its parent is gone, which a killed one cannot ask for."""
    while os.getppid() == parent:
        time.sleep(WATCH)
    os._exit(1)


def _call(function: Callable[[Any, Task], Result], task: Task) -> Result:
    return function(_job, task)
