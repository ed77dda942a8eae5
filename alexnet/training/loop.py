"""The training loop (section 5), readable from top to bottom.

A training is a function of its config and its prepared set. Stopped at any moment, by any means, and started again, it
ends with the same weights and metrics to the bit (same kind of processor, same number of threads).
"""

import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor
from tqdm import tqdm

from alexnet.config import ColumnNet, RunConfig, to_dict
from alexnet.model.layers import Moment
from alexnet.preprocessing.batches import rows_of
from alexnet.preprocessing.store import PreparedSet
from alexnet.training import checkpoint
from alexnet.training.crew import Crew
from alexnet.training.evaluate import num_wrong
from alexnet.training.learner import Learner, to_device
from alexnet.training.measure import batches_of, errors_of_epoch, errors_of_ten_views, validation_split
from alexnet.training.optimiser import Rates, rates_of
from alexnet.training.process import StopRequests

Batch = tuple[Tensor, Tensor]
OnEpoch = Callable[[list[dict[str, Any]], dict[str, float]], None]
EXPLODED = 100.0  # a mean loss of an epoch that is so many times ln K does not come back
STUCK_EPOCHS, STUCK_MARGIN = 3, 0.01  # a loss this close (nats) to ln K for so many epochs is on the plateau


@dataclass(frozen=True)
class Outcome:
    """How a call of `train` ended.

    `kind` is "reached" (the error to stop at), "epochs" (all of them), "settled" (the schedule has no rate left),
    "diverged", "limit" (the caller's) or "stopped" (by a signal); `warning` names a divergence or a plateau with its usual
    cause.
    """

    kind: str
    warning: str | None = None


class Training(Learner):
    """One training in one folder: a learner, its data, and where it stands."""

    def __init__(
        self, config: RunConfig, data: PreparedSet, folder: Path, precision: str = "fp32", crew: Crew | None = None
    ) -> None:
        super().__init__(config, precision, crew)
        self.config, self.folder = config, folder
        self.validation = validation_split(data)
        self.sets = {split: batches_of(config, data, split, self.crew.device) for split in ("train", self.validation)}
        self.progress = checkpoint.load(folder, to_dict(config), self.restore)
        self.steps_per_epoch = self.sets["train"].steps_per_epoch(config.optimiser.batch_size)
        self.waited = self.stepped = 0.0  # seconds of the epoch, here, spent waiting for images and moving weights
        self.began_at = self.progress.images_seen  # when this process took up the epoch

    @property
    def rates(self) -> Rates | None:
        """The rates of the epoch at hand, or None when the schedule has ended."""
        finished = self.progress.metrics[1:]
        return rates_of(self.config.schedule, self.config.epochs, [line[f"{self.validation}_error"] for line in finished])

    def run_epoch(self, on_step: Callable[[], bool]) -> bool:
        """Do the steps of the epoch that are left; False when `on_step` asked to stop or the loss is no longer a number."""
        at, config, rates = self.progress, self.config, self.rates
        assert rates is not None
        self.set_rates(rates)
        size, num_train = config.optimiser.batch_size, len(self.sets["train"])
        batches = self.sets["train"].epoch(config.seed, at.epoch, size, at.step, rates.colour_noise, self.crew.part)
        for batch in self._timed(batches):
            total = min(size, num_train - at.step * size)
            moment = Moment(config.seed, at.epoch, at.step, rows_of(total, self.crew.part).start)
            images, labels = to_device(batch, self.crew.device)
            loss, logits = self.step(images, labels, moment, len(labels) / total)
            # Why: a replica without a row of a small last batch has no mean loss.
            loss_here = loss.item() * len(labels) if len(labels) else 0.0
            counted = self.crew.total([loss_here, num_wrong(logits, labels)])
            at.loss_sum, at.wrong = at.loss_sum + counted[0], at.wrong + round(counted[1])
            at.step, at.images_seen = at.step + 1, at.images_seen + total
            if not math.isfinite(at.loss_sum):
                at.diverged = f"is no longer a number from epoch {at.epoch + 1}, step {at.step} on"
                return False
            if not on_step():
                return False
        return True

    def _timed(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Yield the batches, adding up the seconds spent waiting for them and using them."""
        self.waited = self.stepped = 0.0
        self.began_at = self.progress.images_seen
        before = time.perf_counter()
        for batch in batches:
            got = time.perf_counter()
            self.waited += got - before
            yield batch
            before = time.perf_counter()
            self.stepped += before - got

    def close_epoch(self, first: bool = False) -> None:
        """Measure the errors with the weights as they are and add the epoch's line to the metrics."""
        at, seen = self.progress, len(self.sets["train"])
        line: dict[str, Any] = {"epoch": 0 if first else at.epoch + 1, "images_seen": at.images_seen}
        line |= errors_of_epoch(self, self.config, self.sets)
        line["loss"] = None if first else at.loss_sum / seen
        line["running_error"] = None if first else at.wrong / seen
        at.metrics.append(line)
        if not first and line["loss"] > EXPLODED * math.log(self.config.net.num_classes):
            at.diverged = f"exploded to {line['loss']:.3g} in epoch {line['epoch']}"
        if not first:
            at.epoch, at.step, at.loss_sum, at.wrong = at.epoch + 1, 0, 0.0, 0
        self.save()

    def close(self) -> None:
        """Add to the last line what is measured once, at the end: the errors over ten views of photographs."""
        ten = f"{self.validation}_error_ten_views"
        if isinstance(self.config.net, ColumnNet) and not self.progress.diverged and ten not in self.progress.metrics[-1]:
            self.progress.metrics[-1] |= errors_of_ten_views(self, self.sets, self.validation)
            self.save()

    def save(self) -> None:
        """Write a checkpoint of this moment. Every process of the crew must call; one of them writes."""
        weights, velocities = self.weights(), self.velocities()
        if self.crew.writes:
            checkpoint.save(self.folder, to_dict(self.config), self.progress, weights, velocities)

    def outcome(self, epoch_limit: int | None) -> Outcome | None:
        """Return how the training has ended, or None while it has not."""
        at, config = self.progress, self.config
        if at.diverged:
            cause = f"the usual cause is a rate that is too high (here {config.optimiser.rate:g})"
            return Outcome("diverged", f"The loss {at.diverged}: {cause}.")
        if config.stop_at_train_error is not None and at.metrics[-1]["train_error"] <= config.stop_at_train_error:
            return Outcome("reached", self.plateau())
        if at.epoch >= config.epochs:
            return Outcome("epochs", self.plateau())
        if self.rates is None:
            return Outcome("settled", self.plateau())
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
    crew: Crew | None = None,
    epoch_limit: int | None = None,
    on_epoch: OnEpoch = lambda metrics, times: None,
    checkpoint_seconds: float = 60.0,
    bar: bool | None = None,
) -> tuple[Training, Outcome]:
    """Train `config` on `data`, from the checkpoint in `folder` if there is one, and leave a checkpoint there.

    `on_epoch(metrics, times)` is called after each epoch with one dictionary for every epoch since the beginning and what
    this one took (empty for the errors before the first). `bar` shows a progress bar; None means only on a terminal. A
    signal to stop (Ctrl-C) is obeyed after the step at hand. Every process of a `crew` calls this with the same arguments.
    Raises UserError when the checkpoint belongs to another config. Paper 5.
    """
    folder.mkdir(parents=True, exist_ok=True)
    training = Training(config, data, folder, precision, crew)
    crew = training.crew
    with StopRequests() as stop, _progress_bar(training, bar) as shown:
        if not training.progress.metrics:
            training.close_epoch(first=True)
            on_epoch(training.progress.metrics, {})
        last_saved, stopping = time.monotonic(), False

        def on_step() -> bool:
            nonlocal last_saved, stopping
            shown.update()
            due = crew.writes and time.monotonic() - last_saved > checkpoint_seconds
            stopping, saving = crew.any(stop.requested or crew.orphaned, due)
            if saving and not stopping:
                training.save()
                last_saved = time.monotonic()
            return not stopping

        while (outcome := training.outcome(epoch_limit)) is None:
            started = time.perf_counter()
            if training.run_epoch(on_step):
                training.close_epoch()
                last_saved = time.monotonic()
                on_epoch(training.progress.metrics, _times(training, time.perf_counter() - started))
                shown.set_postfix_str(_newest_error(training))
                (stopping,) = crew.any(stop.requested or crew.orphaned)
            else:
                training.save()
            if stopping:
                outcome = training.outcome(epoch_limit) or Outcome("stopped")
                break
        if outcome.kind not in ("stopped", "limit"):
            training.close()
    return training, outcome


def _times(training: Training, seconds: float) -> dict[str, float]:
    """Return what the epoch took here: seconds in all, images/s of its steps, and their part spent waiting for images."""
    images = training.progress.images_seen - training.began_at
    inside = training.waited + training.stepped
    return {
        "seconds": round(seconds, 2),
        "images_per_second": round(images / inside, 1) if inside else 0.0,
        "waiting": round(training.waited / inside, 4) if inside else 0.0,
    }


def _newest_error(training: Training) -> str:
    line = training.progress.metrics[-1]
    split = "train" if "train_error" in line else training.validation
    return f"{split} error {line[f'{split}_error']:.1%}"


def _progress_bar(training: Training, bar: bool | None) -> tqdm:
    at = training.progress
    shown = training.crew.writes and bar is not False
    return tqdm(
        total=training.config.epochs * training.steps_per_epoch,
        initial=at.epoch * training.steps_per_epoch + at.step,
        desc=training.config.name,
        unit="batch",
        leave=False,
        disable=(None if bar is None else False) if shown else True,
        mininterval=0.5 if sys.stderr.isatty() else 60.0,
    )
