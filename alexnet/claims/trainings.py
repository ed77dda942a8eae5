"""What the recorded trainings of the two-column net show: their errors, learning curves and first kernels (section 6).

Shapes: K kernels, all columns together; C colours; H, W pixels of a kernel.
"""

import numpy as np
import pandas as pd
from IPython.display import Markdown
from matplotlib.figure import Figure

from alexnet.claims import figures, runs
from alexnet.claims.experiments import runs_of
from alexnet.claims.record import read_kernels
from alexnet.claims.runs import Run
from alexnet.claims.tables import NOT_RUN, numbered
from alexnet.config import ColumnNet, RunConfig, Scale, from_dict
from alexnet.model.nets import net_config

CLAIM = "s3.5-architecture"
SPLITS = ("val", "test")  # of which one is watched in training


def recorded(scale: Scale) -> dict[str, Run | None]:
    """Return the trainings at `scale` by variant and seed: those that are planned, or None, then others that are there."""
    planned: dict[str, Run | None] = dict.fromkeys(config.name for config in runs_of(CLAIM, scale))
    configs = [m["config"] for m in runs.manifests(scale) if m["config"]["claim"] == CLAIM]
    # Why each by its own config: a run of a planned name may have been started with other options.
    there = [from_dict(RunConfig, config) for config in configs]
    found = planned | {config.name: runs.read(config) for config in there}
    return {name.removeprefix(f"{CLAIM}/"): run for name, run in found.items()}


def runs_table(scale: Scale) -> Markdown:
    """Return what is recorded of the net's trainings at `scale`, errors on the validation split in percent."""
    rows = []
    for name, run in recorded(scale).items():
        if run is None:
            rows.append((name, NOT_RUN, "", ""))
            continue
        config, last = run.manifest["config"], (run.metrics or [{}])[-1]
        state = f"{run.status}, {run.manifest['epochs']} of {config['epochs']} epochs on {config['data']}"
        rows.append((name, state, _errors(last, ""), _errors(last, "_ten_views")))
    headers = ("run", "state", "one view, top-1 / top-5", "ten views, top-1 / top-5")
    return numbered(rows, headers, f"Trainings of the net at scale {scale}: validation errors.", "tbl-trainings")


def _errors(line: dict, views: str) -> str:
    """Return both errors of a line of metrics in percent, from whichever split was watched."""
    for split in SPLITS:
        if f"{split}_error{views}" in line:
            return f"{line[f'{split}_error{views}']:.1%} / {line[f'{split}_error_top5{views}']:.1%}"
    return ""


def curves(scale: Scale) -> pd.DataFrame:
    """Return one row for each epoch of each training: run, epoch, error in one view, error in ten (where measured)."""
    rows = [
        {"run": name, "epoch": line["epoch"], "one_view": line[f"{split}_error"]}
        | {"ten_views": line.get(f"{split}_error_ten_views")}
        for name, run in recorded(scale).items()
        if run is not None
        for line in run.metrics
        for split in SPLITS
        if f"{split}_error" in line
    ]
    return pd.DataFrame(rows, columns=["run", "epoch", "one_view", "ten_views"])


def draw_curves(scale: Scale) -> Figure | Markdown:
    """Draw the validation error of every training against epochs, or say that there is none."""
    frame = curves(scale)
    if frame.empty:
        return Markdown(f"The learning curves: {NOT_RUN}.")
    figures.use_style()
    return figures.learning_curves(frame, scale, runs_of(CLAIM, scale)[0].data)


def draw_kernels(scale: Scale) -> Figure | Markdown:
    """Draw conv1's kernels of the widest training at `scale`, the first of equals, or say that there is none (figure 3)."""
    there = [(name, run, read_kernels(run.folder)) for name, run in recorded(scale).items() if run]
    kept = [(name, run, kernels) for name, run, kernels in there if kernels is not None]
    if not kept:
        return Markdown(f"The kernels: {NOT_RUN}.")
    name, run, kernels = max(kept, key=lambda training: len(training[2]))
    config = from_dict(RunConfig, run.manifest["config"])
    assert isinstance(config.net, ColumnNet)
    columns = np.split(kernels, net_config(config.net).columns)
    figures.use_style()
    words = f"{config.data}, {name}, {run.manifest['epochs']} epochs"
    return figures.kernels([_as_rgb(column, np.abs(kernels).max()) for column in columns], scale, words)


def _as_rgb(kernels_KCHW: np.ndarray, largest: float) -> np.ndarray:
    """Return kernels as pictures (K, H, W, C) from 0 to 1: zero is grey, and all share one scale."""
    return (kernels_KCHW.transpose(0, 2, 3, 1) / largest + 1) / 2
