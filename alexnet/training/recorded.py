"""A training step on a CUDA device as one graph: recorded once, then started whole.

A step is hundreds of small kernels, which the processor would have to start one by one. Recorded, a step does the same
operations in the same order on the same numbers; what differs between steps (images, labels, and the keys of dropout's
draws) is copied to where the graph reads it.
"""

import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from alexnet.model.layers import Moment

WARM_UP = 3  # steps before the recording, in which libraries choose their kernels and find their memory

Step = Callable[[Tensor, Tensor, Moment | None, float], tuple[Tensor, Tensor]]


class RecordedStep:
    """A step (images, labels, moment, share) -> (loss, logits), recorded for the first kind of batch that is seen often.

    Batches of other sizes, such as the last one of an epoch, are stepped one operation after the other.
    """

    def __init__(self) -> None:
        self.keys: dict[str, Tensor] = {}  # of dropout's draws, where the graph reads them
        self.possible = True
        self.forget()

    def forget(self) -> None:
        """Record anew: what was recorded had numbers in it, such as rates, that are others now."""
        self.graph: torch.cuda.CUDAGraph | None = None
        self.seen: Counter[tuple] = Counter()

    def __call__(
        self, step: Step, images_NCHW: Tensor, labels_N: Tensor, at: Moment | None, share: float
    ) -> tuple[Tensor, Tensor]:
        """Do `step`, the same one in all calls, or start what was recorded of it."""
        kind = images_NCHW.shape, images_NCHW.stride(), at.first_image if at else 0, share
        at = self._held(at)
        if self.graph is None and self.possible and self.seen[kind] >= WARM_UP:
            self._record(step, images_NCHW, labels_N, at, share)
            self.kind = kind
        if self.graph is None or kind != self.kind:
            self.seen[kind] += 1
            return self._beside(step, images_NCHW, labels_N, at, share)
        self.images_NCHW.copy_(images_NCHW)
        self.labels_N.copy_(labels_N)
        self.graph.replay()
        return self.loss.clone(), self.logits_NK.clone()

    def _beside(
        self, step: Step, images_NCHW: Tensor, labels_N: Tensor, at: Moment | None, share: float
    ) -> tuple[Tensor, Tensor]:
        """Step in a stream of its own, as a graph is recorded, so that libraries have their memory for that."""
        here, beside = torch.cuda.current_stream(), torch.cuda.Stream()
        beside.wait_stream(here)
        with torch.cuda.stream(beside):
            found = step(images_NCHW, labels_N, at, share)
        here.wait_stream(beside)
        for tensor in found:
            tensor.record_stream(here)
        return found

    def _record(self, step: Step, images_NCHW: Tensor, labels_N: Tensor, at: Moment | None, share: float) -> None:
        self.images_NCHW, self.labels_N = images_NCHW.clone(), labels_N.clone()
        graph = torch.cuda.CUDAGraph()
        try:
            # Why of this thread only: another one makes the next batch meanwhile.
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                self.loss, self.logits_NK = step(self.images_NCHW, self.labels_N, at, share)
            self.graph = graph
        except RuntimeError as error:
            self.possible = False
            print(f"steps are not recorded, and start more slowly: {str(error).splitlines()[0]}", file=sys.stderr)

    def _held(self, at: Moment | None) -> Moment | None:
        """Return the same moment, whose keys lie where the graph reads them."""
        if at is None:
            return None
        for purpose, key in self.keys.items():
            key.copy_(at.key(purpose, key.device))
        return replace(at, keys=self.keys)
