"""What is measured of a net in training: errors over whole splits, exact (section 6)."""

from typing import Any

import torch
from torch import Tensor

from alexnet.config import ColumnNet, RunConfig, UserError
from alexnet.model.nets import net_config
from alexnet.preprocessing.batches import Batches, CroppedBatches
from alexnet.preprocessing.store import PreparedSet
from alexnet.training.evaluate import CHUNK, Count, Errors, count_errors, count_errors_over_views
from alexnet.training.learner import Learner, to_device

EVALUATION_BATCH = 250  # images of CIFAR-10's size


def batches_of(config: RunConfig, data: PreparedSet, split: str, device: torch.device | None = None) -> Batches:
    """Return the batches of a split as the net of `config` sees them. Raises UserError when they do not fit it.

    Views of photographs are made on `device`; whole images are not moved.
    """
    if isinstance(config.net, ColumnNet):
        if config.augmentation is None:
            raise UserError("The two-column net sees views of photographs: add --augmentation source2012 (or paper).")
        side = net_config(config.net).image_side
        if (pixels := data.splits[split].images.shape[1]) < side:
            raise UserError(f"The images of {data.name} have {pixels} pixels a side, the net needs {side}. Change --data.")
        return CroppedBatches(data, split, config.augmentation, side, device)
    if config.augmentation is not None:
        raise UserError("The nets of Figure 1 are trained on whole images: leave out --augmentation.")
    return Batches(data, split)


def validation_split(data: PreparedSet) -> str:
    """Return the split whose errors are watched in training: `val` where there is one, else `test`."""
    return "val" if "val" in data.splits else "test"


def errors_of_epoch(learner: Learner, config: RunConfig, sets: dict[str, Batches]) -> dict[str, Any]:
    """Return the errors that belong in an epoch's line: of each split in `sets`, whose names they bear.

    Small images are counted over both splits; photographs over the validation split, in one view, top-1 and top-5.
    """
    if isinstance(config.net, ColumnNet):
        named: dict[str, Any] = {}
        for split in sets if config.stop_at_train_error is not None else set(sets) - {"train"}:
            errors = count_views(learner, sets[split], ten=False)
            named |= {f"{split}_error": errors.top1.rate, f"{split}_error_top5": errors.top5.rate}
        return named
    counts = {split: count_errors(learner.net, b.in_order(EVALUATION_BATCH), learner.precision) for split, b in sets.items()}
    return {f"{split}_error": count.rate for split, count in counts.items()}


def errors_of_ten_views(learner: Learner, sets: dict[str, Batches], split: str) -> dict[str, Any]:
    """Return what the last line of a finished training adds: the errors when softmax is averaged over ten views."""
    errors = count_views(learner, sets[split], ten=True)
    return {f"{split}_error_ten_views": errors.top1.rate, f"{split}_error_top5_ten_views": errors.top5.rate}


def count_views(learner: Learner, batches: Batches, ten: bool) -> Errors:
    """Count the errors of a net over one split, in ten views or the central one, each replica its share of the chunks."""
    crew = learner.crew
    shown = batches.views_in_order(CHUNK, ten, crew.part)
    here = count_errors_over_views(learner.net, (_moved(views, y, learner) for views, y in shown), learner.precision)
    wrong1, wrong5, total = map(round, crew.total([here.top1.wrong, here.top5.wrong, here.top1.total]))
    return Errors(Count(wrong1, total), Count(wrong5, total))


def _moved(views: list[Tensor], labels_N: Tensor, learner: Learner) -> tuple[list[Tensor], Tensor]:
    device = learner.crew.device
    return [to_device((view, labels_N), device)[0] for view in views], labels_N.to(device)
