"""The update rule of section 5.

    v <- momentum * v - weight_decay * rate * w - rate * gradient
    w <- w + v

The velocity holds the rate. `torch.optim.SGD` multiplies by the rate outside its buffer instead, which is the same at a
constant rate and differs for the 10 to 20 steps after a change.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from alexnet.config import Optimiser


class PaperSGD(torch.optim.Optimizer):
    """Stochastic gradient descent exactly as printed in section 5 and as in the 2012 source (src/weights.cu:146-197).

    Each group has `rate`, `momentum` and `weight_decay`; a parameter's velocity is `state[parameter]["velocity"]`.
    """

    def __init__(self, params: Iterable, rate: float, momentum: float = 0.9, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"rate": rate, "momentum": momentum, "weight_decay": weight_decay})
        for group in self.param_groups:
            for weight in group["params"]:
                self.state[weight]["velocity"] = torch.zeros_like(weight)

    @torch.no_grad()
    def step(self, closure=None) -> None:
        """Move every weight that has a gradient once."""
        for group in self.param_groups:
            weights = [w for w in group["params"] if w.grad is not None]
            gradients = [w.grad for w in weights]
            velocities = [self.state[w]["velocity"] for w in weights]
            torch._foreach_mul_(velocities, group["momentum"])
            if group["weight_decay"]:
                torch._foreach_add_(velocities, weights, alpha=-group["weight_decay"] * group["rate"])
            torch._foreach_add_(velocities, gradients, alpha=-group["rate"])
            torch._foreach_add_(weights, velocities)


def build_optimiser(net: nn.Module, config: Optimiser) -> PaperSGD:
    """Return the optimiser of `net`: one group of weights with decay, one of biases at their own rate without."""
    weights: list[Tensor] = []
    biases: list[Tensor] = []
    for name, parameter in net.named_parameters():
        (biases if name.endswith("bias") else weights).append(parameter)
    # Source 2012: biases move at twice the rate and never decay (WeightLayer's constructor gives them wc=0).
    groups = [
        {"params": weights, "rate": config.rate, "weight_decay": config.weight_decay},
        {"params": biases, "rate": config.rate * config.bias_rate_factor, "weight_decay": 0.0},
    ]
    return PaperSGD(groups, rate=config.rate, momentum=config.momentum)
