"""Twenty losses of the narrow two-column net on images made by formula, by one process or by one of several ranks.

golden.py FILE COLUMNS REPLICAS KIND...        float32, float64, kernels, or a folder whose training is to be finished
"""

import json
import sys
from itertools import islice
from pathlib import Path

import torch

from alexnet.config import ColumnNet, Optimiser, RunConfig, Schedule
from alexnet.model import StepKey
from alexnet.model.column_parallel import Layout
from alexnet.preprocessing import open_set
from alexnet.preprocessing.augment import SOURCE2012
from alexnet.preprocessing.loader import rows_of
from alexnet.training import loop
from alexnet.training.distributed import Group, joined
from alexnet.training.evaluate import batches_for
from alexnet.training.optimizer import build_optimiser
from alexnet.training.precision import use_kernels
from alexnet.training.step import Learner

CONFIG = RunConfig(
    data="golden",
    net=ColumnNet("source2012", width=1 / 16, num_classes=20),
    optimiser=Optimiser(rate=0.0002, weight_decay=5e-4, batch_size=10),
    augmentation=SOURCE2012,
    precision="fp32",
    epochs=2,
    schedule=Schedule(),
)
STEPS = 20


def losses(group: Group, dtype: torch.dtype) -> list[float]:
    """Return the loss of each of the first steps, over the whole batch."""
    learner = Learner(CONFIG, "fp32", group)
    learner.net.to(dtype)
    learner.optimiser = build_optimiser(learner.net, CONFIG.optimiser)
    batches, size = batches_for(CONFIG, open_set(CONFIG.data), "train"), CONFIG.optimiser.batch_size
    found, per_epoch = [], -(-len(batches) // size)
    for epoch in range(-(-STEPS // per_epoch)):
        shown = batches.epoch(CONFIG.seed, epoch, size, part=group.part)
        for step, (images, labels) in islice(enumerate(shown), STEPS - epoch * per_epoch):
            total = min(size, len(batches) - step * size)
            key = StepKey(CONFIG.seed, epoch, step, rows_of(total, group.part).start)
            loss, _ = learner.step(images.to(dtype), labels, key, len(labels) / total)
            (mean,) = group.total([loss.item() * len(labels) / total])
            found.append(mean)
    return found


def measured(kind: str, group: Group) -> list[float] | None:
    """Return the losses of one kind, or None for kernels that cannot be compiled here, or for a finished training."""
    is_on = use_kernels(kind == "kernels", group)
    if Path(kind).is_dir():
        loop.train(CONFIG, open_set(CONFIG.data), Path(kind), group=group, bar=False)
        return None
    if kind == "kernels" and not is_on:
        return None
    return losses(group, torch.float32 if is_on else getattr(torch, kind))


def main(file: str, columns: str, replicas: str, *kinds: str) -> None:
    """Write what is measured to a file, from the main rank."""
    torch.set_num_threads(1)
    with joined(Layout(int(columns), int(replicas))) as group:
        found = [measured(kind, group) for kind in kinds]
        if group.is_main:
            Path(file).write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
