"""Which operations of torch a training step at full width spends its time in."""

from typing import Any

import torch

# Why the old profiler: the new one prints that it found no GPU.
from torch.autograd.profiler_legacy import profile

from alexnet.bench.rows import Kind
from alexnet.config import ColumnNet, Optimiser, RunConfig
from alexnet.model.layers import Moment
from alexnet.training.learner import Learner

TOP = 10
STEPS = 3


def operations(kind: Kind) -> dict[str, Any]:
    """Return the TOP operations by the time that they take themselves, and all of the step, in seconds of one step."""
    batch = 128 if kind == "bf16" else 64
    learner = Learner(RunConfig(net=ColumnNet("source2012"), optimiser=Optimiser(rate=0.001, weight_decay=5e-4)), kind)
    images = (torch.randn(batch, 3, 224, 224) * 50).to(memory_format=torch.channels_last)
    learner.step(images, torch.arange(batch), Moment(0, 0, 0))
    with profile() as profiled:
        for _ in range(STEPS):
            learner.step(images, torch.arange(batch), Moment(0, 0, 0))
    found = sorted(profiled.key_averages(), key=lambda event: -event.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in found)
    top = [
        {"operation": event.key, "calls": event.count / STEPS, "seconds": event.self_cpu_time_total / 1e6 / STEPS}
        for event in found[:TOP]
    ]
    return {"batch": batch, "type": kind, "seconds": total / 1e6 / STEPS, "operations": top}
