"""Where the time of a training step goes: every layer of source2012 at full width, beside the machine's two limits."""

import statistics
from typing import Any

import torch
from torch import Tensor

from alexnet.bench.rows import Kind, seconds_of
from alexnet.claims.arithmetic import operations
from alexnet.config import ColumnNet, Optimiser, RunConfig
from alexnet.model.alexnet import AlexNet
from alexnet.model.layers import Moment
from alexnet.model.presets import source2012
from alexnet.training.learner import Learner
from alexnet.training.precision import autocast, matmul_speed

REPEATS = 3
AT = Moment(0, 0, 0)


def costs(kind: Kind) -> dict[str, Any]:
    """Return what each layer took forward and backward, its operations and bytes, and the limits of the machine.

    `bytes` is the least that has to move: maps in and out of the layer (with all that follows it) once forward and twice
    backward, weights in fp32 three times. The update of the weights is a layer of its own, which reads three values for
    each weight and writes two.
    """
    batch = 128 if kind == "bf16" else 64
    learner = Learner(RunConfig(net=ColumnNet("source2012"), optimiser=Optimiser(rate=0.001, weight_decay=5e-4)), kind)
    net, counted = learner.net, operations(source2012())
    found = [_cost(net, name, x, kind) | {"operations": counted[name] * batch} for name, x in _inputs(net, batch, kind)]
    weights = sum(p.numel() for p in net.parameters())
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)  # Why not zeros: pages that were never written cost nothing to read
    seconds = statistics.median(seconds_of(learner.optimiser.step) for _ in range(REPEATS))
    found.append({"layer": "update", "seconds": seconds, "bytes": 20 * weights, "operations": 6 * weights})
    limits = {"gflops": matmul_speed(torch.bfloat16 if kind == "bf16" else torch.float32, side=2048, repeats=2)}
    return {"batch": batch, "type": kind, "limits": limits | {"gb_per_second": _bandwidth()}, "layers": found}


def _inputs(net: AlexNet, batch: int, kind: Kind) -> list[tuple[str, list[Tensor]]]:
    """Return what every layer that learns sees in each column, of a batch of noise."""
    own, seen = [(torch.randn(batch, 3, 224, 224) * 50).to(memory_format=torch.channels_last)] * len(net.columns), []
    with torch.no_grad(), autocast(kind):
        for name in net.config.layer_names:
            if name in net.config.shared:
                own = [net.exchange.concatenate(own)] * len(own)
            if net.config.learns(name):
                seen.append((name, own))
            own = [column.run_layer(name, x, AT) for column, x in zip(net.columns.values(), own, strict=True)]
    return seen


def _cost(net: AlexNet, name: str, inputs: list[Tensor], kind: Kind) -> dict[str, Any]:
    moved = 0

    def there_and_back() -> None:
        nonlocal moved
        moved = 0
        for column, x in zip(net.columns.values(), inputs, strict=True):
            own = x.detach().requires_grad_(name != "conv1")
            with autocast(kind):
                y = column.run_layer(name, own, AT)
            y.backward(torch.ones_like(y))
            layer = column.get_submodule(name)
            moved += 3 * (_size(x) + _size(y)) + 3 * 4 * layer.weight.numel()
            column.zero_grad()

    there_and_back()
    return {"layer": name, "seconds": statistics.median(seconds_of(there_and_back) for _ in range(REPEATS)), "bytes": moved}


def _size(x: Tensor) -> int:
    return x.numel() * x.itemsize


def _bandwidth() -> float:
    """Return the GB/s of a sum of two vectors much larger than any cache, in place: two values read, one written.

    Why not a copy: memory that is only written is read first, and that is not counted.
    """
    added, total = torch.ones(2**26), torch.ones(2**26)
    total.add_(added)
    return 3 * _size(total) / min(seconds_of(lambda: total.add_(added)) for _ in range(5)) / 1e9
