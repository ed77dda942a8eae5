"""The queue: every distinct missing run of a scale, dealt out over devices or shares of the cores.

One process for each place trains run after run. When its pipe ends, because the queue was stopped or its process is gone, it
finishes the step at hand, leaves a checkpoint and ends: nothing trains on unwanted.
"""

import multiprocessing
import os
import queue
import sys
import threading
import time
from collections.abc import Collection
from contextlib import suppress
from functools import partial
from multiprocessing import connection

from tqdm import tqdm

from alexnet import files, machine
from alexnet.config import UserError
from alexnet.experiments import plan, readiness, runs
from alexnet.experiments.plan import STARTABLE, Wanted
from alexnet.experiments.rate_search import GAVE_UP
from alexnet.experiments.scales import Scale
from alexnet.model import num_columns_of
from alexnet.preprocessing import is_prepared

LOOK_EVERY = 1.0  # seconds between two looks for a request to stop
ENOUGH = 300.0  # seconds in which a worker that was told to stop has surely finished its step


def places(wanted: list[Wanted], threads: int | None = None, devices: int | None = None) -> tuple[list[int | None], int]:
    """Return where `wanted` can be trained at a time, CUDA devices or, as None, shares of the cores; and threads of each.

    `devices`: so many; processes stand for them where there is no CUDA device. Raises UserError for more than there are.
    """
    import torch

    cores, found = machine.available_cores(), torch.cuda.device_count()
    if found and devices and devices > found:
        raise UserError(f"{devices} devices were asked for, and this machine has {found}.")
    shares = max(1, min(cores // (threads or 1), len(wanted)))
    at = list(range(devices or found)) or [None] * shares
    return at, threads or max(1, cores // len(at))


class Worker:
    """A process that trains at some places, one run after the other; `wanted` is the run at hand."""

    def __init__(self, at: list[int | None], threads: int) -> None:
        start = multiprocessing.get_context("spawn")
        self.places = at
        self.pipe, theirs = start.Pipe()
        self.process = start.Process(target=_work, args=(theirs, at, threads))
        self.process.start()
        theirs.close()  # Why: so that the pipe ends with the process

    def give(self, wanted: Wanted) -> None:
        """Have a run trained and measured."""
        self.wanted = wanted
        with suppress(BrokenPipeError):  # its end is noticed when an answer is looked for
            self.pipe.send(wanted)


def train_missing(scale: Scale, claims: Collection[str] | None = None, seeds: int = 0, **at: int | None) -> list[str]:
    """Train and measure every missing run of `claims` (None: all) at `scale`, those of other processes left alone.

    Returns a line for each training that diverged or ended on the plateau, but not of a search for a rate: there it may; and
    for each that waits for a set that few have.
    Errors are told at once and the other runs proceed; at the end UserError names those that failed. A signal raises
    KeyboardInterrupt, after checkpoints. Every arm has `seeds` or more; `at` is for `places`.
    """
    from alexnet.training.distributed import StopRequests

    work = Queue(scale, claims, seeds, **at)
    with StopRequests() as stop:
        try:
            while work.advance():
                if stop.requested:
                    raise KeyboardInterrupt("The same command resumes what was begun.")
        finally:
            work.end()
    for each in plan.experiments_of(claims):
        for arm, search in each.searches(scale):
            if (said := plan.search_of(each, search, scale).said).startswith(GAVE_UP):
                tqdm.write(f"warning: {each.claim}, {arm}: {said}. Begin it elsewhere.", file=sys.stderr)
    failed = list((work.failed | work.left_out()).values())
    rare = [said for said in failed if any(name in said and not is_prepared(name) for name in readiness.RARE)]
    if len(failed) > len(rare):
        raise UserError("\n".join([f"{len(failed)} of the runs failed:", *failed]))
    return [*work.warned.values(), *rare]


class Queue:
    """The runs of a scale that are missing, and the workers that train them."""

    def __init__(self, scale: Scale, claims: Collection[str] | None, seeds: int, **at: int | None) -> None:
        self.wanted = partial(plan.wanted, scale, claims, seeds=seeds)
        self.busy: dict[str, Worker] = {}
        self.idle: list[Worker] = []
        self.failed: dict[str, str] = {}
        self.warned: dict[str, str] = {}
        self.free, self.threads = places(self._open(), **at)
        self.total, self.on_devices = len(self.free), self.free[0] is not None
        open_ = [each for each in self.wanted(assume=True) if each.state in STARTABLE]
        self.bar = tqdm(total=len(open_), desc=f"all runs at scale {scale}", unit="run", disable=None)  # None: on terminals

    def _open(self, can_begin: bool = True) -> list[Wanted]:
        """Return the runs that are missing, not failed, not begun, and have the weights to begin with, or have not."""
        open_ = [w for w in self.wanted() if w.name not in (*self.busy, *self.failed) and w.state in STARTABLE]
        return [w for w in open_ if plan.can_begin(w.config) is can_begin]

    def left_out(self) -> dict[str, str]:
        """Return why runs did not begin: they are damaged, or the one before them failed or has no weights here."""
        lacks = "begins with the weights of another run, which are not on this machine:"
        open_ = [w for w in self._open(False) if not files.is_locked(runs.lock_of(w.config.start_from))]  # others have it
        damaged = {w.name: f"{w.name} is damaged, as is said above." for w in self.wanted() if w.state == "damaged"}
        return damaged | {w.name: f"{w.name} {lacks} {runs.name_of(w.config.start_from)}." for w in open_}

    def advance(self) -> bool:
        """Give work to free places, wait a moment for an answer; False when there is nothing left."""
        for wanted in self._open() if self.free or self.idle else ():
            if (worker := self._worker_for(wanted)) is None:
                break
            self.busy[wanted.name] = worker
            worker.give(wanted)
        if not self.busy:
            return False
        ready = connection.wait([worker.pipe for worker in self.busy.values()], LOOK_EVERY)
        for worker in [each for each in self.busy.values() if each.pipe in ready]:
            self._hear(worker)
        return True

    def _worker_for(self, wanted: Wanted) -> Worker | None:
        """Return a worker at the places that a run needs, two devices for two columns if there are; None while taken."""
        need = min(num_columns_of(wanted.config.net), self.total) if self.on_devices else 1
        if worker := next((each for each in self.idle if len(each.places) == need), None):
            self.idle.remove(worker)
            return worker
        while len(self.free) < need and self.idle:
            worker = self.idle.pop()
            worker.pipe.close()
            self.free += worker.places
        if len(self.free) < need:
            return None
        at, self.free = self.free[:need], self.free[need:]
        return Worker(at, self.threads * need)

    def _hear(self, worker: Worker) -> None:
        """Take note of a run that is done or failed, or of a process that is gone."""
        wanted = worker.wanted
        del self.busy[wanted.name]
        self.bar.update()
        try:
            reply = worker.pipe.recv()
            self.idle.append(worker)
        except (EOFError, OSError):
            worker.process.join()
            self.free += worker.places
            killed = " (killed, perhaps for want of memory)" if worker.process.exitcode == -9 else ""
            why = f"its process ended with status {worker.process.exitcode}{killed}"
            reply = {"error": f"{why}. Repeat the command; it resumes from the last checkpoint."}
        if reply.get("busy"):
            return  # Why no failure: another process, such as an equal task of a cluster, has it or has just done it
        failure = reply.get("error")
        if not failure and wanted.state in STARTABLE:  # Why: it would be begun again and again
            failure = f"still {wanted.state}: {', '.join(wanted.unmeasured())}. Are its weights damaged? Delete them."
        if failure:
            self.failed[wanted.name] = f"{wanted.name}: {failure}"
            tqdm.write(f"error: {self.failed[wanted.name]}", file=sys.stderr)
        elif reply["warning"] and wanted.config.stop_at_train_error is None:
            self.warned[wanted.name] = f"{wanted.name}: {reply['warning']}"

    def end(self) -> None:
        """Stop what runs, after a checkpoint, and wait for it."""
        self.bar.close()
        workers, until = [*self.busy.values(), *self.idle], time.monotonic() + ENOUGH
        for worker in workers:
            worker.pipe.close()
        for worker in workers:
            worker.process.join(max(0.0, until - time.monotonic()))
            worker.process.kill()


def _work(pipe: connection.Connection, at: list[int | None], threads: int) -> None:
    """Be a worker: train and measure what comes through the pipe, on several devices by ranks, and answer."""
    from alexnet.experiments import recording
    from alexnet.model.column_parallel import Layout
    from alexnet.training.distributed import Group, StopRequests

    if at[0] is not None:
        seen = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")  # Why: the user may show us some only
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(seen[device] if seen != [""] else str(device) for device in at)
    asked: queue.Queue[Wanted | None] = queue.Queue()
    stop = StopRequests()

    def listen() -> None:
        with suppress(EOFError, OSError):
            while True:
                asked.put(pipe.recv())
        stop.request()
        asked.put(None)

    threading.Thread(target=listen, daemon=True).start()
    with suppress(KeyboardInterrupt, BrokenPipeError):
        while not stop.requested and (wanted := asked.get()) is not None:
            try:
                if len(at) > 1:
                    recording.train_by_ranks(wanted.config, Layout(len(at), 1), stop=stop)
                how = {"epoch_limit": wanted.epoch_limit, "threads": threads, "measured": sorted(wanted.artefacts)}
                run = recording.train_run(wanted.config, **how, group=Group(readiness.device()), stop=stop)
                reply = {"warning": run.manifest["warning"]}
            except files.BusyError:
                reply = {"busy": True}
            except UserError as error:
                reply = {"error": str(error)}
            pipe.send(reply)
