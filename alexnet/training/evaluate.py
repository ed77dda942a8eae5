"""Exact counts of errors, probabilities and features of a whole split, and what is computed from them (section 6).

The counts are the same integers for any number of ranks: a rank takes whole batches of `CHUNK`, so that it computes each
image in the same company and to the same bits. They are made from logits, which are fp32 in any precision.

Shapes: N images, C maps, H, W pixels, K classes, Q queries, D features, M neighbours.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from alexnet.config import RunConfig, UserError
from alexnet.files import Rows
from alexnet.model import image_side_of
from alexnet.preprocessing import PreparedSet
from alexnet.preprocessing.loader import WHOLE, Batches, Part
from alexnet.training.precision import autocast
from alexnet.training.step import Learner

CHUNK = 125  # images that a net sees at once; divides every validation and test set of the paper, and those of CIFAR-10
ONE_VIEW = ("whole", "central")
KS = (1, 5)  # an image is wrong when its class is not among the k most probable
CHUNK_BYTES = 2**28  # of vectors in float64 at a time
SPARE = 16  # candidates among nearest neighbours beyond those asked for


def batches_for(config: RunConfig, data: PreparedSet, split: str, device: torch.device | None = None) -> Batches:
    """Return the batches of a split as the net of `config` sees them. Raises UserError when they do not fit it."""
    if config.net.num_classes != len(data.classes):
        raise UserError(f"The net has {config.net.num_classes} classes, the images of {data.name} {len(data.classes)}.")
    side, pixels = image_side_of(config.net), data.splits[split].images.shape[1]
    shown = config.augmentation.crop_side if config.augmentation else pixels
    if not shown == side <= pixels:
        how = f"crops of {shown}" if config.augmentation else "all"
        would = f"would be shown {how} of the {pixels} that the images of {data.name} have"
        raise UserError(f"The net sees {side} pixels a side, and {would}. Change --augmentation or --data.")
    return Batches(data, split, config.augmentation, device)


def views_of_training(config: RunConfig) -> str:
    """Return the views whose errors are watched in training."""
    return "central" if config.augmentation else "whole"


def count_split(learner: Learner, data: PreparedSet, config: RunConfig, split: str, views: str) -> Rows:
    """Count the errors of a net over one split, each replica its share; every rank of the group has to call."""
    return count_batches(learner, batches_for(config, data, split, learner.group.device), split, views)


def count_batches(learner: Learner, shown: Batches, split: str, views: str) -> Rows:
    """Count over batches by the mean softmax over an image's views (paper 4.1); a row of `files.Rows` for each k of `KS`."""
    counts = Counter()
    for scores_NK, labels_N in _scores(learner, shown, views, learner.group.part):
        counts.update({k: num_wrong(scores_NK, labels_N, k) for k in KS} | {"total": len(labels_N)})
    *wrong, total = map(round, learner.group.total([counts[name] for name in (*KS, "total")]))
    return [{"split": split, "views": views, "k": k, "wrong": w, "total": total} for k, w in zip(KS, wrong, strict=True)]


def predict_split(learner: Learner, data: PreparedSet, config: RunConfig, split: str, views: str) -> tuple[Tensor, Tensor]:
    """Return each image's mean softmax over its views (N, K) float32 and the labels (N,) int64, on every rank all."""
    shown = batches_for(config, data, split, learner.group.device)
    scores, labels = zip(*_scores(learner, shown, views, WHOLE), strict=True)
    scores_NK = torch.cat(scores)
    return (scores_NK.double().softmax(1) if views in ONE_VIEW else scores_NK).float(), torch.cat(labels)


def features_split(learner: Learner, data: PreparedSet, config: RunConfig, split: str, layer: str = "fc7") -> Tensor:
    """Return the outputs (N, D) float32 of `layer` for each image's whole or central view; UserError for no such layer."""
    views = batches_for(config, data, split, learner.group.device).in_order(CHUNK, views_of_training(config))
    return torch.cat([run(learner, view, layer).flatten(1) for (view,), _ in views])


def _scores(learner: Learner, shown: Batches, views: str, part: Part) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield for each batch the logits of its only view, or the mean probabilities over several, and the labels."""
    for images, labels_N in shown.in_order(CHUNK, views, part):
        logits_VNK = [run(learner, view) for view in images]
        if views not in ONE_VIEW:
            logits_VNK = [sum(logits_NK.double().softmax(dim=1) for logits_NK in logits_VNK) / len(logits_VNK)]
        yield logits_VNK[0], labels_N.cpu()


@torch.no_grad()
def run(learner: Learner, images_NCHW: Tensor, layer: str | None = None) -> Tensor:
    """Return the net's logits, or its outputs of `layer`, for images: in evaluation mode, fp32, on the CPU."""
    device, net, trains = learner.group.device, learner.net, learner.net.training
    net.eval()
    with autocast(learner.precision, device.type):
        images = images_NCHW.to(device, memory_format=torch.channels_last)
        found = (net.features(images, layer) if layer else net(images)).float().cpu()
    net.train(trains)
    return found


def num_wrong(scores_NK: Tensor, labels_N: Tensor, k: int = 1) -> int:
    """Return for how many images the true class is not among the `k` most probable: ties and NaN count against us."""
    true_N1 = scores_NK.gather(1, labels_N[:, None])
    ahead_N = (~(scores_NK < true_N1)).sum(dim=1) - 1  # without the true class itself
    return int(((ahead_N >= k) | true_N1.isnan()[:, 0]).sum())


def nearest(queries: Sequence, gallery: Sequence, count: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices (Q, M) of the `count` arrays of a gallery nearest to each query, and their squared distances.

    Nearest first; of equal distances the lower index first; NaN last. Products in float64 find some more candidates than
    asked; their differences, squared and added, decide, for products lose small distances. Paper 6.1; 2012 findsimilar.py.
    """
    queries_QD = _vectors(queries, range(len(queries)))
    rows = max(1, CHUNK_BYTES // max(queries_QD[0].nbytes, 8 * len(queries)))  # of vectors, and of distances
    best_d, best_i = np.empty((len(queries), 0)), np.empty((len(queries), 0), np.int64)
    for start in range(0, len(gallery), rows):
        part_ND = _vectors(gallery, range(start, min(start + rows, len(gallery))))
        distances = np.square(part_ND).sum(axis=1) - 2 * queries_QD @ part_ND.T  # but for the query's own square
        indices = np.broadcast_to(np.arange(start, start + len(part_ND)), distances.shape)
        both_d, both_i = np.hstack([best_d, distances]), np.hstack([best_i, indices])
        order = np.argsort(both_d, axis=1, kind="stable")[:, : count + SPARE]  # Why stable: lower indices come first
        best_d, best_i = np.take_along_axis(both_d, order, 1), np.take_along_axis(both_i, order, 1)
    for query_D, d, i in zip(queries_QD, best_d, best_i, strict=True):
        d[:] = np.square(_vectors(gallery, i) - query_D).sum(axis=1)
        order = np.lexsort((i, d))
        d[:], i[:] = d[order], i[order]
    return best_i[:, :count], best_d[:, :count]


def _vectors(arrays: Sequence, indices: Iterable[int]) -> np.ndarray:
    return np.stack([np.ravel(arrays[i]) for i in indices]).astype(np.float64)
