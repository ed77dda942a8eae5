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
from alexnet.config import PROJECT_DIR, CifarNet, ColumnNet, Net, RunConfig, Scale
from alexnet.model.alexnet import AlexNet
from alexnet.model.cifar import build_cifar_net, count_parameters
from alexnet.model.layers import Moment
from alexnet.model.nets import net_config
from alexnet.preprocessing.datasets import expected_bytes, expected_counts
from alexnet.preprocessing.store import is_prepared
from alexnet.training.learner import Learner

FEW_BYTES = 100_000  # a run's lines of results, rounded up
EVALUATION_SHARE = 1 / 3  # a forward pass beside forward, backward and update


@dataclass(frozen=True)
class Row:
    """One run of the plan: "done", "half done" or "missing", and the seconds that it still needs here."""

    config: RunConfig
    state: str
    seconds: float


def plan_runs(scale: Scale, claims: list[str] | None = None) -> list[Row]:
    """Return a row for every run of `claims` (None: those that the book shows) at `scale`, done or not.

    Which runs a search makes depends on their results; where those are missing the plan supposes that the first rate is
    the best and that its neighbours are overtaken.
    """
    rows: dict[str, Row] = {}
    for claim in claims or experiments.IN_BOOK:
        for config in experiments.runs_of(claim, scale):
            rows[config.name] = _row(config)
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


def _row(config: RunConfig) -> Row:
    run = runs.read(config)
    if run is not None and run.is_done():
        return Row(config, "done", 0.0)
    at = run.manifest["epochs"] if run is not None and runs.can_go_on(config) else 0
    return Row(config, "half done" if at else "missing", max(config.epochs - at, 1) * seconds_per_epoch(config))


def seconds_per_epoch(config: RunConfig) -> float:
    """Return the estimated seconds of one epoch of `config`, its evaluations included."""
    counts = expected_counts(config.data)
    evaluated = sum(n for split, n in counts.items() if split != "train" or isinstance(config.net, CifarNet))
    return (counts["train"] + EVALUATION_SHARE * evaluated) * seconds_per_image(config.net, config.optimiser.batch_size)


@cache
def seconds_per_image(net: Net, batch_size: int) -> float:
    """Measure a training step of `net` on made-up images, with the threads torch has: the better of two after a warm-up."""
    learner = Learner(RunConfig(net=net))
    if isinstance(net, ColumnNet):
        batch_size = min(batch_size, 16)  # Why: a whole batch of the wide net takes seconds, and a plan should not
    side = 32 if isinstance(net, CifarNet) else net_config(net).image_side
    images = torch.zeros(batch_size, 3, side, side).to(memory_format=torch.channels_last)
    labels = torch.zeros(batch_size, dtype=torch.int64)
    times = []
    for step in range(3):
        start = time.perf_counter()
        learner.step(images, labels, Moment(0, 0, step))
        times.append(time.perf_counter() - start)
    return min(times[1:]) / batch_size


def disk_bytes(rows: list[Row]) -> int:
    """Return the bytes that the missing runs and the sets they train on will take."""
    missing = [row.config for row in rows if row.state != "done"]
    sets = {config.data for config in missing if not is_prepared(config.data)}
    return sum(FEW_BYTES + checkpoint_bytes(config.net) for config in missing) + sum(map(expected_bytes, sets))


@cache
def checkpoint_bytes(net: Net) -> int:
    """Return the bytes of the two checkpoints that a training of `net` keeps: weights and velocities in fp32."""
    if isinstance(net, CifarNet):
        return 16 * count_parameters(build_cifar_net(net, seed=0))
    with torch.device("meta"):
        return 16 * count_parameters(AlexNet(net_config(net)))


def as_time(seconds: float) -> str:
    """Return seconds as a person says them: "40 s", "12 min", "3.5 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def as_text(scale: Scale, claims: list[str] | None = None) -> str:
    """Return the plan of `scale` as a table of notebooks and runs with a line on time and disk under it.

    `claims` are as in `plan_runs`.
    """
    rows = plan_runs(scale, claims)
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
