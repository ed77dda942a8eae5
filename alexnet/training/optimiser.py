"""The update rule of section 5, and when its rates drop.

    v <- momentum * v - weight_decay * rate * w - rate * gradient
    w <- w + v

The velocity holds the rate. `torch.optim.SGD` multiplies by the rate outside its buffer instead, which is the same at a
constant rate and differs for the 10 to 20 steps after a change.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from alexnet import compiled
from alexnet.config import Optimiser, Schedule


class PaperSGD:
    """Stochastic gradient descent exactly as printed in section 5 and as in the 2012 source (src/weights.cu:146-197).

    `params` are parameters, or groups {"params": ...} of which each may have a `rate`, `momentum` and `weight_decay` of its
    own; a parameter's velocity is `state[parameter]["velocity"]`.
    """

    # Why not a subclass of torch.optim.Optimizer: its constructor imports torch's compiler, which takes seconds, and nothing
    # of it is used here.
    def __init__(self, params: Iterable, rate: float, momentum: float = 0.9, weight_decay: float = 0.0) -> None:
        given = list(params)
        groups = given if isinstance(given[0], dict) else [{"params": given}]
        defaults = {"rate": rate, "momentum": momentum, "weight_decay": weight_decay}
        self.param_groups: list[dict[str, Any]] = [{**defaults, **group} for group in groups]
        self.state = {w: {"velocity": torch.zeros_like(w)} for group in self.param_groups for w in group["params"]}

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for weight in self.state:
            weight.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Move every weight that has a gradient once."""
        for group in self.param_groups:
            weights = [w for w in group["params"] if w.grad is not None]
            gradients = [w.grad for w in weights]
            velocities = [self.state[w]["velocity"] for w in weights]
            if all(map(_in_one_pass, weights, velocities)):
                for each in zip(weights, velocities, gradients, strict=True):
                    _update(*each, group["momentum"], group["weight_decay"] * group["rate"], group["rate"])
                continue
            torch._foreach_mul_(velocities, group["momentum"])
            if group["weight_decay"]:
                torch._foreach_add_(velocities, weights, alpha=-group["weight_decay"] * group["rate"])
            torch._foreach_add_(velocities, gradients, alpha=-group["rate"])
            torch._foreach_add_(weights, velocities)


def _in_one_pass(weight: Tensor, velocity: Tensor) -> bool:
    """Return whether a compiled loop can update a weight: in fp32, without gaps in memory."""
    dense = weight.is_contiguous() or (weight.ndim == 4 and weight.is_contiguous(memory_format=torch.channels_last))
    alike = weight.stride() == velocity.stride() and weight.dtype == velocity.dtype == torch.float32
    return compiled.is_on() and weight.device.type in ("cpu", "cuda") and dense and alike


def _update(weight: Tensor, velocity: Tensor, gradient: Tensor, momentum: float, decay: float, rate: float) -> None:
    """Do in half the time what the tensor operations do, to the same bits where the processor rounds a b + c once."""
    if gradient.stride() != weight.stride() or gradient.dtype != weight.dtype:
        gradient = torch.empty_like(weight).copy_(gradient)
    if weight.is_cuda:
        from alexnet.model import triton_loops  # Why here: where there is no device there may be no Triton.

        triton_loops.update_weights(weight, velocity, gradient, momentum, decay, rate)
        return
    pointers = (tensor.data_ptr() for tensor in (weight, velocity, gradient))
    compiled.library()[0].update_weights(*pointers, weight.numel(), momentum, decay, rate)


@dataclass(frozen=True)
class Rates:
    """What an epoch multiplies the initial rates by, and whether colour noise is added to its images."""

    weights: float = 1.0
    biases: float = 1.0
    conv1_weights: float = 1.0
    conv1_biases: float = 1.0
    colour_noise: bool = True


def rates_of(schedule: Schedule | None, epochs: int, validation_errors: Sequence[float]) -> Rates | None:
    """Return the rates of the epoch that follows one validation error for each finished epoch; None: training has ended.

    A fraction f of the training is the start of epoch round(f * epochs), which for the 93 epochs of #145-2010 gives the
    epochs of its log within one. A plateau is a function of the errors alone, so that resuming needs no state. Paper 5.
    """
    epoch = len(validation_errors)
    if schedule is None:
        return Rates()
    if schedule.kind == "plateau":
        drops = plateau_drops(validation_errors, schedule.patience)
        if drops > len(schedule.drops):
            return None
        following = drops
    else:
        drops = sum(_reached(f, epoch, epochs) for f in schedule.drops)
        following = min(drops + 1, len(schedule.drops))
    early, frozen = _reached(schedule.conv1_drop, epoch, epochs), _reached(schedule.conv1_freeze, epoch, epochs)
    biases = schedule.factor ** min(drops, schedule.bias_drops)
    return Rates(
        weights=schedule.factor**drops,
        biases=biases,
        # Source 2012: conv1 goes to the rate of the last drop ahead of the others, then stops.
        conv1_weights=0.0 if frozen else schedule.factor ** (following if early else drops),
        conv1_biases=0.0 if frozen else biases,
        colour_noise=not early,
    )


def plateau_drops(validation_errors: Sequence[float], patience: int) -> int:
    """Return how often the error has gone `patience` epochs without a new lowest value, counted anew after each time."""
    lowest, waited, drops = math.inf, 0, 0
    for error in validation_errors:
        waited = 0 if error < lowest else waited + 1
        lowest = min(lowest, error)
        if waited >= patience:
            drops, waited = drops + 1, 0
    return drops


def _reached(fraction: float | None, epoch: int, epochs: int) -> bool:
    return fraction is not None and epoch >= math.floor(fraction * epochs + 0.5)


def build_optimiser(net: nn.Module, config: Optimiser) -> PaperSGD:
    """Return the optimiser of `net`: weights and biases of conv1 and of all other layers, each group at its own rate."""
    groups: dict[str, dict[str, Any]] = {}
    for name, parameter in net.named_parameters():
        bias = name.endswith("bias")
        kind = ("conv1_" if name.split(".")[-2] == "conv1" else "") + ("biases" if bias else "weights")
        # Source 2012: biases move at twice the rate and never decay (WeightLayer's constructor gives them wc=0).
        rate = config.rate * (config.bias_rate_factor if bias else 1.0)
        decay = (config.bias_decay or 0.0) if bias else config.weight_decay
        group = {"params": [], "kind": kind, "initial_rate": rate, "rate": rate, "weight_decay": decay}
        groups.setdefault(kind, group)["params"].append(parameter)
    return PaperSGD(groups.values(), rate=config.rate, momentum=config.momentum)


def set_rates(optimiser: PaperSGD, rates: Rates) -> None:
    """Give each group of `build_optimiser` its rate; velocities stay as they are, with the rates they were made at."""
    for group in optimiser.param_groups:
        group["rate"] = group["initial_rate"] * getattr(rates, group["kind"])
