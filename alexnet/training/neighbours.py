"""Which images are alike to the net: 4096-d features and their nearest neighbours (Figure 4, right).

Shapes: N images of a gallery, Q queries, D features, M neighbours.
"""

from functools import partial

import numpy as np
import torch
from torch import Tensor

from alexnet.model.alexnet import AlexNet
from alexnet.training.evaluate import ViewBatches, in_chunks, run

CHUNK_BYTES = 2**25  # of differences in float64 at a time


def features(net: AlexNet, batches: ViewBatches, layer: str = "fc7", precision: str = "fp32") -> tuple[Tensor, Tensor]:
    """Return the outputs (N, D) of `layer` for one view of every image, fp32, and the labels (N,).

    fc7 is the last hidden layer, whose 4096 outputs Figure 4 compares; they are halved, as the paper's test time has
    them, which changes no order. Same bits for any batch size, as in `evaluate`. Raises ValueError for more than one
    view, or no images.
    """
    found, labels = [], []
    for views, labels_N in in_chunks(batches):
        views = list(views)
        if len(views) != 1:
            raise ValueError(f"Features are of one view of an image; `batches` has {len(views)}.")
        found.append(run(net, views[0], precision, partial(net.features, layer=layer)).flatten(1))
        labels.append(labels_N.cpu())
    if not found:
        raise ValueError("There are no images among `batches`.")
    return torch.cat(found), torch.cat(labels)


def nearest(queries_QD: Tensor, gallery_ND: Tensor, count: int = 6) -> tuple[Tensor, Tensor]:
    """Return the indices (Q, M) of the `count` gallery vectors nearest to each query, and their squared distances.

    Euclidean, nearest first; of equal distances the lower index first; NaN last. Differences are squared and added in
    float64, not expanded into products, which would lose the small distances. Paper 6.1: six neighbours are shown;
    Source 2012: squared distances (findsimilar.py). Raises ValueError when the gallery has fewer than `count` vectors.
    """
    if not 1 <= count <= len(gallery_ND):
        raise ValueError(f"`count` (={count}) must be from 1 to the size of the gallery (={len(gallery_ND)}).")
    queries, gallery = queries_QD.double().numpy(), gallery_ND.numpy()
    rows = max(1, CHUNK_BYTES // (8 * gallery.shape[1]))
    best_d, best_i = np.empty((len(queries), 0)), np.empty((len(queries), 0), np.int64)
    for start in range(0, len(gallery), rows):
        part = gallery[start : start + rows].astype(np.float64)
        distances = np.stack([_squared_distances(query, part) for query in queries])
        indices = np.broadcast_to(np.arange(start, start + len(part)), distances.shape)
        both_d, both_i = np.hstack([best_d, distances]), np.hstack([best_i, indices])
        order = np.argsort(both_d, axis=1, kind="stable")[:, :count]  # Why stable: lower indices come first in both.
        best_d, best_i = np.take_along_axis(both_d, order, 1), np.take_along_axis(both_i, order, 1)
    return torch.from_numpy(best_i), torch.from_numpy(best_d)


def _squared_distances(query_D: np.ndarray, gallery_ND: np.ndarray) -> np.ndarray:
    difference = gallery_ND - query_D
    # Why not torch: numpy adds each row in the same order whatever the number of rows, so equal vectors stay equal.
    return np.square(difference, out=difference).sum(axis=1)
