"""The training loop (section 5), readable from top to bottom.

A training is a function of its config and its prepared set. Stopped at any moment, by any means, and started again, it
ends with the same weights and metrics bit for bit (same kind of CPU, same number of threads).
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

from alexnet.config import RunConfig, to_dict
from alexnet.model import StepKey
from alexnet.preprocessing import PreparedSet
from alexnet.preprocessing.loader import rows_of
from alexnet.training import checkpoint
from alexnet.training.checkpoint import Checkpoint, Progress, State
from alexnet.training.distributed import Group, StopRequests
from alexnet.training.evaluate import batches_for, count_batches, num_wrong, views_of_training, watched_split
from alexnet.training.optimizer import Rates, rates_of
from alexnet.training.step import Learner, to_device

Batch = tuple[Tensor, Tensor]
OnEpoch = Callable[[Progress, dict[str, float]], None]
EXPLODED = 100.0  # a mean loss of an epoch that is so many times ln K does not come back
STUCK_EPOCHS, STUCK_MARGIN = 3, 0.01  # a loss this close (nats) to ln K for so many epochs is on the plateau
MANY_EPOCHS, WATCH_EVERY = 100, 10  # a training of more than so many epochs watches its errors every 10th only


@dataclass(frozen=True)
class Outcome:
    """How a call of `train` ended.

    `kind` is "reached" (the error to stop at), "epochs" (all of them), "settled" (the schedule has no rate left),
    "diverged", "limit" (the caller's) or "stopped" (on request); `warning` names a divergence or a plateau with its usual
    cause.
    """

    kind: str
    warning: str | None = None


class Training(Learner):
    """One training in one folder: a learner, its data, and where it stands."""

    def __init__(
        self,
        config: RunConfig,
        data: PreparedSet,
        folder: Path,
        precision: str = "fp32",
        group: Group | None = None,
        initial: State | None = None,
        kept: dict[str, Any] | None = None,
    ) -> None:
        group, self.watched = group or Group(), watched_split(data)
        self.sets = {split: batches_for(config, data, split, group.device) for split in ("train", self.watched)}
        super().__init__(config, precision, group)
        self.config, self.folder = config, folder
        self.steps_per_epoch = self.sets["train"].steps_per_epoch(config.optimiser.batch_size)
        found = checkpoint.read(folder)
        self.group.any(False)  # Why: the main rank must not write the next checkpoint before all have read this one.
        if found is not None:
            checkpoint.refuse_other_config(str(folder), found.config, to_dict(config))
            self.restore(found.weights, found.velocities)
        elif initial is not None:
            self.start_from(initial)
        self.progress, self.kept = (found.progress, found.kept) if found else (Progress(), kept or {})
        self.waited = self.stepped = 0.0  # seconds of the epoch, here, spent waiting for images and moving weights
        self.began_at = self.progress.images_seen  # when this process took up the epoch

    @property
    def rates(self) -> Rates | None:
        """The rates of the epoch at hand, or None when the schedule has ended."""
        errors = [row["wrong"] / row["total"] for row in self.counted(self.watched) if row["epoch"] > 0]
        return rates_of(self.config.schedule, self.config.epochs, self.progress.epoch, errors)

    def counted(self, split: str) -> list[dict[str, Any]]:
        """Return the rows of the top-1 errors of a split, in the order of the epochs, without the running count."""
        views = views_of_training(self.config)
        return [row for row in self.progress.metrics if (row["split"], row["views"], row["k"]) == (split, views, 1)]

    def run_epoch(self, on_step: Callable[[], bool]) -> bool:
        """Do the steps of the epoch that are left; False when `on_step` asked to stop or the loss is no longer a number."""
        at, config, rates = self.progress, self.config, self.rates
        assert rates is not None
        self.set_rates(rates)
        size, num_train = config.optimiser.batch_size, len(self.sets["train"])
        batches = self.sets["train"].epoch(config.seed, at.epoch, size, at.step, rates.colour_noise, self.group.part)
        for batch in self._timed(batches):
            total = min(size, num_train - at.step * size)
            key = StepKey(config.seed, at.epoch, at.step, rows_of(total, self.group.part).start)
            images, labels = to_device(batch, self.group.device)
            loss, logits = self.step(images, labels, key, len(labels) / total)
            counted = self.group.total([loss.item() * len(labels), num_wrong(logits, labels)])
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
        """Count the errors with the weights as they are and add the epoch to metrics and history."""
        at, total = self.progress, len(self.sets["train"])
        epoch, loss = (0, None) if first else (at.epoch + 1, at.loss_sum / total)
        at.metrics += [{"epoch": epoch, **row} for row in self._count(epoch)]
        at.history.append({"epoch": epoch, "images_seen": at.images_seen, "loss": loss})
        if loss is not None:
            row = {"epoch": epoch, "split": "train", "views": "as trained", "k": 1, "wrong": at.wrong, "total": total}
            at.metrics.append(row)
            if loss > EXPLODED * math.log(self.config.net.num_classes):
                at.diverged = f"exploded to {loss:.3g} in epoch {epoch}"
            at.epoch, at.step, at.loss_sum, at.wrong = epoch, 0, 0.0, 0
        self.save()

    def _count(self, epoch: int) -> list[dict[str, Any]]:
        """Return the counts that belong to an epoch: of the watched split, and of the training images if they decide."""
        config, decides = self.config, self.config.stop_at_train_error is not None
        is_plateau = config.schedule is not None and config.schedule.kind == "plateau"
        every = WATCH_EVERY if config.epochs > MANY_EPOCHS and not decides and not is_plateau else 1
        if epoch % every and epoch < config.epochs:
            return []
        splits, views = ("train", self.watched) if decides else (self.watched,), views_of_training(config)
        return [row for split in splits for row in count_batches(self, self.sets[split], split, views)]

    def save(self) -> None:
        """Write a checkpoint of this moment. Every rank of the group must call; the main one writes."""
        weights, velocities = self.weights(), self.velocities()
        if self.group.is_main:
            at = Checkpoint(to_dict(self.config), self.progress, weights, velocities, self.kept)
            checkpoint.save(self.folder, at)

    def outcome(self, epoch_limit: int | None) -> Outcome | None:
        """Return how the training has ended, or None while it has not."""
        at, config, warning = self.progress, self.config, self.warning()
        if at.diverged:
            return Outcome("diverged", warning)
        if config.stop_at_train_error is not None:
            newest = self.counted("train")[-1]
            if newest["wrong"] <= config.stop_at_train_error * newest["total"]:
                return Outcome("reached", warning)
        if at.epoch >= config.epochs:
            return Outcome("epochs", warning)
        if self.rates is None:
            return Outcome("settled", warning)
        if epoch_limit is not None and at.epoch >= epoch_limit:
            return Outcome("limit", warning)
        return None

    def warning(self) -> str | None:
        """Return what is wrong with a training that has diverged or, in its last epochs, learned nothing."""
        if self.progress.diverged:
            cause = f"the usual cause is a learning rate that is too high (here {self.config.optimiser.rate:g})"
            return f"The loss {self.progress.diverged}: {cause}."
        chance = math.log(self.config.net.num_classes)
        losses = [line["loss"] for line in self.progress.history[1:]][-STUCK_EPOCHS:]
        if len(losses) < STUCK_EPOCHS or any(abs(loss - chance) > STUCK_MARGIN for loss in losses):
            return None
        return (
            f"The loss has stayed at ln {self.config.net.num_classes} = {chance:.3f} for {STUCK_EPOCHS} epochs: the usual "
            "causes are a learning rate too low to leave the plateau, one so high that every unit died, or inputs that are "
            "not raw 0-255 pixels minus the mean."
        )

    def times(self, seconds: float) -> dict[str, float]:
        """Return what the epoch took here: seconds in all, images/s of its steps, and the part spent waiting for them."""
        images, inside = self.progress.images_seen - self.began_at, self.waited + self.stepped
        return {
            "seconds": round(seconds, 2),
            "images_per_second": round(images / inside, 1) if inside else 0.0,
            "waiting": round(self.waited / inside, 4) if inside else 0.0,
        }


def train(
    config: RunConfig,
    data: PreparedSet,
    folder: Path,
    *,
    precision: str = "fp32",
    group: Group | None = None,
    epoch_limit: int | None = None,
    on_epoch: OnEpoch = lambda progress, times: None,
    on_warning: Callable[[str], None] | None = None,
    checkpoint_seconds: float = 60.0,
    bar: bool | None = None,
    initial: State | None = None,
    kept: dict[str, Any] | None = None,
    stop: StopRequests | None = None,
) -> tuple[Training, Outcome]:
    """Train `config` on `data`, from the checkpoint in `folder` if there is one, and leave a checkpoint there.

    `on_epoch(progress, times)` is called after each epoch with all that is known since the beginning and what this one took
    (empty for the errors before the first). `on_warning(line)` is told of divergence, or of a loss that stays at ln K, when
    it is first seen; by default the line is printed. Progress goes to stderr, as a bar on a terminal and as a line for each
    epoch elsewhere, unless `bar` is False. `initial` is the plain state that some layers begin with, `kept` what the
    checkpoints shall carry for whoever resumes. A request to `stop`, by a signal or the caller, is obeyed after the step at
    hand. Every rank of a `group` calls this with the same arguments. Raises UserError when the checkpoint belongs to another
    config. Paper 5.
    """
    folder.mkdir(parents=True, exist_ok=True)
    training = Training(config, data, folder, precision, group, initial, kept)
    group, warned = training.group, training.warning()
    with stop or StopRequests() as stop, Shown(training, bar) as shown:
        if not training.progress.history:
            training.close_epoch(first=True)
            on_epoch(training.progress, {})
        last_saved, stopping = time.monotonic(), False

        def on_step() -> bool:
            nonlocal last_saved, stopping
            shown.step()
            due = group.is_main and time.monotonic() - last_saved > checkpoint_seconds
            stopping, saving = group.any(stop.requested or group.orphaned, due)
            if saving and not stopping:
                training.save()
                last_saved = time.monotonic()
            return not stopping

        while (outcome := training.outcome(epoch_limit)) is None:
            started = time.perf_counter()
            if training.run_epoch(on_step):
                training.close_epoch()
                last_saved = time.monotonic()
                on_epoch(training.progress, training.times(time.perf_counter() - started))
                shown.epoch()
                (stopping,) = group.any(stop.requested or group.orphaned)
            else:
                training.save()
            if (warning := training.warning()) and not warned and group.is_main:
                (on_warning or shown.warn)(warned := warning)
            if stopping:
                outcome = training.outcome(epoch_limit) or Outcome("stopped")
                break
    return training, outcome


class Shown:
    """What stderr shows of a training: a bar on a terminal, a line for each epoch elsewhere."""

    def __init__(self, training: Training, bar: bool | None) -> None:
        self.training, at = training, training.progress
        self.on = training.group.is_main and bar is not False
        self.name = "/".join(training.folder.parts[-2:])
        done = at.epoch * training.steps_per_epoch + at.step
        total = training.config.epochs * training.steps_per_epoch
        hidden = not (self.on and sys.stderr.isatty())
        self.bar = tqdm(
            total=total, initial=done, desc=self.name, unit="batch", leave=False, disable=hidden, mininterval=0.5
        )
        self.began, self.steps = time.monotonic(), 0

    def __enter__(self) -> "Shown":
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.close()

    def step(self) -> None:
        """Show one step more."""
        self.steps += 1
        self.bar.update()

    def epoch(self) -> None:
        """Show the newest errors and the time left."""
        at, config = self.training.progress, self.training.config
        newest = self.training.counted("train" if config.stop_at_train_error is not None else self.training.watched)[-1]
        error = f"{newest['split']} error {newest['wrong'] / newest['total']:.1%}"
        self.bar.set_postfix_str(error)
        if self.on and self.bar.disable:
            seconds_per_step = (time.monotonic() - self.began) / max(1, self.steps)
            lasts = tqdm.format_interval((config.epochs - at.epoch) * self.training.steps_per_epoch * seconds_per_step)
            line = f"epoch {at.epoch} of {config.epochs}, loss {at.history[-1]['loss']:.4f}, {error}, at most {lasts} left"
            print(f"{self.name}: {line}", file=sys.stderr, flush=True)

    def warn(self, line: str) -> None:
        """Print a line that does not disturb the bar."""
        tqdm.write(f"{self.name}: {line}", file=sys.stderr)
