"""Where the time of a training step at full width goes: layers, operations of torch, and growth with the size of the net."""

import statistics
from typing import Any

import torch
from torch import Tensor

# Why the old profiler: the new one prints that it found no GPU.
from torch.autograd.profiler_legacy import profile

from alexnet.bench.network import our_step
from alexnet.bench.rows import Kind, Setting, here, seconds_of
from alexnet.model import StepKey
from alexnet.model.alexnet import AlexNet
from alexnet.model.presets import source2012
from alexnet.paper.arithmetic import operations
from alexnet.training.precision import autocast, matmul_speed

REPEATS = 3
TOP = 10  # operations of the profile
KEY = StepKey(0, 0, 0)
BASE = {"width": 0.5, "batch": 128, "classes": 20}  # the net of the scale small; each line of GROWTH changes one of these
GROWTH = (
    {},
    {"width": 0.25},
    {"width": 1.0},
    {"batch": 16},
    {"batch": 256},
    {"classes": 1000},
    {"classes": 10184},  # of the fall 2009 release (paper 6)
)


def measured() -> dict[str, Any]:
    """Return everything that this module measures, by its name in the record."""
    at = here()
    return {"layers": layers(at), "profile": profiled(at), "growth": growth(at.kind)}


def layers(at: Setting) -> dict[str, Any]:
    """Return what each layer took forward and backward, its operations and bytes, and the limits of the machine.

    `bytes` is the least that has to move: maps in and out of the layer (with all that follows it) once forward and twice
    backward, weights in fp32 three times. The update of the weights is a layer of its own, which reads three values for
    each weight and writes two.
    """
    learner, counted = our_step(at)[1], operations(source2012())
    net = learner.net
    found = [_cost(net, name, x, at.kind) | {"operations": counted[name] * at.batch} for name, x in _inputs(net, at)]
    weights = sum(p.numel() for p in net.parameters())
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)  # Why not zeros: pages that were never written cost nothing to read
    seconds = statistics.median(seconds_of(learner.optimiser.step) for _ in range(REPEATS))
    found.append({"layer": "update", "seconds": seconds, "bytes": 20 * weights, "operations": 6 * weights})
    limits = {"gflops": matmul_speed(at.dtype, side=2048, repeats=2), "gb_per_second": _bandwidth()}
    return {"batch": at.batch, "type": at.kind, "limits": limits, "layers": found}


def _inputs(net: AlexNet, at: Setting) -> list[tuple[str, list[Tensor]]]:
    """Return what every layer that learns sees in each column, of a batch of noise."""
    images = (torch.randn(at.batch, 3, 224, 224) * 50).to(memory_format=torch.channels_last)
    own, seen = [images] * len(net.columns), []
    with torch.no_grad(), autocast(at.kind):
        for name in net.config.layer_names:
            if name in net.config.shared:
                own = [net.exchange.concatenate(own)] * len(own)
            if net.config.learns(name):
                seen.append((name, own))
            own = [column.run_layer(name, x, KEY) for column, x in zip(net.columns.values(), own, strict=True)]
    return seen


def _cost(net: AlexNet, name: str, inputs: list[Tensor], kind: Kind) -> dict[str, Any]:
    moved = 0

    def forward_and_backward() -> None:
        nonlocal moved
        moved = 0
        for column, x in zip(net.columns.values(), inputs, strict=True):
            own = x.detach().requires_grad_(name != "conv1")
            with autocast(kind):
                y = column.run_layer(name, own, KEY)
            y.backward(torch.ones_like(y))
            moved += 3 * (_size(x) + _size(y)) + 3 * 4 * column.get_submodule(name).weight.numel()
            column.zero_grad()

    forward_and_backward()
    seconds = statistics.median(seconds_of(forward_and_backward) for _ in range(REPEATS))
    return {"layer": name, "seconds": seconds, "bytes": moved}


def _size(x: Tensor) -> int:
    return x.numel() * x.itemsize


def _bandwidth() -> float:
    """Return the GB/s of a sum of two vectors much larger than any cache, in place: two values read, one written.

    Why not a copy: memory that is only written is read first, and that is not counted.
    """
    added, total = torch.ones(2**26), torch.ones(2**26)
    total.add_(added)
    return 3 * _size(total) / min(seconds_of(lambda: total.add_(added)) for _ in range(5)) / 1e9


def profiled(at: Setting) -> dict[str, Any]:
    """Return the TOP operations of torch by the time that they take themselves, and all of the step, in seconds."""
    step, _ = our_step(at)
    step()
    with profile() as events:
        for _ in range(REPEATS):
            step()
    found = sorted(events.key_averages(), key=lambda event: -event.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in found)
    top = [
        {"operation": event.key, "calls": event.count / REPEATS, "seconds": event.self_cpu_time_total / 1e6 / REPEATS}
        for event in found[:TOP]
    ]
    return {"batch": at.batch, "type": at.kind, "seconds": total / 1e6 / REPEATS, "operations": top}


def growth(kind: Kind) -> list[dict[str, Any]]:
    """Return, for the base and each change of it, the seconds of a training step (forward, backward, update) by image."""
    return [{**BASE, **change, "seconds": _seconds_per_image({**BASE, **change}, kind)} for change in GROWTH]


def _seconds_per_image(of: dict[str, Any], kind: Kind) -> float:
    step, _ = our_step(Setting(kind, of["batch"]), of["width"], of["classes"])
    step()  # Why: the first compiles, and finds its memory
    return statistics.median(seconds_of(step) for _ in range(REPEATS)) / of["batch"]
