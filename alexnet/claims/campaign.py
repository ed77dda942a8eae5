"""Train everything that is missing at a scale, with an estimate of the time left for the whole."""

import sys

from tqdm import tqdm

from alexnet.claims import experiments, runs
from alexnet.claims.plan import plan_runs, seconds_per_epoch
from alexnet.claims.runs import Metrics
from alexnet.claims.search import run_study
from alexnet.config import RunConfig, Scale


def train_missing(scale: Scale, claims: list[str] | None = None, threads: int | None = None) -> None:
    """Train every missing run of `claims` (None: all claims that have runs) at `scale`.

    Shows one bar for the whole, in seconds of estimated work, and one for the training at hand. Raises what `runs.get` does.
    """
    claims = claims or list(experiments.STUDIES)

    def seconds_left() -> float:
        return sum(row.seconds for row in plan_runs(scale, claims))

    terminal = sys.stderr.isatty()
    with tqdm(
        total=seconds_left(),
        desc=f"all runs at scale {scale}",
        bar_format="{desc}: {percentage:3.0f}%|{bar}| {elapsed} so far, about {remaining} left",
        mininterval=0.5 if terminal else 30.0,
        delay=0.01,
    ) as whole:

        def metrics_of(config: RunConfig, limit: int | None) -> Metrics:
            def on_epoch(metrics: Metrics, seconds: float) -> None:
                whole.update(seconds_per_epoch(config) if seconds else 0.0)

            run = runs.get(config, epoch_limit=limit, threads=threads, on_epoch=on_epoch)
            whole.total = whole.n + seconds_left()
            whole.refresh()
            return run.metrics

        for claim in claims:
            for study in experiments.studies_of(claim, scale):
                run_study(study, metrics_of)
