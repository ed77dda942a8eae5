"""What users do with a trained net, of a run or in a file: count its errors, use it, write it to a file."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from alexnet.config import CifarNet, ColumnNet, RunConfig, UserError, config_hash
from alexnet.experiments import plan, readiness, recording, runs
from alexnet.experiments.artefacts import Trained
from alexnet.model import weights
from alexnet.model.weights import LoadedNet, ModelCard
from alexnet.pictures import Ready
from alexnet.preprocessing import PreparedSet, open_set
from alexnet.training import evaluate
from alexnet.training.distributed import Group

VIEWS = ("central", "ten")


def trained(config: RunConfig) -> Trained:
    """Return a finished run with its weights. Raises UserError, with the command that makes it, when it is not there."""
    if (run := runs.read(config)) is None:
        raise UserError(f"There is no run {runs.name_of(config)}. Make it with: {runs.command_of(config)}")
    return recording.load(run, Group(readiness.device()))


def net_of(source: str | None) -> LoadedNet:
    """Return the net in a file that `export` wrote, or of the run of this name; without either, the latest one here.

    That is of the runs whose weights are on this machine, those on photographs first. Raises UserError where there is none.
    """
    if source is None:
        here = [run for run in runs.recorded() if run.status == "finished" and plan.has_weights(run.folder)]
        here = [run for run in here if isinstance(run.config.net, ColumnNet)]
        if not here:
            raise UserError(
                "No trained net is on this machine. Train one (alexnet train s3.3-lrn --arm with --scale toy), or name a "
                "file with --weights."
            )
        source = max(here, key=lambda r: (not r.manifest["data"]["stand_in"], r.manifest["segments"][-1]["started"])).name
    if not Path(source).is_file() and (run := runs.read_named(source.removeprefix("runs/").rstrip("/"))) is not None:
        net = trained(run.config)
        return LoadedNet(net.learner.net, card_of(net), torch.from_numpy(net.data.mean)).eval()
    return weights.load(source, readiness.device())


def card_of(net: Trained) -> ModelCard:
    """Return what a file with the weights of a run says of them."""
    config, data = net.config, net.data
    reading = config.net.preset if isinstance(config.net, ColumnNet) else config.net.topology
    return ModelCard(reading, net.learner.net.config, config_hash(config), data.classes, data.words, config.augmentation)


def of_run(config: RunConfig, data: str | None = None, views: str | None = None) -> Iterator[str]:
    """Yield a line for each held-out split and kind of views of a finished run: its errors as exact counts."""
    net = trained(config)
    if data is not None:
        net = replace(net, data=_as_trained(open_set(data), net.data.classes, runs.name_of(config), net.data.mean))
    yield from _lines(net, views)


def of_file(file: Path, data: str | None, views: str | None = None) -> Iterator[str]:
    """Yield the same lines for the net in a file that `export` wrote, counted on the prepared set `data`."""
    if data is None:
        raise UserError("Say which set to count on: --data SET (`alexnet list` shows those that are prepared).")
    opened, loaded = open_set(data), weights.load(file, readiness.device())
    opened = _as_trained(opened, loaded.card.classes, str(file), loaded.mean_image.cpu().numpy())
    net = loaded.card.net if isinstance(loaded.card.net, CifarNet) else ColumnNet(num_classes=len(opened.classes))
    config = RunConfig(data=data, net=net, augmentation=loaded.shown)
    yield from _lines(Trained(config, Ready(loaded.net, Group(readiness.device())), opened, file.parent), views)


def _as_trained(data: PreparedSet, classes: Sequence[str], net: str, mean: np.ndarray) -> PreparedSet:
    """Return a set as a net sees it that tells `classes` apart: labels of those, pixels minus its own mean image.

    Raises UserError for a class that is none of them, and for images of another size.
    """
    if others := [name for name in data.classes if name not in classes]:
        raise UserError(f"{net} tells {len(classes)} classes apart, and {others[0]!r} of {data.name} is none of them.")
    if mean.shape != data.mean.shape:
        raise UserError(f"{net} was trained on images of {len(mean)} pixels, those of {data.name} have {len(data.mean)}.")
    numbers = np.array([classes.index(name) for name in data.classes])
    splits = {name: replace(split, labels=numbers[split.labels]) for name, split in data.splits.items()}
    return replace(data, classes=tuple(classes), splits=splits, mean=mean)


def _lines(net: Trained, views: str | None) -> Iterator[str]:
    if views and net.config.augmentation is None:
        raise UserError("This net sees images whole: leave out --views.")
    shown = [views] if views else ["whole"] if net.config.augmentation is None else list(VIEWS)
    for split in sorted(set(net.data.splits) - {"train"}):
        for kind in shown:
            counts = evaluate.count_split(net.learner, net.data, net.config, split, kind)
            yield f"{net.data.name} {split}, {kind}: " + ", ".join(
                f"top-{row['k']} {row['wrong'] / row['total']:.2%} ({row['wrong']:,} of {row['total']:,} wrong)"
                for row in counts
            )


def export(config: RunConfig, to: Path) -> str:
    """Write the weights of a finished run to a file, and return a line that says so."""
    net = trained(config)
    weights.save(to, net.learner.net, card_of(net), torch.from_numpy(net.data.mean))
    return f"{to}: {runs.name_of(config)}, {len(net.data.classes)} classes."
