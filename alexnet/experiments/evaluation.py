"""What users do with a trained net: count its errors, write it to a file (`alexnet evaluate`, `alexnet export`)."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from alexnet.config import ColumnNet, RunConfig, UserError, config_hash
from alexnet.experiments import readiness, recording, runs
from alexnet.experiments.artefacts import Trained
from alexnet.model import weights
from alexnet.preprocessing import open_set
from alexnet.preprocessing.augment import PAPER
from alexnet.training import evaluate
from alexnet.training.distributed import Group
from alexnet.training.step import Learner

VIEWS = ("central", "ten")


def trained(config: RunConfig) -> Trained:
    """Return a finished run with its weights. Raises UserError, with the command that makes it, when it is not there."""
    if (run := runs.read(config)) is None:
        raise UserError(f"There is no run {runs.name_of(config)}. Make it with: {runs.command_of(config)}")
    return recording.load(run, Group(readiness.device()))


def of_run(config: RunConfig, data: str | None = None, views: str | None = None) -> Iterator[str]:
    """Yield a line for each held-out split and kind of views of a finished run: its errors as exact counts."""
    net = trained(config)
    if data is not None:
        other = open_set(data)
        _same_classes(net.data.classes, other.classes, runs.name_of(config), data)
        net = replace(net, data=replace(other, mean=net.data.mean))
    yield from _lines(net, views)


def of_file(file: Path, data: str | None, views: str | None = None) -> Iterator[str]:
    """Yield the same lines for the net in a file that `export` wrote, counted on the prepared set `data`."""
    if data is None:
        raise UserError("Say which set to count on: --data SET (alexnet doctor lists those that are prepared).")
    opened, loaded = open_set(data), weights.load(file)
    _same_classes(loaded.card.classes, opened.classes, str(file), data)
    config = RunConfig(data=data, net=ColumnNet(num_classes=len(opened.classes)), augmentation=PAPER)
    learner = Learner(config, "fp32", Group(readiness.device()))
    learner.net = loaded.net.to(readiness.device())
    # Why the file's: a net has learned from pixels minus the mean of its own training images.
    opened = replace(opened, mean=loaded.mean_image.numpy())
    yield from _lines(Trained(config, learner, opened, file.parent), views)


def _same_classes(ours: Sequence[str], theirs: Sequence[str], net: str, data: str) -> None:
    if tuple(ours) != tuple(theirs):
        raise UserError(f"{net} tells {len(ours)} classes apart, which are not the {len(theirs)} of {data}.")


def _lines(net: Trained, views: str | None) -> Iterator[str]:
    shown = [views] if views else ["whole"] if net.config.augmentation is None else list(VIEWS)
    for split in sorted(set(net.data.splits) - {"train"}):
        for kind in shown:
            counts = evaluate.count_split(net.learner, net.data, net.config, split, kind)
            yield f"{net.data.name} {split}, {kind}: " + ", ".join(
                f"top-{row['k']} {row['wrong'] / row['total']:.2%} ({row['wrong']:,} of {row['total']:,} wrong)"
                for row in counts
            )


def export(config: RunConfig, to: Path) -> str:
    """Write the weights of a finished run of the two-column net to a file, and return a line that says so."""
    if not isinstance(config.net, ColumnNet):
        raise UserError("Only the two-column net is exported; the nets of CIFAR-10 stay with their runs.")
    net = trained(config)
    card = weights.ModelCard(config.net.preset, net.learner.net.config, config_hash(config), net.data.classes)
    weights.save(to, net.learner.net, card, torch.from_numpy(net.data.mean))
    return f"{to}: {runs.name_of(config)}, {len(net.data.classes)} classes."
