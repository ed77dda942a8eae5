"""What is measured once from a finished run and kept beside it: chapters read these, never checkpoints.

An artefact's name says what and on what: `errors/val/ten`, `kernels`, `neighbours/fc7`. Declarations ask for them; what a
run lacks is measured from its weights. A file above a megabyte has `.large` in its name and is not committed.

Shapes: N images, K classes, Q queries, D features.
"""

import csv
import itertools
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from alexnet import files, randomness
from alexnet.config import RunConfig, UserError, nearest
from alexnet.preprocessing import PreparedSet

if TYPE_CHECKING:
    from alexnet.training.step import Learner

Arrays = dict[str, np.ndarray]
LARGE = 2**20  # bytes of a file that is not committed
COLUMNS = ("split", "views", "k", "wrong", "total")
NUM_NEIGHBOURS = 6  # Figure 4
CODE_BITS, ITQ_ROUNDS = 32, 50
QUERIES = 2000  # held-out images whose neighbours are looked for, the first of the split in an order drawn once


@dataclass(frozen=True)
class Trained:
    """A finished run with its weights: the net, and the set that it was trained on."""

    config: RunConfig
    learner: "Learner"
    data: PreparedSet
    folder: Path


def measure(trained: Trained, name: str) -> None:
    """Measure one artefact and write it beside the run. Raises UserError for a name that is none."""
    from alexnet.training import evaluate  # Why here: chapters read artefacts, and can do without torch.

    kind, *where = name.split("/")
    if kind not in KINDS:
        raise UserError(f"There is no artefact {name!r}{nearest(kind, KINDS)}. Kinds: {', '.join(KINDS)}.")
    if kind == "errors":
        counted = evaluate.count_split(trained.learner, trained.data, trained.config, *where)
        others = [row for row in read_errors(trained.folder) if [row["split"], row["views"]] != where]
        return write_errors(trained.folder, [*others, *counted])
    file = trained.folder / f"{name.replace('/', '-')}.npz"
    files.write_arrays(file, **KINDS[kind](evaluate, trained, *where))
    if file.stat().st_size > LARGE:
        file.replace(file.with_suffix(".large.npz"))


def write_errors(folder: Path, rows: files.Rows) -> None:
    """Write the exact counts of a run's errors."""
    table = [COLUMNS, *sorted(tuple(row[column] for column in COLUMNS) for row in rows)]
    files.write_text(folder / "errors.csv", "".join(",".join(map(str, line)) + "\n" for line in table))


def read_errors(folder: Path) -> files.Rows:
    """Return the counts of `errors.csv`: rows of split, views, k, wrong, total."""
    file = folder / "errors.csv"
    try:
        found = csv.DictReader(file.read_text().splitlines()) if file.is_file() else ()
        rows = [{key: row[key] if key in ("split", "views") else int(row[key]) for key in COLUMNS} for row in found]
        if not all(0 <= row["wrong"] <= row["total"] > 0 for row in rows):
            raise ValueError("counts that cannot be")
        return rows
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{file} is damaged ({error!r}). Delete it; it is measured again from the weights.") from error


def _predictions(evaluate: Any, trained: Trained, split: str, views: str) -> Arrays:
    probabilities_NK, labels_N = evaluate.predict_split(trained.learner, trained.data, trained.config, split, views)
    return {"probabilities": probabilities_NK.numpy().astype(np.float32), "labels": labels_N.numpy().astype(np.int32)}


def _weight(trained: Trained, layer: str) -> np.ndarray:
    return trained.learner.weights()[f"{layer}.weight"].detach().float().cpu().numpy()


def _by_views(evaluate: Any, trained: Trained, split: str) -> Arrays:
    """Errors by how many of the ten views are averaged: the mean over those in a row, round the circle of ten."""
    shown = evaluate.batches_for(trained.config, trained.data, split, trained.learner.group.device)
    wrong = np.zeros((len(evaluate.KS), 10))
    for images, labels_N in shown.in_order(evaluate.CHUNK, "ten"):
        views = [evaluate.run(trained.learner, view).double().softmax(dim=1) for view in images]
        for first in range(10):
            for count, sum_NK in enumerate(itertools.accumulate(views[first:] + views[:first])):
                wrong[:, count] += [evaluate.num_wrong(sum_NK, labels_N.cpu(), k) / 10 for k in evaluate.KS]
    return {"k": np.array(evaluate.KS), "wrong": wrong, "total": np.array(len(shown))}


def _rounded(evaluate: Any, trained: Trained, split: str) -> Arrays:
    """Top-1 errors counted from logits, and from the same rounded to bf16, where the largest sometimes tie."""
    shown = evaluate.batches_for(trained.config, trained.data, split, trained.learner.group.device)
    counts = np.zeros(2, np.int64)
    for (images,), labels_N in shown.in_order(evaluate.CHUNK, "whole"):
        logits_NK = evaluate.run(trained.learner, images)
        counts += [evaluate.num_wrong(each, labels_N.cpu()) for each in (logits_NK, logits_NK.bfloat16().float())]
    return {"wrong": counts[0], "rounded": counts[1], "total": np.array(len(shown))}


def _nearest(evaluate: Any, trained: Trained, layer: str, kinds: tuple[str, ...]) -> Arrays:
    """For held-out queries, the nearest training images by each kind of vectors (paper 6.1, Figure 4)."""
    learner, data, config = trained.learner, trained.data, trained.config
    held = "test" if "test" in data.splits else "val"
    order = randomness.generator(0, "queries").permutation(len(data.splits[held]))[:QUERIES]
    queries, gallery = (evaluate.features_split(learner, data, config, split, layer).numpy() for split in (held, "train"))
    vectors = {
        "features": lambda: (queries[order], gallery),
        "pixels": lambda: (_pixels(data.splits[held].images)[order], _pixels(data.splits["train"].images)),
        "codes": lambda: binary_codes(queries[order], gallery),
    }
    found = {"queries": order.astype(np.int32), "labels": data.splits[held].labels[order].astype(np.int32)}
    for kind in kinds:
        of_queries_QD, of_gallery_ND = vectors[kind]()
        # Why: very many codes are equally far, and the set may have its classes in turn; an order drawn once decides.
        drawn = randomness.generator(0, "gallery").permutation(len(gallery)) if kind == "codes" else slice(None)
        nearest_QM, squares_QM = evaluate.nearest(of_queries_QD, of_gallery_ND[drawn], NUM_NEIGHBOURS)
        images_QM = np.arange(len(gallery))[drawn][nearest_QM]
        found |= {f"{kind}_images": images_QM.astype(np.int32), f"{kind}_squares": squares_QM.astype(np.float32)}
        found[f"{kind}_labels"] = data.splits["train"].labels[images_QM].astype(np.int32)
    return found


def binary_codes(queries_QD: np.ndarray, gallery_ND: np.ndarray) -> list[np.ndarray]:
    """Return codes (Q, bits) and (N, bits) of -1 and 1 for queries and gallery; the paper would use an auto-encoder."""
    # ITQ (Gong and Lazebnik, CVPR 2011): signs of the first principal components, rotated to be nearest to their signs.
    mean_D = gallery_ND.mean(axis=0)
    centred_ND = gallery_ND - mean_D
    axes_DB = np.linalg.eigh(centred_ND.T @ centred_ND)[1][:, ::-1][:, :CODE_BITS]
    parts_NB = centred_ND @ axes_DB
    rotation_BB, _ = np.linalg.qr(randomness.generator(0, "codes").standard_normal((axes_DB.shape[1],) * 2))
    for _ in range(ITQ_ROUNDS):
        left, _, right = np.linalg.svd(parts_NB.T @ np.sign(parts_NB @ rotation_BB))
        rotation_BB = left @ right
    parts = ((queries_QD - mean_D) @ axes_DB, parts_NB)
    return [np.where(part @ rotation_BB < 0, -1, 1).astype(np.float32) for part in parts]


def _pixels(images: np.ndarray) -> np.ndarray:
    """Return images (N, D) averaged over blocks, to about 32 pixels a side: enough for a distance in pixels."""
    block = max(1, images.shape[1] // 32)
    small = [image.reshape(len(image) // block, block, -1, block, 3).mean((1, 3), np.float32) for image in images]
    return np.stack(small).reshape(len(small), -1)


KINDS: dict[str, Callable[..., Any]] = {
    "errors": write_errors,
    "predictions": _predictions,
    "kernels": lambda _, trained: {"kernels": _weight(trained, "conv1")},
    # How strongly each kernel of conv2 is connected with each map that it sees: the sum of |W| over its pixels.
    "connections": lambda _, trained: {"strengths": np.abs(_weight(trained, "conv2")).sum(axis=(2, 3))},
    "by-views": _by_views,
    "rounded": _rounded,
    "codes": partial(_nearest, kinds=("codes",)),
    "neighbours": partial(_nearest, kinds=("features", "pixels")),
}


def _file(folder: Path, name: str) -> Path | None:
    stem = name.replace("/", "-")
    return next((file for end in (".npz", ".large.npz") if (file := folder / f"{stem}{end}").is_file()), None)


def read(folder: Path, name: str) -> Arrays | None:
    """Return the arrays of an artefact by name, or None where it was not measured or is not on this machine."""
    if (file := _file(folder, name)) is None:
        return None
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as content:
            return dict(content)
    except (EOFError, ValueError, OSError, zipfile.BadZipFile) as error:
        raise UserError(f"{file} is damaged ({error!r}). Delete it; it is measured again.") from error


def is_measured(folder: Path, name: str) -> bool:
    """Return whether an artefact is there."""
    kind, *where = name.split("/")
    if kind == "errors":
        return any([row["split"], row["views"]] == where for row in read_errors(folder))
    return _file(folder, name) is not None
