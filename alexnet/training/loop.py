"""The training loop (section 5), readable from top to bottom.

A training is a function of its config and its prepared set. Stopped at any moment, by any means, and started again, it
ends with the same weights and metrics bit for bit (same kind of CPU, same number of threads).
"""

import math
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from alexnet.config import RunConfig, UserError, differing_fields, to_dict
from alexnet.files import Rows
from alexnet.model import StepKey
from alexnet.preprocessing import PreparedSet
from alexnet.preprocessing.loader import rows_of
from alexnet.training import checkpoint
from alexnet.training.checkpoint import Checkpoint, Progress, State
from alexnet.training.distributed import StopRequests
from alexnet.training.evaluate import batches_for, count_batches, num_wrong, views_of_training
from alexnet.training.optimizer import Rates, rates_of
from alexnet.training.step import Learner

EXPLODED = 100.0  # an epoch's loss whose mean is so many times ln K does not come back
HIGH, SOME_STEPS = 10.0, 20  # a mean loss so many times ln K is told of, in an epoch at hand after so many steps
STUCK_EPOCHS, STUCK_MARGIN = 3, 0.01  # a loss this close (nats) to ln K for so many epochs is on the plateau
MANY_EPOCHS, WATCH_EVERY = 100, 10  # a training of more than so many epochs watches its errors every 10th only


class Training(Learner):
    """One training in one folder, begun with some layers' plain state `initial`; checkpoints carry the dict `kept`."""

    def __init__(
        self, config: RunConfig, data: PreparedSet, folder: Path, initial: State | None = None, kept: Any = None, **how: Any
    ) -> None:
        super().__init__(config, **how)
        self.watched = next((split for split in ("val", "test") if split in data.splits), None)
        self.is_plateau = config.schedule is not None and config.schedule.kind == "plateau"
        if self.watched is None and self.is_plateau:
            raise UserError(f"{data.name} has neither val nor test, and a plateau schedule goes by their errors.")
        splits = filter(None, ("train", self.watched))
        self.sets = {split: batches_for(config, data, split, self.group.device) for split in splits}
        self.config, self.folder, self.name = config, folder, "/".join(folder.parts[-2:])
        self.chance = math.log(config.net.num_classes)  # nats, the loss of guessing
        found = checkpoint.read(folder)
        self.group.any(False)  # Why: the main rank must not write the next checkpoint before all have read this one.
        if found is not None:
            if fields := differing_fields(found.config, to_dict(config)):
                said = "; ".join(f"{name} ({old!r} recorded, {new!r} asked)" for name, old, new in fields)
                raise UserError(f"run {folder} was recorded under another config: {said}. Move its folder away.")
            self.restore(found.weights, found.velocities)
        elif initial is not None:
            self.net.load_plain_state(self.weights() | initial)
        self.progress, self.kept = (found.progress, found.kept) if found else (Progress(), kept or {})
        self.told = self.warning()

    @property
    def rates(self) -> Rates | None:
        """The rates of the epoch at hand, or None when the schedule has ended."""
        errors = [row["wrong"] / row["total"] for row in self.counted(self.watched) if row["epoch"] > 0]
        return rates_of(self.config.schedule, self.config.epochs, self.progress.epoch, errors)

    def counted(self, split: str | None) -> Rows:
        """Return the rows of the top-1 errors of a split, in the order of the epochs, without the running count."""
        views = views_of_training(self.config)
        return [row for row in self.progress.metrics if (row["split"], row["views"], row["k"]) == (split, views, 1)]

    def run_epoch(self) -> Iterator[None]:
        """Do the steps of the epoch that are left, until the loss diverges; yield after each."""
        at, config, rates, asked = self.progress, self.config, self.rates, time.perf_counter()
        self.began, self.began_at, self.waited = asked, at.images_seen, 0.0
        self.set_rates(rates)
        size, num_train = config.optimiser.batch_size, len(self.sets["train"])
        for batch in self.sets["train"].epoch(config.seed, at.epoch, size, at.step, rates.colour_noise, self.group.part):
            self.waited += time.perf_counter() - asked
            total = min(size, num_train - at.step * size)
            key = StepKey(config.seed, at.epoch, at.step, rows_of(total, self.group.part).start)
            images, labels = (tensor.to(self.group.device, non_blocking=True) for tensor in batch)
            loss, logits = self.step(images, labels, key, len(labels) / total)
            counted = self.group.total([loss.item() * len(labels), num_wrong(logits, labels)])
            at.loss_sum, at.wrong = at.loss_sum + counted[0], at.wrong + round(counted[1])
            at.step, at.images_seen = at.step + 1, at.images_seen + total
            if not at.loss_sum <= EXPLODED * self.chance * num_train:  # Why so: what is no number is not less, either
                where, is_number = f"epoch {at.epoch + 1}, step {at.step}", math.isfinite(at.loss_sum)
                at.diverged = f"exploded by {where}" if is_number else f"is no longer a number from {where} on"
                return
            yield
            asked = time.perf_counter()
        self.stepped = asked - self.began  # seconds

    def close_epoch(self, first: bool = False) -> None:
        """Count the errors with the weights as they are and add the epoch to metrics and history."""
        at, total = self.progress, len(self.sets["train"])
        epoch, loss = (0, None) if first else (at.epoch + 1, at.loss_sum / total)
        at.metrics += [{"epoch": epoch, **row} for row in self._count(epoch)]
        at.history.append({"epoch": epoch, "images_seen": at.images_seen, "loss": loss})
        if loss is not None:
            row = {"epoch": epoch, "split": "train", "views": "as trained", "k": 1, "wrong": at.wrong, "total": total}
            at.metrics.append(row)
            at.epoch, at.step, at.loss_sum, at.wrong = epoch, 0, 0.0, 0
        self.save()

    def _count(self, epoch: int) -> Rows:
        """Return the counts that belong to an epoch: of the watched split, and of the training images if they decide."""
        config, decides = self.config, self.config.stop_at_train_error is not None
        sparse = config.epochs > MANY_EPOCHS and not decides and not self.is_plateau
        if sparse and epoch % WATCH_EVERY and epoch < config.epochs:
            return []
        splits, views = [s for s in self.sets if s != "train" or decides], views_of_training(config)
        return [row for split in splits for row in count_batches(self, self.sets[split], split, views)]

    def save(self) -> None:
        """Write a checkpoint of this moment. Every rank of the group must call; the main one writes."""
        weights, velocities = self.weights(), self.velocities()
        if self.group.is_main:
            checkpoint.save(self.folder, Checkpoint(to_dict(self.config), self.progress, weights, velocities, self.kept))

    def outcome(self, epoch_limit: int | None) -> str | None:
        """Return how the training has ended, None while it has not; "settled": no rate is left, "limit": the caller's."""
        at, config = self.progress, self.config
        newest = self.counted("train")[-1] if config.stop_at_train_error is not None else None
        if at.diverged:
            return "diverged"
        if newest and newest["wrong"] <= config.stop_at_train_error * newest["total"]:
            return "reached"
        if at.epoch >= config.epochs:
            return "epochs"
        if self.rates is None:
            return "settled"
        return "limit" if epoch_limit is not None and at.epoch >= epoch_limit else None

    def warning(self) -> str | None:
        """Return what is wrong with a training that diverges, has diverged or, in its last epochs, learned nothing."""
        at, chance, guess = self.progress, self.chance, f"ln {self.config.net.num_classes}"
        losses = [line["loss"] for line in at.history[1:]][-STUCK_EPOCHS:]
        shown = min(at.step * self.config.optimiser.batch_size, len(self.sets["train"]))
        loss = at.loss_sum / shown if at.step >= SOME_STEPS else losses[-1] if losses else 0.0
        if at.diverged or loss > HIGH * chance:
            cause = f"the usual cause is a learning rate that is too high (here {self.config.optimiser.rate:g})"
            return f"The loss {at.diverged or f'is {loss:.3g}, {loss / chance:.0f} times {guess}'}: {cause}."
        if len(losses) < STUCK_EPOCHS or any(abs(loss - chance) > STUCK_MARGIN for loss in losses):
            return None
        stayed = f"The loss has stayed at {guess} = {chance:.3f} for {STUCK_EPOCHS} epochs"
        causes = "a learning rate too low to leave the plateau or so high that every unit died"
        return f"{stayed}: the usual causes are {causes}, or inputs that are not pixels minus the mean."

    def tell(self, shown: tqdm) -> None:
        """Say once, during the training, that something is wrong with it; that it has diverged in any case."""
        if (warning := self.warning()) and (not self.told or self.progress.diverged) and warning != self.told:
            self.told = warning
            if self.group.is_main:
                shown.write(f"{self.name}: {warning}", file=sys.stderr)

    def times(self) -> dict[str, float]:
        """Return what the epoch took here: seconds in all, images/s of its steps, and the part spent waiting for them."""
        seconds, images = time.perf_counter() - self.began, self.progress.images_seen - self.began_at
        stepped = self.stepped or math.inf  # a training stopped after the last step of an epoch has none left
        speed, waiting = round(images / stepped, 1), round(self.waited / stepped, 4)
        return {"seconds": round(seconds, 2), "images_per_second": speed, "waiting": waiting}

    def summary(self) -> str:
        """Say what the epoch came to, and the time left if the others take as long."""
        at, epochs, seconds = self.progress, self.config.epochs, time.perf_counter() - self.began
        left = (epochs - at.epoch) * seconds * len(self.sets["train"]) / max(1, at.images_seen - self.began_at)
        said = f"loss {at.history[-1]['loss']:.4f}"
        for newest in self.counted("train" if self.config.stop_at_train_error is not None else self.watched)[-1:]:
            said += f", {newest['split']} error {newest['wrong'] / newest['total']:.1%}"
        return f"epoch {at.epoch} of {epochs}, {said}, at most {tqdm.format_interval(left)} left"


def train(
    config: RunConfig,
    data: PreparedSet,
    folder: Path,
    *,
    epoch_limit: int | None = None,
    on_epoch: Callable[[Progress, dict[str, float]], None] = lambda progress, times: None,
    checkpoint_seconds: float = 60.0,
    bar: bool | None = None,
    stop: StopRequests | None = None,
    **how: Any,
) -> tuple[Training, str]:
    """Train `config` on `data`, from the checkpoint in `folder` if there is one, and leave a checkpoint there.

    `on_epoch(progress, times)` is called after each epoch with all that is known and what this one took (empty before the
    first). Progress goes to stderr, as a bar on a terminal or a line for each epoch, unless `bar` is False; divergence, or a
    loss that stays at ln K, is told always. `how` is for `Training`. A request to `stop` is obeyed after the step at hand.
    Every rank of a group calls this with the same arguments. Returns how it ended too, `Training.outcome` or
    "stopped". Raises UserError for a checkpoint of another config.
    """
    folder.mkdir(parents=True, exist_ok=True)
    training = Training(config, data, folder, **how)
    group = training.group
    with stop or StopRequests() as stop, _bar(training, bar) as shown:
        if not training.progress.history:
            training.close_epoch(first=True)
            on_epoch(training.progress, {})
        saved, stopping = time.monotonic(), False
        while not stopping and training.outcome(epoch_limit) is None:
            for _ in training.run_epoch():
                shown.update()
                training.tell(shown)
                due = group.is_main and time.monotonic() - saved > checkpoint_seconds
                stopping, due = group.any(stop.requested, due)
                if stopping:
                    break
                if due:
                    training.save()
                    saved = time.monotonic()
            if stopping or training.progress.diverged:
                training.save()
            else:
                training.close_epoch()
                saved = time.monotonic()
                on_epoch(training.progress, training.times())
                shown.set_postfix_str(training.summary())
                if shown.disable and group.is_main and bar is not False:
                    print(f"{training.name}: {training.summary()}", file=sys.stderr, flush=True)
                (stopping,) = group.any(stop.requested)
            training.tell(shown)
    return training, training.outcome(epoch_limit) or "stopped"


def _bar(training: Training, wanted: bool | None) -> tqdm:
    """Return the bar of a training; it is on where the main rank has a terminal."""
    at, steps = training.progress, -(-len(training.sets["train"]) // training.config.optimiser.batch_size)
    done, total = at.epoch * steps + at.step, training.config.epochs * steps
    hidden = wanted is False or not training.group.is_main or not sys.stderr.isatty()
    return tqdm(total=total, initial=done, desc=training.name, unit="batch", leave=False, disable=hidden)
