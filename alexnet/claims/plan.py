"""What is there, what is missing, how long the rest will take on this machine, and how much disk it needs."""

import math
import time
from dataclasses import dataclass
from functools import cache

import torch
from tabulate import tabulate

from alexnet.claims import experiments, runs
from alexnet.claims.runs import Metrics, runs_dir
from alexnet.claims.search import run_study
from alexnet.config import PROJECT_DIR, CifarNet, RunConfig, Scale
from alexnet.preprocessing.datasets import expected_bytes, expected_counts
from alexnet.preprocessing.store import is_prepared
from alexnet.training.loop import Learner

RUN_BYTES = 3_000_000  # two checkpoints of the larger net of Figure 1 and its few lines of results, rounded up
EVALUATION_SHARE = 1 / 3  # a forward pass beside forward, backward and update


@dataclass(frozen=True)
class Row:
    """One run of the plan: "done", "half done" or "missing", and the seconds that it still needs here."""

    config: RunConfig
    state: str
    seconds: float


def plan_runs(scale: Scale, claims: list[str] | None = None) -> list[Row]:
    """Return a row for every run of the claims at `scale`, done or not.

    Which runs a search makes depends on their results; where those are missing the plan supposes that the first rate is
    the best and that its neighbours are overtaken.
    """
    rows: dict[str, Row] = {}
    for claim in claims or experiments.STUDIES:
        for study in experiments.studies_of(claim, scale):

            def metrics_of(config: RunConfig, limit: int | None, study: experiments.Study = study) -> Metrics:
                run = runs.read(config)
                if run is not None and run.is_done(limit):
                    rows[config.name] = Row(config, "done", 0.0)
                    return run.metrics
                epochs = study.expected_epochs if limit is None else min(limit, study.epochs)
                at = run.manifest["epochs"] if run is not None and runs.can_go_on(config) else 0
                seconds = max(epochs - at, 1) * seconds_per_epoch(config)
                rows[config.name] = Row(config, "half done" if at else "missing", seconds)
                # Why: a run that another one bounds is supposed to be overtaken.
                error = experiments.LINE if limit is None else 1.0
                return [{"epoch": 0, "train_error": 0.9}, {"epoch": math.ceil(epochs), "train_error": error}]

            run_study(study, metrics_of)
    return list(rows.values())


def seconds_per_epoch(config: RunConfig) -> float:
    """Return the estimated seconds of one epoch of `config`, its two evaluations included."""
    counts = expected_counts(config.data)
    evaluated = counts["train"] + counts["test"]
    return (counts["train"] + EVALUATION_SHARE * evaluated) * seconds_per_image(config.net, config.optimiser.batch_size)


@cache
def seconds_per_image(net: CifarNet, batch_size: int) -> float:
    """Measure a training step of `net` on made-up images, with the threads torch has: the better of two after a warm-up."""
    learner = Learner(RunConfig(net=net))
    images = torch.zeros(batch_size, 3, 32, 32).to(memory_format=torch.channels_last)
    labels = torch.zeros(batch_size, dtype=torch.int64)
    times = []
    for _ in range(3):
        start = time.perf_counter()
        learner.step(images, labels)
        times.append(time.perf_counter() - start)
    return min(times[1:]) / batch_size


def disk_bytes(rows: list[Row]) -> int:
    """Return the bytes that the missing runs and the sets they train on will take."""
    missing = [row for row in rows if row.state != "done"]
    sets = {row.config.data for row in missing if not is_prepared(row.config.data)}
    return RUN_BYTES * len(missing) + sum(map(expected_bytes, sets))


def as_time(seconds: float) -> str:
    """Return seconds as a person says them: "40 s", "12 min", "3.5 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def as_text(scale: Scale) -> str:
    """Return the plan of `scale` as a table of notebooks and runs with a line on time and disk under it."""
    rows = plan_runs(scale)
    table = [("run", row.config.name, row.state, as_time(row.seconds) if row.seconds else "") for row in rows]
    table += [("notebook", name, state, "") for name, state in notebook_states(scale)]
    left = sum(row.seconds for row in rows)
    disk = disk_bytes(rows) / 1e6
    text = tabulate(table, headers=("what", "name", "state", "time here"), disable_numparse=True)
    if not left:
        return f"{text}\nEvery run is done."
    where = f"on this machine with {torch.get_num_threads()} threads"
    return f"{text}\nAbout {as_time(left)} of training {where}, {disk:.0f} MB of disk."


def notebook_states(scale: Scale) -> list[tuple[str, str]]:
    """Return (name, "done" or "missing") for every notebook of the book at `scale`: done when its execution is newer."""
    executed = runs_dir() / scale / "book"
    states = []
    for source in sorted((PROJECT_DIR / "book").glob("*.ipynb")):
        made = executed / source.name
        done = made.is_file() and made.stat().st_mtime >= source.stat().st_mtime
        states.append((source.name, "done" if done else "missing"))
    return states
