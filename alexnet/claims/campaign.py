"""Train everything that is missing at a scale, with an estimate of the time left for the whole.

Studies and runs do not depend on each other, so they run side by side, each in a process with its share of the cores: small
convolutions gain more from that than from more threads. CUDA devices, where there are any, are dealt out among them.
"""

import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.queues import Queue

import torch
from tqdm import tqdm

from alexnet.claims import experiments, runs
from alexnet.claims.experiments import Study
from alexnet.claims.plan import plan_runs
from alexnet.claims.search import run_study
from alexnet.config import RunConfig, Scale
from alexnet.preprocessing import datasets
from alexnet.preprocessing.workers import available
from alexnet.training.crew import Crew
from alexnet.training.ranks import device_of_rank

LOOK_EVERY = 1.0  # seconds between two looks at how far the runs are

_crew = Crew()  # of a process that trains


def train_missing(scale: Scale, claims: list[str] | None = None, threads: int | None = None) -> None:
    """Train every missing run of `claims` (None: those that the book shows) at `scale`.

    Shows one bar for the whole, in seconds of estimated work, and on a terminal one for each training at hand. `threads`
    is the share of one study or run; the default divides the cores. Raises what `runs.get` does.
    """
    claims = claims or list(experiments.IN_BOOK)
    work: list[Study | RunConfig] = []
    for claim in claims:
        rows = [row.config for row in plan_runs(scale, [claim]) if row.state != "done"]
        work += [s for s in experiments.studies_of(claim, scale) if any(c.variant.startswith(f"{s.name}-") for c in rows)]
        work += [config for config in experiments.runs_of(claim, scale) if config in rows]
    if not work:
        return
    for data in sorted({piece.data for piece in work}):
        datasets.prepare(data)
    cores = available()
    jobs = min(cores, len(work))
    # Why spawn: a forked child of a process with threads may hang, and can use no CUDA device.
    context = multiprocessing.get_context("spawn")
    places = context.Queue()
    for job in range(jobs):
        places.put(job)
    with ProcessPoolExecutor(jobs, context, _take_place, (places,)) as pool:
        futures = [pool.submit(_do, piece, threads or max(1, cores // jobs)) for piece in work]
        with _bar_of_the_whole(scale, claims) as bar:
            while not all(future.done() for future in futures):
                if any(future.done() and future.exception() for future in futures):
                    break
                time.sleep(LOOK_EVERY)
                _move(bar, sum(row.seconds for row in plan_runs(scale, claims)))
            if not any(future.exception() for future in futures if future.done()):
                _move(bar, 0.0)
        for future in futures:
            future.result()


def _take_place(places: Queue) -> None:
    """Be the process that has the next CUDA device in turn, or the processor where there is none."""
    global _crew
    _crew = Crew(device_of_rank(places.get() % max(1, torch.cuda.device_count())))


def _do(piece: Study | RunConfig, threads: int) -> None:
    how = {"threads": threads, "bar": sys.stderr.isatty(), "crew": _crew}
    if isinstance(piece, RunConfig):
        runs.get(piece, **how)
        return
    run_study(piece, lambda config, limit: runs.get(config, epoch_limit=limit, **how).metrics)


def _bar_of_the_whole(scale: Scale, claims: list[str]) -> tqdm:
    return tqdm(
        total=sum(row.seconds for row in plan_runs(scale, claims)),
        desc=f"all runs at scale {scale}",
        bar_format="{desc}: {percentage:3.0f}%|{bar}| {elapsed} so far, about {remaining} left",
        mininterval=0.5 if sys.stderr.isatty() else 30.0,
    )


def _move(bar: tqdm, seconds_left: float) -> None:
    """Show what is left now; plans change with results, so the total may grow and shrink."""
    bar.total = max(bar.total, seconds_left)
    bar.update(max(0.0, bar.total - seconds_left - bar.n))
