"""The update rule of section 5, and when its rates drop.

    v <- momentum * v - weight_decay * rate * w - rate * gradient
    w <- w + v

The velocity holds the rate. `torch.optim.SGD` multiplies by it outside, which differs for 10 to 20 steps after a change.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from alexnet.config import Optimiser, Schedule, UserError, nearest


class PaperSGD:
    """Stochastic gradient descent exactly as printed in section 5 and as in the 2012 source (src/weights.cu:146-197).

    `params` are parameters, or groups of them as for torch's optimisers; velocities are `state[parameter]["velocity"]`.
    """

    # Why not a subclass of torch.optim.Optimizer: its constructor imports torch's compiler, which takes seconds.
    def __init__(self, params: Iterable, rate: float, momentum: float = 0.9, weight_decay: float = 0.0) -> None:
        params, defaults = list(params), {"rate": rate, "momentum": momentum, "weight_decay": weight_decay}
        groups = params if isinstance(params[0], dict) else [{"params": params}]
        self.param_groups: list[dict[str, Any]] = [{**defaults, **group} for group in groups]
        self.state = {w: {"velocity": torch.zeros_like(w)} for group in self.param_groups for w in group["params"]}

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for weight in self.state:
            weight.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Move every weight that has a gradient once; at rate 0 nothing moves and velocities are kept."""
        # Source 2012: updates only where epsW > 0 (weights.cu:148); by the printed rule weights would coast on.
        for group in self.param_groups:
            weights = [w for w in group["params"] if w.grad is not None]
            if not weights or not group["rate"]:
                continue
            velocities = [self.state[w]["velocity"] for w in weights]
            torch._foreach_mul_(velocities, group["momentum"])
            if group["weight_decay"]:
                torch._foreach_add_(velocities, weights, alpha=-group["weight_decay"] * group["rate"])
            torch._foreach_add_(velocities, [w.grad for w in weights], alpha=-group["rate"])
            torch._foreach_add_(weights, velocities)


@dataclass(frozen=True)
class Rates:
    """What an epoch multiplies the initial rates by, and whether colour noise is added to its images."""

    weights: float = 1.0
    biases: float = 1.0
    conv1_weights: float = 1.0
    conv1_biases: float = 1.0
    colour_noise: bool = True


def rates_of(schedule: Schedule | None, epochs: int, epoch: int, errors: Sequence[float] = ()) -> Rates | None:
    """Return the rates of `epoch`, which counts from 0, in a training of `epochs`; None: the training has ended.

    A fraction f of it is the start of epoch round(f * epochs). `errors` (fractions) are the watched ones of each epoch.
    """
    if schedule is None:
        return Rates()
    if schedule.kind == "plateau":
        drops = following = plateau_drops(errors, schedule.patience)
        if drops > len(schedule.drops):
            return None
    else:
        drops = sum(_reached(f, epoch, epochs) for f in schedule.drops)
        following = min(drops + 1, len(schedule.drops))
    early, frozen = _reached(schedule.conv1_drop, epoch, epochs), _reached(schedule.conv1_freeze, epoch, epochs)
    weights, biases = schedule.factor**drops, schedule.factor ** min(drops, schedule.bias_drops)
    # Source 2012: conv1 goes to the rate of the last drop ahead of the others, then stops.
    conv1 = (0.0, 0.0) if frozen else (schedule.factor ** (following if early else drops), biases)
    return Rates(weights, biases, *conv1, colour_noise=not early)


def plateau_drops(errors: Sequence[float], patience: int) -> int:
    """Return how often the error has gone `patience` epochs without a new lowest value, counted anew after each time."""
    lowest, waited, drops = math.inf, 0, 0
    for error in errors:
        waited = 0 if error < lowest else waited + 1
        lowest = min(lowest, error)
        if waited >= patience:
            drops, waited = drops + 1, 0
    return drops


def _reached(fraction: float | None, epoch: int, epochs: int) -> bool:
    # Why at least 1: a fraction of a short training may round to 0, and no step would be made at the full rate.
    return fraction is not None and epoch >= max(1, math.floor(fraction * epochs + 0.5))


def build_optimiser(net: nn.Module, config: Optimiser) -> PaperSGD:
    """Return the optimiser of `net`, with groups for `Rates`; UserError when `layer_decay` names a layer that it lacks."""
    layer_decay, names = dict(config.layer_decay or ()), {name.split(".")[-2] for name, _ in net.named_parameters()}
    for layer in layer_decay.keys() - names:
        raise UserError(f"The net has no weights of a layer {layer!r} to decay{nearest(layer, names)}.")
    groups: dict[tuple[str, float], dict[str, Any]] = {}
    for name, parameter in net.named_parameters():
        layer, bias = name.split(".")[-2], name.endswith("bias")
        kind = ("conv1_" if layer == "conv1" else "") + ("biases" if bias else "weights")
        # Source 2012: biases move at twice the rate and never decay (WeightLayer's constructor gives them wc=0).
        rate = config.rate * (config.bias_rate_factor if bias else 1.0)
        decay = (config.bias_decay or 0.0) if bias else layer_decay.get(layer, config.weight_decay)
        group = {"params": [], "kind": kind, "initial_rate": rate, "rate": rate, "weight_decay": decay}
        groups.setdefault((kind, decay), group)["params"].append(parameter)
    return PaperSGD(groups.values(), rate=config.rate, momentum=config.momentum)


def set_rates(optimiser: PaperSGD, rates: Rates) -> None:
    """Give each group of `build_optimiser` its rate; velocities keep the rates they were made at."""
    for group in optimiser.param_groups:
        group["rate"] = group["initial_rate"] * getattr(rates, group["kind"])
