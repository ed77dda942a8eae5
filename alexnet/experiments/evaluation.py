"""What users do with a trained net, of a run or in a file: count its errors, use it, write it to a file."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from alexnet.config import ColumnNet, RunConfig, UserError, config_hash
from alexnet.experiments import plan, readiness, recording, runs
from alexnet.experiments.artefacts import Trained
from alexnet.model import weights
from alexnet.model.weights import LoadedNet, ModelCard
from alexnet.pictures import ready
from alexnet.preprocessing import PreparedSet, open_set
from alexnet.training import evaluate
from alexnet.training.distributed import Group


def net_of(source: str | None) -> LoadedNet:
    """Return the net in a file, or of a run by its name, or the latest one with weights here, of photographs first."""
    if source is None:
        here = [run for run in runs.recorded() if run.status == "finished" and plan.weights_in(run.folder)]
        here = [run for run in here if isinstance(run.config.net, ColumnNet)]
        if not here:
            train = "alexnet train s3.3-lrn --arm with --scale toy"
            raise UserError(f"No trained net is on this machine. Train one ({train}), or name a file with --weights.")
        source = max(here, key=lambda r: (not r.manifest["data"]["stand_in"], r.manifest["segments"][-1]["started"])).name
    if not Path(source).is_file() and (run := runs.read(source.removeprefix("runs/").rstrip("/"))) is not None:
        return loaded(run.config)
    return weights.load(source, readiness.device())


def loaded(config: RunConfig) -> LoadedNet:
    """Return the net of a finished run as a file with its weights would give it."""
    run = shown(config)
    net, data = run.learner.net, run.data
    reading = config.net.preset if isinstance(config.net, ColumnNet) else config.net.topology
    card = ModelCard(reading, net.config, config_hash(config), data.classes, data.words, config.augmentation)
    return LoadedNet(net, card, torch.from_numpy(data.mean)).eval().to(run.learner.group.device)


def shown(source: RunConfig | Path, data: str | None = None) -> Trained:
    """Return a finished run, or an exported net, with the set `data`, else the run's own; UserError where there is none."""
    if isinstance(source, RunConfig):
        if (run := runs.read(source)) is None:
            raise UserError(f"There is no run {runs.name_of(source)}. Make it with: {runs.command_of(source)}")
        net = recording.load(run, Group(readiness.device()))
        return replace(net, data=_as_trained(open_set(data), net.data.classes, run.name, net.data.mean)) if data else net
    if data is None:
        raise UserError("Say which set to count on: --data SET (`alexnet list` shows those that are prepared).")
    opened, net = open_set(data), weights.load(source, readiness.device())
    opened = _as_trained(opened, net.card.classes, str(source), net.mean_image.cpu().numpy())
    learner, config = ready(net)
    return Trained(config, learner, opened, source.parent)


def _as_trained(data: PreparedSet, classes: Sequence[str], net: str, mean: np.ndarray) -> PreparedSet:
    """Return a set as a net sees it that tells `classes` apart: labels of those, pixels minus its own mean image."""
    if others := [name for name in data.classes if name not in classes]:
        raise UserError(f"{net} tells {len(classes)} classes apart, and {others[0]!r} of {data.name} is none of them.")
    if mean.shape != data.mean.shape:
        raise UserError(f"{net} was trained on images of {len(mean)} pixels, those of {data.name} have {len(data.mean)}.")
    numbers = np.array([classes.index(name) for name in data.classes])
    splits = {name: replace(split, labels=numbers[split.labels]) for name, split in data.splits.items()}
    return replace(data, classes=tuple(classes), splits=splits, mean=mean)


def errors(net: Trained, views: str | None = None) -> Iterator[str]:
    """Yield a line for each held-out split and kind of views: errors as exact counts."""
    is_whole = net.config.augmentation is None
    if views and is_whole:
        raise UserError("This net sees images whole: leave out --views.")
    for split in sorted(set(net.data.splits) - {"train"}):
        for kind in ["whole"] if is_whole else [views] if views else ["central", "ten"]:
            rows = evaluate.count_split(net.learner, net.data, net.config, split, kind)
            said = [f"top-{r['k']} {r['wrong'] / r['total']:.2%} ({r['wrong']:,} of {r['total']:,} wrong)" for r in rows]
            yield f"{net.data.name} {split}, {kind}: {', '.join(said)}"


def export(config: RunConfig, to: Path) -> str:
    """Write the weights of a finished run to a file, and return a line that says so."""
    net = loaded(config)
    weights.save(to, net.net, net.card, net.mean_image)
    return f"{to}: {runs.name_of(config)}, {len(net.card.classes)} classes."
