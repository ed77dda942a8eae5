"""The training loop (section 5), readable from top to bottom.

A training is a function of its config and its prepared set. Stopped at any moment, by any means, and started again, it
ends with the same weights and metrics to the bit (same kind of processor, same number of threads).
"""

import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from alexnet.config import RunConfig, to_dict
from alexnet.model.cifar import build_cifar_net
from alexnet.preprocessing.batches import Batches
from alexnet.preprocessing.store import PreparedSet
from alexnet.training import checkpoint
from alexnet.training.evaluate import count_errors, num_wrong
from alexnet.training.optimiser import build_optimiser
from alexnet.training.precision import autocast
from alexnet.training.process import StopRequests

EVALUATION_BATCH = 250
EXPLODED = 100.0  # a mean loss of an epoch that is so many times ln K does not come back
STUCK_EPOCHS, STUCK_MARGIN = 3, 0.01  # a loss this close (nats) to ln K for so many epochs is on the plateau


@dataclass(frozen=True)
class Outcome:
    """How a call of `train` ended.

    `kind` is "reached" (the error to stop at), "epochs" (all of them), "diverged", "limit" (the caller's) or "stopped" (by
    a signal); `warning` names a divergence or a plateau with its usual cause.
    """

    kind: str
    warning: str | None = None


class Learner:
    """A net with its initial weights, its optimiser, and one step of training."""

    def __init__(self, config: RunConfig, precision: str = "fp32") -> None:
        self.precision = precision
        self.net = build_cifar_net(config.net, config.seed)
        self.optimiser = build_optimiser(self.net, config.optimiser)

    def step(self, images_NCHW: Tensor, labels_N: Tensor) -> tuple[Tensor, Tensor]:
        """Move the weights once; return the mean loss (nats) and the logits (N, K) of the batch before the move."""
        with autocast(self.precision):
            logits_NK = self.net(images_NCHW)
        loss = F.cross_entropy(logits_NK.float(), labels_N)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        return loss.detach(), logits_NK.detach()


class Training(Learner):
    """One training in one folder: a learner, its data, and where it stands."""

    def __init__(self, config: RunConfig, data: PreparedSet, folder: Path, precision: str = "fp32") -> None:
        super().__init__(config, precision)
        self.config, self.folder = config, folder
        self.train_batches, self.test_batches = Batches(data, "train"), Batches(data, "test")
        self.progress = checkpoint.load(folder, to_dict(config), self.net, self.optimiser)
        self.steps_per_epoch = self.train_batches.steps_per_epoch(config.optimiser.batch_size)

    def run_epoch(self, on_step: Callable[[], bool]) -> bool:
        """Do the steps of the epoch that are left; False when `on_step` asked to stop or the loss is no longer a number."""
        at, size = self.progress, self.config.optimiser.batch_size
        for images, labels in self.train_batches.epoch(self.config.seed, at.epoch, size, at.step):
            loss, logits = self.step(images, labels)
            at.loss_sum += loss.item() * len(labels)
            at.wrong += num_wrong(logits, labels)
            at.step += 1
            at.images_seen += len(labels)
            if not math.isfinite(at.loss_sum):
                at.diverged = f"is no longer a number from epoch {at.epoch + 1}, step {at.step} on"
                return False
            if not on_step():
                return False
        return True

    def close_epoch(self, first: bool = False) -> None:
        """Measure both errors with the weights as they are and add the epoch's line to the metrics."""
        at, seen = self.progress, len(self.train_batches)
        line: dict[str, Any] = {"epoch": 0 if first else at.epoch + 1, "images_seen": at.images_seen}
        for split, batches in (("train", self.train_batches), ("test", self.test_batches)):
            counted = count_errors(self.net, batches.in_order(EVALUATION_BATCH), self.precision)
            line[f"{split}_error"] = counted.rate
        line["loss"] = None if first else at.loss_sum / seen
        line["running_error"] = None if first else at.wrong / seen
        at.metrics.append(line)
        if not first and line["loss"] > EXPLODED * math.log(self.config.net.num_classes):
            at.diverged = f"exploded to {line['loss']:.3g} in epoch {line['epoch']}"
        if not first:
            at.epoch, at.step, at.loss_sum, at.wrong = at.epoch + 1, 0, 0.0, 0
        self.save()

    def save(self) -> None:
        """Write a checkpoint of this moment."""
        checkpoint.save(self.folder, to_dict(self.config), self.progress, self.net, self.optimiser)

    def outcome(self, epoch_limit: int | None) -> Outcome | None:
        """Return how the training has ended, or None while it has not."""
        at, config = self.progress, self.config
        if at.diverged:
            cause = f"the usual cause is a rate that is too high (here {config.optimiser.rate:g})"
            return Outcome("diverged", f"The loss {at.diverged}: {cause}.")
        error = at.metrics[-1]["train_error"]
        if config.stop_at_train_error is not None and error <= config.stop_at_train_error:
            return Outcome("reached", self.plateau())
        if at.epoch >= config.epochs:
            return Outcome("epochs", self.plateau())
        if epoch_limit is not None and at.epoch >= epoch_limit:
            return Outcome("limit", self.plateau())
        return None

    def plateau(self) -> str | None:
        """Return a warning when the last epochs' losses all lie at ln K, that is, nothing has been learned."""
        chance = math.log(self.config.net.num_classes)
        losses = [line["loss"] for line in self.progress.metrics[1:]][-STUCK_EPOCHS:]
        if len(losses) < STUCK_EPOCHS or any(abs(loss - chance) > STUCK_MARGIN for loss in losses):
            return None
        return (
            f"The loss has stayed at ln {self.config.net.num_classes} = {chance:.3f} for {STUCK_EPOCHS} epochs: the usual "
            "causes are a rate too low to leave the plateau, one so high that every unit died, or inputs that are not "
            "raw 0-255 pixels minus the mean."
        )


def train(
    config: RunConfig,
    data: PreparedSet,
    folder: Path,
    *,
    precision: str = "fp32",
    epoch_limit: int | None = None,
    on_epoch: Callable[[list[dict[str, Any]], float], None] = lambda metrics, seconds: None,
    checkpoint_seconds: float = 60.0,
    bar: bool | None = None,
) -> tuple[Training, Outcome]:
    """Train `config` on `data`, from the checkpoint in `folder` if there is one, and leave a checkpoint there.

    `on_epoch(metrics, seconds)` is called after each epoch with one dictionary for every epoch since the beginning and
    the time this one took. `bar` shows a progress bar; None means only on a terminal. A signal to stop (Ctrl-C) is obeyed
    after the step at hand. Raises UserError when the checkpoint belongs to another config. Paper 5.
    """
    folder.mkdir(parents=True, exist_ok=True)
    training = Training(config, data, folder, precision)
    with StopRequests() as stop, _progress_bar(training, bar) as shown:
        if not training.progress.metrics:
            training.close_epoch(first=True)
            on_epoch(training.progress.metrics, 0.0)
        last_saved = time.monotonic()

        def on_step() -> bool:
            nonlocal last_saved
            shown.update()
            if time.monotonic() - last_saved > checkpoint_seconds:
                training.save()
                last_saved = time.monotonic()
            return not stop.requested

        while (outcome := training.outcome(epoch_limit)) is None:
            started = time.perf_counter()
            if training.run_epoch(on_step):
                training.close_epoch()
                last_saved = time.monotonic()
                on_epoch(training.progress.metrics, time.perf_counter() - started)
                shown.set_postfix_str(f"train error {training.progress.metrics[-1]['train_error']:.1%}")
            else:
                training.save()
            if stop.requested:
                outcome = training.outcome(epoch_limit) or Outcome("stopped")
                break
    return training, outcome


def _progress_bar(training: Training, bar: bool | None) -> tqdm:
    at = training.progress
    return tqdm(
        total=training.config.epochs * training.steps_per_epoch,
        initial=at.epoch * training.steps_per_epoch + at.step,
        desc=training.config.name,
        unit="batch",
        leave=False,
        disable=None if bar is None else not bar,
        mininterval=0.5 if sys.stderr.isatty() else 60.0,
    )
