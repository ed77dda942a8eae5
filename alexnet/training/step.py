"""A net with its optimiser and one step of training, the same for one process and for a group of them (section 5).

On a CUDA device a step is one CUDA graph, because the CPU would have to start its hundreds of small kernels one by one. It
does the same operations on the same numbers; what differs between steps is copied to where the graph reads it.
"""

import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexnet.config import RunConfig
from alexnet.model import StepKey, build, kernels
from alexnet.training.checkpoint import State
from alexnet.training.distributed import Group
from alexnet.training.optimizer import Rates, build_optimiser, set_rates
from alexnet.training.precision import autocast, settle_cuda

WARM_UP = 3  # steps before the capture, in which libraries choose their kernels and find their memory

Found = tuple[Tensor, Tensor]  # the mean loss (nats) and the logits (N, K)
Step = Callable[[Tensor, Tensor, StepKey | None, float], Found]


class Learner:
    """A net with its initial weights, its optimiser, and one step of training."""

    def __init__(self, config: RunConfig, precision: str = "fp32", group: Group | None = None) -> None:
        self.precision, self.group = precision, group or Group()
        settle_cuda(tf32=precision == "tf32")
        self.net = build(config.net, config.seed, **self.group.shared_out(config.net)).to(self.group.device)
        self.optimiser = build_optimiser(self.net, config.optimiser)
        self.graph = GraphedStep()
        self._rates: Rates | None = None

    def set_rates(self, rates: Rates) -> None:
        """Give every group of parameters its rate."""
        if rates != self._rates:
            self.graph.forget()
        self._rates = rates
        set_rates(self.optimiser, rates)

    def step(self, images_NCHW: Tensor, labels_N: Tensor, key: StepKey | None = None, share: float = 1.0) -> Found:
        """Move the weights once; return the mean loss (nats) and the logits (N, K) of the images here before the move.

        With replicas, the images are this one's rows, the part `share` of a batch: perhaps none, and then the loss is 0.
        """
        batch = images_NCHW, labels_N, key, share
        # Steps are CUDA graphs on one CUDA device, if masks need not come from the CPU.
        alone = self.group.device.type == "cuda" and self.group.num_ranks == 1
        is_graphed = alone and (kernels.is_on() or not self.net.has_dropout)
        return self.graph(self._step, *batch) if is_graphed else self._step(*batch)

    def _step(self, images_NCHW: Tensor, labels_N: Tensor, key: StepKey | None, share: float) -> Found:
        self.optimiser.zero_grad()
        if len(labels_N):
            with autocast(self.precision, self.group.device.type):
                logits_NK = self.net(images_NCHW, key)
            loss = F.cross_entropy(logits_NK, labels_N)
        else:  # Why: the mean over no images is not a number. All columns of a replica have none, and exchange nothing.
            logits_NK = next(self.net.parameters()).new_zeros(0, 1)
            loss = sum(parameter.sum() * 0.0 for parameter in self.net.parameters())
        loss.backward()
        self.group.average(self.net, share)
        self.optimiser.step()
        return loss.detach(), logits_NK.detach()

    def weights(self) -> State:
        """Return the plain state of the net; every rank of the group has to call."""
        return self.net.plain_state()

    def velocities(self) -> State:
        """Return the velocities under the names of their weights; every rank of the group has to call."""
        return self.net.plain_state(self._velocity)

    def restore(self, weights: State, velocities: State) -> None:
        """Take over what `weights` and `velocities` gave, in any layout. Raises ValueError for another net's."""
        self.net.load_plain_state(weights)
        self.net.load_plain_state(velocities, self._velocity)

    def _velocity(self, parameter: nn.Parameter) -> Tensor:
        return self.optimiser.state[parameter]["velocity"]


class GraphedStep:
    """A step, captured for the first kind of batch that is seen often; batches of other sizes are stepped eagerly."""

    def __init__(self) -> None:
        self.streams: dict[str, Tensor] = {}  # keys of dropout's draws, where the graph reads them
        self.possible = True
        self.forget()

    def forget(self) -> None:
        """Capture anew: the graph had numbers in it, such as learning rates, that are others now."""
        self.graph: torch.cuda.CUDAGraph | None = None
        self.seen: Counter[tuple] = Counter()

    def __call__(self, step: Step, images_NCHW: Tensor, labels_N: Tensor, key: StepKey | None, share: float) -> Found:
        """Do `step`, the same one in all calls, or start the graph of it."""
        kind = images_NCHW.shape, images_NCHW.stride(), key.first_image if key else 0, share
        if key is not None:
            for purpose, held in self.streams.items():
                held.copy_(key.stream(purpose, held.device))
            key = replace(key, streams=self.streams)
        if self.graph is None and self.possible and self.seen[kind] >= WARM_UP:
            self._capture(step, images_NCHW, labels_N, key, share)
            self.kind = kind
        if self.graph is None or kind != self.kind:
            self.seen[kind] += 1
            return self._on_side_stream(step, images_NCHW, labels_N, key, share)
        self.images_NCHW.copy_(images_NCHW)
        self.labels_N.copy_(labels_N)
        self.graph.replay()
        return self.loss.clone(), self.logits_NK.clone()

    def _on_side_stream(self, step: Step, *batch: Any) -> Found:
        """Step in a stream of its own, as a graph is captured, so that libraries have their memory for that."""
        here, side = torch.cuda.current_stream(), torch.cuda.Stream()
        side.wait_stream(here)
        with torch.cuda.stream(side):
            found = step(*batch)
        here.wait_stream(side)
        for tensor in found:
            tensor.record_stream(here)
        return found

    def _capture(self, step: Step, images_NCHW: Tensor, labels_N: Tensor, *how: Any) -> None:
        self.images_NCHW, self.labels_N = images_NCHW.clone(), labels_N.clone()
        graph = torch.cuda.CUDAGraph()
        try:
            # Why of this thread only: another one makes the next batch meanwhile.
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                self.loss, self.logits_NK = step(self.images_NCHW, self.labels_N, *how)
            self.graph = graph
        except RuntimeError as error:
            self.possible = False
            print(f"no CUDA graph of a step, which starts more slowly: {str(error).splitlines()[0]}", file=sys.stderr)
