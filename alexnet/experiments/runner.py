"""The queue: every distinct missing run of a scale, dealt out over devices or shares of the cores.

One process for each place trains run after run (`python -m alexnet.experiments.runner`). It reads what to do from its
standard input, a line of JSON a run, and answers on its standard output. When its input ends, because the queue was stopped
or its process is gone, it finishes the step at hand, leaves a checkpoint and ends: nothing trains on unwanted.
"""

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from tqdm import tqdm

from alexnet import files, machine
from alexnet.config import RunConfig, UserError, from_dict, to_dict
from alexnet.experiments import plan, readiness, runs
from alexnet.experiments.plan import Wanted
from alexnet.experiments.scales import Scale
from alexnet.model import num_columns_of

LOOK_EVERY = 1.0  # seconds between two looks at how far the runs are
ENOUGH = 300.0  # seconds in which a worker that was told to stop has surely finished its step
STARTABLE = ("missing", "half done", "not measured")
Reply = tuple["Worker", dict[str, Any] | None]


@dataclass(frozen=True)
class Place:
    """Where a run can be trained: a CUDA device by number, or a share of the cores."""

    devices: tuple[int, ...]
    threads: int


def places(wanted: list[Wanted], threads: int | None = None, devices: int | None = None) -> list[Place]:
    """Return the places of this machine that `wanted` can use at a time: its CUDA devices, else shares of its cores.

    With `devices` there are so many, and processes stand for them where there are no CUDA devices. Raises UserError for more
    than there are.
    """
    import torch

    cores, found = machine.available_cores(), torch.cuda.device_count()
    if found and devices and devices > found:
        raise UserError(f"{devices} devices were asked for, and this machine has {found}.")
    if devices := devices or found:
        return [Place((device,), threads or max(1, cores // devices)) for device in range(devices)]
    jobs = max(1, min(cores // (threads or 1), len(wanted)))
    return [Place((), threads or max(1, cores // jobs)) for _ in range(jobs)]


class Worker:
    """A process that trains at some places, one run after the other."""

    def __init__(self, at: list[Place], replies: "queue.Queue[Reply]") -> None:
        self.places = at
        env = os.environ | {"ALEXNET_RUNS": str(runs.runs_dir())}
        if devices := [str(device) for place in at for device in place.devices]:
            seen = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")  # Why: the user may show us some only
            env["CUDA_VISIBLE_DEVICES"] = ",".join(seen[int(d)] if seen != [""] else d for d in devices)
        command = [sys.executable, "-m", "alexnet.experiments.runner"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env, text=True)
        self.wanted: Wanted | None = None  # the run at hand
        self.listener = threading.Thread(target=self._listen, args=(replies,), daemon=True)
        self.listener.start()

    def give(self, wanted: Wanted) -> None:
        """Have a run trained and measured."""
        self.wanted = wanted
        work = {
            "config": to_dict(wanted.config),
            "epoch_limit": wanted.epoch_limit,
            "threads": sum(place.threads for place in self.places),
            "measured": sorted(wanted.artefacts),
            "devices": len(self.places),
        }
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(work) + "\n")
        self.process.stdin.flush()

    def _listen(self, replies: "queue.Queue[Reply]") -> None:
        assert self.process.stdout is not None
        with self.process.stdout as answers:
            for line in answers:
                replies.put((self, json.loads(line)))
        self.process.wait()
        replies.put((self, None))

    def end(self) -> None:
        """Tell the process to stop after the step at hand; it ends by itself."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.close()


def train_missing(scale: Scale, claims: Iterable[str] | None = None, seeds: int = 0, **at: int | None) -> list[str]:
    """Train and measure every missing run of `claims` (None: all) at `scale`, those of other processes left alone.

    Returns a line for each training of this call that diverged or ended on the plateau, except in a search for a rate, to
    which that belongs. An error of one run is told at once and the others proceed; at the end UserError names the runs that
    failed. A signal ends the queue: nothing new is started, and what runs leaves a checkpoint. Raises KeyboardInterrupt
    then. With `seeds` every arm has at least so many; `at` are the `threads` and `devices` of `places`.
    """
    from alexnet.training.distributed import StopRequests

    claims = None if claims is None else list(claims)
    work = Queue(scale, claims, seeds, **at)
    with StopRequests() as stop:
        try:
            while work.advance():
                if stop.requested:
                    raise KeyboardInterrupt("The same command resumes what was begun.")
        finally:
            work.end()
    for line in plan.gave_up(scale, claims):
        tqdm.write(f"warning: {line}", file=sys.stderr)
    failed = work.failed | work.left_out()
    if failed:
        raise UserError("\n".join([f"{len(failed)} of the runs failed:", *failed.values()]))
    return list(work.warned.values())


class Queue:
    """The runs of a scale that are missing, and the workers that train them."""

    def __init__(self, scale: Scale, claims: Iterable[str] | None, seeds: int, **at: int | None) -> None:
        self.scale = scale
        self.wanted = partial(plan.wanted, scale, claims, seeds=seeds)
        self.replies: queue.Queue[Reply] = queue.Queue()
        self.busy: dict[str, Worker] = {}
        self.idle: list[Worker] = []
        self.failed: dict[str, str] = {}
        self.warned: dict[str, str] = {}
        self.free = places(self._startable(), **at)
        self.bar = self._bar()

    def _startable(self) -> list[Wanted]:
        """Return the runs that can begin now: missing, not failed, not begun, and with the weights that they begin with."""
        open_ = [w for w in self.wanted() if w.name not in (*self.busy, *self.failed)]
        return [w for w in open_ if w.state in STARTABLE and plan.can_begin(w.config)]

    def left_out(self) -> dict[str, str]:
        """Return, of the runs that could not begin because the one before them failed or has no weights here, why."""
        open_ = [w for w in self.wanted() if w.state in STARTABLE and not plan.can_begin(w.config)]
        open_ = [w for w in open_ if not files.is_locked(runs.lock_of(w.config.start_from))]  # another process has that one
        lacks = "begins with the weights of another run, which are not on this machine:"
        return {w.name: f"{w.name} {lacks} {runs.name_of(w.config.start_from)}." for w in open_}

    def advance(self) -> bool:
        """Give work to free places, wait a moment for an answer; False when there is nothing left."""
        for wanted in self._startable() if self.free or self.idle else ():
            if (worker := self._worker_for(wanted)) is None:
                break
            self.busy[wanted.name] = worker
            worker.give(wanted)
        if not self.busy:
            return False
        try:
            worker, reply = self.replies.get(timeout=LOOK_EVERY)
        except queue.Empty:
            self._move()
            return True
        self._heard(worker, reply)
        self._move()
        return True

    def _worker_for(self, wanted: Wanted) -> Worker | None:
        """Return an idle worker at the places that a run needs, or None while they are taken.

        Two-column nets are spread over two devices where there are two.
        """
        on_devices = any(place.devices for place in [*self.free, *(p for w in self.idle for p in w.places)])
        total = len(self.free) + sum(len(w.places) for w in (*self.idle, *self.busy.values()))
        need = min(num_columns_of(wanted.config.net), total) if on_devices else 1
        for worker in self.idle:
            if len(worker.places) == need:
                self.idle.remove(worker)
                return worker
        while len(self.free) < need and self.idle:
            worker = self.idle.pop()
            worker.end()
            self.free += worker.places
        if len(self.free) < need:
            return None
        at, self.free = self.free[:need], self.free[need:]
        return Worker(at, self.replies)

    def _heard(self, worker: Worker, reply: dict[str, Any] | None) -> None:
        """Take note of a run that is done or failed, or of a process that is gone."""
        wanted = worker.wanted
        if wanted is None or self.busy.get(wanted.name) is not worker:
            return
        del self.busy[wanted.name]
        if reply is None:
            worker.end()
            status = worker.process.returncode
            why = f"its process ended with status {status}" + (
                " (killed, perhaps for want of memory)" if status == -9 else ""
            )
            self.failed[wanted.name] = f"{wanted.name}: {why}. Repeat the command; it resumes from the last checkpoint."
            self.free += worker.places
        else:
            self.idle.append(worker)
            if "error" in reply:
                self.failed[wanted.name] = f"{wanted.name}: {reply['error']}"
            elif reply["status"] == "in work":
                return  # Why no failure: another process, such as an equal task of a cluster, has it or has just done it
            elif (state := wanted.state) in STARTABLE:  # Why: it would be begun again and again
                lacks = ", ".join(wanted.unmeasured())
                self.failed[wanted.name] = f"{wanted.name} is still {state}: {lacks}. Are its weights damaged? Delete them."
            if reply.get("warning") and wanted.config.stop_at_train_error is None:
                self.warned[wanted.name] = f"{wanted.name}: {reply['warning']}"
        if wanted.name in self.failed:
            tqdm.write(f"error: {self.failed[wanted.name]}", file=sys.stderr)

    def end(self) -> None:
        """Stop what runs, after a checkpoint, and wait for it."""
        self.bar.close()
        workers = [*self.busy.values(), *self.idle]
        for worker in workers:
            worker.end()
        until = time.monotonic() + ENOUGH
        for worker in workers:
            try:
                worker.process.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                worker.process.kill()
            worker.listener.join()

    def _bar(self) -> tqdm:
        return tqdm(
            total=self._seconds_left(),
            desc=f"all runs at scale {self.scale}",
            bar_format="{desc}: {percentage:3.0f}%|{bar}| {elapsed} so far, about {remaining} left",
            mininterval=0.5 if sys.stderr.isatty() else 60.0,
        )

    def _seconds_left(self) -> float:
        return sum(seconds for _, _, seconds in plan.priced(self.wanted(assume=True), str(readiness.device())))

    def _move(self) -> None:
        """Show what is left now; plans change with results, so the total may grow and shrink."""
        if time.monotonic() - getattr(self, "moved", 0.0) < 5 * LOOK_EVERY:
            return
        self.moved = time.monotonic()
        left = self._seconds_left()
        self.bar.total = max(self.bar.total or 0.0, left)
        self.bar.update(max(0.0, self.bar.total - left - self.bar.n))


def work() -> None:
    """Be a worker: train what standard input asks for, and answer on standard output."""
    from alexnet.training.distributed import StopRequests

    answers, sys.stdout = sys.stdout, sys.stderr  # Why: whatever prints must not be taken for an answer.
    asked: queue.Queue[dict[str, Any] | None] = queue.Queue()
    stop = StopRequests()

    def listen() -> None:
        for line in sys.stdin:
            asked.put(json.loads(line))
        stop.request()
        asked.put(None)

    threading.Thread(target=listen, daemon=True).start()
    with suppress(KeyboardInterrupt):
        while not stop.requested and (job := asked.get()) is not None:
            try:
                answer = _do(job, stop)
            except files.BusyError:
                answer = {"status": "in work"}
            except UserError as error:
                answer = {"error": str(error)}
            print(json.dumps(answer), file=answers, flush=True)


def _do(job: dict[str, Any], stop: Any) -> dict[str, Any]:
    """Train and measure one run; on several devices by ranks, one for each column."""
    import torch

    from alexnet.experiments.recording import begin, train_run
    from alexnet.model.column_parallel import Layout
    from alexnet.training.distributed import Group, launch

    config = from_dict(RunConfig, job["config"])
    if job["devices"] > 1:
        begin(config)
        status = launch(["train", runs.name_of(config), "--devices", str(job["devices"])], Layout(job["devices"], 1))
        if stop.requested:
            raise KeyboardInterrupt
        if status and files.is_locked(runs.lock_of(config)):
            raise files.BusyError("Another process was faster.")
        if status:
            raise UserError(f"its ranks ended with status {status}; what they said is above.")
    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    run = train_run(
        config,
        epoch_limit=job["epoch_limit"],
        threads=job["threads"],
        measured=job["measured"],
        group=Group(device),
        stop=stop,
    )
    return {"status": run.status, "warning": run.manifest["warning"]}


if __name__ == "__main__":
    work()
