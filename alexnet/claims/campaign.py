"""Train everything that is missing at a scale, with an estimate of the time left for the whole.

Studies do not depend on each other, so they run side by side, each in a process with its share of the cores: small
convolutions gain more from that than from more threads.
"""

import multiprocessing
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor

from tqdm import tqdm

from alexnet.claims import experiments, runs
from alexnet.claims.experiments import Study
from alexnet.claims.plan import plan_runs
from alexnet.claims.search import run_study
from alexnet.config import Scale
from alexnet.preprocessing import datasets

LOOK_EVERY = 1.0  # seconds between two looks at how far the runs are


def train_missing(scale: Scale, claims: list[str] | None = None, threads: int | None = None) -> None:
    """Train every missing run of `claims` (None: all claims that have runs) at `scale`.

    Shows one bar for the whole, in seconds of estimated work, and on a terminal one for each training at hand. `threads`
    is the share of one study; the default divides the cores. Raises what `runs.get` does.
    """
    claims = claims or list(experiments.STUDIES)
    studies = [s for claim in claims for s in experiments.studies_of(claim, scale) if _unfinished(s, scale, claim)]
    if not studies:
        return
    for data in sorted({study.data for study in studies}):
        datasets.prepare(data)
    cores = os.cpu_count() or 1
    jobs = min(cores, len(studies))
    # Why spawn: a forked child of a process with threads may hang.
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        futures = [pool.submit(_work, study, threads or max(1, cores // jobs)) for study in studies]
        with _bar_of_the_whole(scale) as bar:
            while not all(future.done() for future in futures):
                if any(future.done() and future.exception() for future in futures):
                    break
                time.sleep(LOOK_EVERY)
                _move(bar, sum(row.seconds for row in plan_runs(scale, claims)))
            if not any(future.exception() for future in futures if future.done()):
                _move(bar, 0.0)
        for future in futures:
            future.result()


def _unfinished(study: Study, scale: Scale, claim: str) -> bool:
    rows = plan_runs(scale, [claim])
    return any(row.state != "done" and row.config.variant.startswith(f"{study.name}-") for row in rows)


def _work(study: Study, threads: int) -> None:
    bar = sys.stderr.isatty()
    run_study(study, lambda config, limit: runs.get(config, epoch_limit=limit, threads=threads, bar=bar).metrics)


def _bar_of_the_whole(scale: Scale) -> tqdm:
    return tqdm(
        total=sum(row.seconds for row in plan_runs(scale)),
        desc=f"all runs at scale {scale}",
        bar_format="{desc}: {percentage:3.0f}%|{bar}| {elapsed} so far, about {remaining} left",
        mininterval=0.5 if sys.stderr.isatty() else 30.0,
    )


def _move(bar: tqdm, seconds_left: float) -> None:
    """Show what is left now; plans change with results, so the total may grow and shrink."""
    bar.total = max(bar.total, seconds_left)
    bar.update(max(0.0, bar.total - seconds_left - bar.n))
