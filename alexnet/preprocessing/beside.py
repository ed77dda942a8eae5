"""Making the next batch on a CUDA device while the net is trained on this one."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

Made = TypeVar("Made")


class Beside:
    """A stream of a device's work beside the one that trains; on the processor, where threads do, nothing of its own."""

    def __init__(self, device: torch.device | None) -> None:
        self.stream = torch.cuda.Stream(device) if device is not None and device.type == "cuda" else None

    def run(self, work: Callable[..., Made], *arguments: object) -> Made:
        """Return what `work(*arguments)` makes, in this stream."""
        if self.stream is None:
            return work(*arguments)
        with torch.cuda.stream(self.stream):
            return work(*arguments)

    def hand_over(self, made: Sequence[Tensor]) -> None:
        """Let the stream that trains have what was made: it waits for it, and its memory is not used again before."""
        if self.stream is None:
            return
        trains = torch.cuda.current_stream(self.stream.device)
        trains.wait_stream(self.stream)
        for tensor in made:
            if tensor.is_cuda:
                tensor.record_stream(trains)
