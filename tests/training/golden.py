"""Twenty losses of the narrow two-column net on images made by formula, by one process or by one of several ranks.

golden.py FILE COLUMNS REPLICAS KIND...        float32, float64 or compiled
"""

import json
import sys
from itertools import islice
from pathlib import Path

import torch

from alexnet.config import ColumnNet, Optimiser, RunConfig
from alexnet.model.columns import Layout
from alexnet.model.layers import Moment
from alexnet.preprocessing import store
from alexnet.preprocessing.batches import rows_of
from alexnet.training.compiling import compile_loops
from alexnet.training.crew import Crew, RankCrew
from alexnet.training.launch import launch
from alexnet.training.learner import Learner
from alexnet.training.measure import batches_of
from alexnet.training.optimiser import build_optimiser
from alexnet.training.ranks import is_rank, joined

CONFIG = RunConfig(
    data="golden",
    net=ColumnNet("source2012", width=1 / 16, num_classes=20),
    optimiser=Optimiser(rate=0.0002, weight_decay=5e-4, batch_size=10),
    augmentation="source2012",
    precision="fp32",
)
STEPS = 20


def losses(crew: Crew, dtype: torch.dtype) -> list[float]:
    """Return the loss of each of the first steps, over the whole batch."""
    learner = Learner(CONFIG, "fp32", crew)
    learner.net.to(dtype)
    learner.optimiser = build_optimiser(learner.net, CONFIG.optimiser)
    batches, size = batches_of(CONFIG, store.open_set(CONFIG.data), "train"), CONFIG.optimiser.batch_size
    found, per_epoch = [], batches.steps_per_epoch(size)
    for epoch in range(-(-STEPS // per_epoch)):
        shown = batches.epoch(CONFIG.seed, epoch, size, part=crew.part)
        for step, (images, labels) in islice(enumerate(shown), STEPS - epoch * per_epoch):
            total = min(size, len(batches) - step * size)
            at = Moment(CONFIG.seed, epoch, step, rows_of(total, crew.part).start)
            loss, _ = learner.step(images.to(dtype), labels, at, len(labels) / total)
            (mean,) = crew.total([loss.item() * len(labels) / total])
            found.append(mean)
    return found


def main() -> None:
    """Write the losses in each type, or with compiled normalisation, to a file, from the rank that speaks."""
    file, columns, replicas = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(1)
    layout = Layout(columns, replicas)
    if layout.ranks > 1 and not is_rank():
        sys.exit(launch(sys.argv[1:], layout, program=(__file__,)))
    with joined(layout) as rank:
        crew = RankCrew(rank) if layout.ranks > 1 else Crew()
        found = []
        for kind in sys.argv[4:]:
            compiled = compile_loops(CONFIG.net, kind == "compiled", crew)
            if kind == "compiled" and not compiled:
                found.append(None)  # no compiler here
                continue
            found.append(losses(crew, torch.float32 if compiled else getattr(torch, kind)))
        if crew.writes:
            file.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
