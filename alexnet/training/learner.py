"""A net with its optimiser and one step of training, the same for one process and for a crew of them (section 5)."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexnet import compiled
from alexnet.config import RunConfig
from alexnet.model.alexnet import AlexNet, load_plain_state
from alexnet.model.layers import Moment
from alexnet.model.nets import build_net
from alexnet.training.crew import Crew
from alexnet.training.optimiser import Rates, build_optimiser, set_rates
from alexnet.training.precision import autocast, settle_cuda
from alexnet.training.recorded import RecordedStep


class Learner:
    """A net with its initial weights, its optimiser, and one step of training."""

    def __init__(self, config: RunConfig, precision: str = "fp32", crew: Crew | None = None) -> None:
        self.precision, self.crew = precision, crew or Crew()
        settle_cuda(tf32=precision == "tf32")
        self.net = build_net(config.net, config.seed, **self.crew.layout(config.net)).to(self.crew.device)
        self.optimiser = build_optimiser(self.net, config.optimiser)
        self.recorded = RecordedStep()
        self._given: Rates | None = None

    def set_rates(self, rates: Rates) -> None:
        """Give every group of parameters its rate."""
        if rates != self._given:
            self.recorded.forget()
            self._given = rates
        set_rates(self.optimiser, rates)

    def step(
        self, images_NCHW: Tensor, labels_N: Tensor, at: Moment | None = None, share: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """Move the weights once; return the mean loss (nats) and the logits (N, K) of the images here before the move.

        `at` is the moment of a net with dropout. With replicas, the images are this one's rows, the part `share` of a batch.
        """
        if not self._records():
            return self._step(images_NCHW, labels_N, at, share)
        return self.recorded(self._step, images_NCHW, labels_N, at, share)

    def _records(self) -> bool:
        """Return whether steps are recorded: on one CUDA device, if masks need not come from the processor."""
        alone = self.crew.device.type == "cuda" and self.crew.num_ranks == 1
        return alone and (compiled.is_on() or not isinstance(self.net, AlexNet))

    def _step(self, images_NCHW: Tensor, labels_N: Tensor, at: Moment | None, share: float) -> tuple[Tensor, Tensor]:
        with autocast(self.precision, self.crew.device.type):
            logits_NK = self.net(images_NCHW, at) if isinstance(self.net, AlexNet) else self.net(images_NCHW)
        loss = F.cross_entropy(logits_NK.to(torch.promote_types(logits_NK.dtype, torch.float32)), labels_N)
        self.optimiser.zero_grad()
        self.crew.backward(loss, share, self.net)
        self.optimiser.step()
        return loss.detach(), logits_NK.detach()

    def weights(self) -> dict[str, Tensor]:
        """Return all weights under names that do not depend on the layout of the crew, whose every process must call."""
        return self._plain(Tensor.detach)

    def velocities(self) -> dict[str, Tensor]:
        """Return all velocities under the names of their weights; every process of the crew must call."""
        return self._plain(self._velocity)

    def restore(self, weights: dict[str, Tensor], velocities: dict[str, Tensor]) -> None:
        """Take over what `weights` and `velocities` gave, in any layout. Raises ValueError for another net's."""
        for into, state in ((Tensor.detach, weights), (self._velocity, velocities)):
            if isinstance(self.net, AlexNet):
                load_plain_state(self.net, state, into)
                continue
            for name, parameter in self.net.named_parameters():
                into(parameter).copy_(state[name])

    def _velocity(self, parameter: nn.Parameter) -> Tensor:
        return self.optimiser.state[parameter]["velocity"]

    def _plain(self, of: Callable[[nn.Parameter], Tensor]) -> dict[str, Tensor]:
        if isinstance(self.net, AlexNet):
            return self.crew.plain_state(self.net, of)
        return {name: of(parameter) for name, parameter in self.net.named_parameters()}


def to_device(batch: tuple[Tensor, Tensor], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return images and labels on `device`; nothing is copied where they are there already."""
    images, labels = batch
    return images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
