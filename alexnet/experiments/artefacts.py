"""What is measured once from a finished run and kept beside it: chapters read these, never checkpoints.

An artefact's name says what and on what: `errors/val/ten`, `predictions/val/ten`, `kernels`, `neighbours/fc7`. Declarations
ask for them; what a run lacks is measured from its weights. Files are CSV or npz without pickles. One above a megabyte has
`.large` in its name and is not committed; error counts always are.

Shapes: N images, K classes, Q queries, D features.
"""

import csv
import io
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from alexnet import files, randomness
from alexnet.config import RunConfig, UserError, nearest
from alexnet.preprocessing import PreparedSet

if TYPE_CHECKING:
    from alexnet.training.step import Learner

LARGE = 2**20  # bytes of a file that is not committed
COLUMNS = ("split", "views", "k", "wrong", "total")
NUM_NEIGHBOURS = 6  # Figure 4
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
    kind, *where = name.split("/")
    if kind not in KINDS:
        raise UserError(f"There is no artefact {name!r}{nearest(kind, KINDS)}. Kinds: {', '.join(KINDS)}.")
    KINDS[kind](trained, *where)


def _errors(trained: Trained, split: str, views: str) -> None:
    from alexnet.training import evaluate  # Why here, as below: chapters read artefacts, and can do without torch.

    counted = evaluate.count_split(trained.learner, trained.data, trained.config, split, views)
    others = [row for row in read_errors(trained.folder) if (row["split"], row["views"]) != (split, views)]
    write_errors(trained.folder, [*others, *counted])


def write_errors(folder: Path, rows: files.Rows) -> None:
    """Write the exact counts of a run's errors."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(sorted(rows, key=lambda row: (row["split"], row["views"], row["k"])))
    files.write_text(folder / "errors.csv", text.getvalue())


def read_errors(folder: Path) -> files.Rows:
    """Return the counts of `errors.csv`: rows of split, views, k, wrong, total."""
    file = folder / "errors.csv"
    if not file.is_file():
        return []
    try:
        with file.open(newline="") as stream:
            found = list(csv.DictReader(stream))
        rows = [{key: row[key] if key in ("split", "views") else int(row[key]) for key in COLUMNS} for row in found]
        if not all(0 <= row["wrong"] <= row["total"] > 0 for row in rows):
            raise ValueError("counts that cannot be")
        return rows
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{file} is damaged ({error!r}). Delete it; it is measured again from the weights.") from error


def _predictions(trained: Trained, split: str, views: str) -> None:
    from alexnet.training import evaluate

    probabilities_NK, labels_N = evaluate.predict_split(trained.learner, trained.data, trained.config, split, views)
    _write(
        trained.folder,
        f"predictions-{split}-{views}",
        probabilities=probabilities_NK.numpy().astype(np.float32),
        labels=labels_N.numpy().astype(np.int32),
    )


def _kernels(trained: Trained) -> None:
    weight = trained.learner.weights()["conv1.weight"]
    _write(trained.folder, "kernels", kernels=weight.detach().float().cpu().contiguous().numpy())


def _neighbours(trained: Trained, layer: str) -> None:
    """For held-out queries, the nearest training images by features of `layer` and by pixels (paper 6.1, Figure 4)."""
    from alexnet.training import evaluate

    learner, data, config = trained.learner, trained.data, trained.config
    held = "test" if "test" in data.splits else "val"
    order = randomness.generator(0, "queries").permutation(len(data.splits[held]))[:QUERIES]
    queries, gallery = (evaluate.features_split(learner, data, config, split, layer) for split in (held, "train"))
    found = {"queries": order.astype(np.int32), "labels": data.splits[held].labels[order].astype(np.int32)}
    seen = {
        "features": (queries.numpy()[order], gallery.numpy()),
        "pixels": (_pixels(data, held)[order], _pixels(data, "train")),
    }
    for kind, (of_queries_QD, of_gallery_ND) in seen.items():
        nearest_QM, squares_QM = evaluate.nearest(of_queries_QD, of_gallery_ND, NUM_NEIGHBOURS)
        found |= {f"{kind}_images": nearest_QM.astype(np.int32), f"{kind}_squares": squares_QM.astype(np.float32)}
        found[f"{kind}_labels"] = data.splits["train"].labels[nearest_QM].astype(np.int32)
    _write(trained.folder, f"neighbours-{layer}", **found)


def _pixels(data: PreparedSet, split: str, side: int = 32) -> np.ndarray:
    """Return the images of a split (N, D) averaged over blocks, at most `side` a side: enough for a distance in pixels."""
    images = data.splits[split].images
    block = max(1, images.shape[1] // side)
    small = [image.reshape(image.shape[0] // block, block, -1, block, 3).mean(axis=(1, 3)) for image in images]
    return np.stack(small).reshape(len(small), -1).astype(np.float32)


KINDS: dict[str, Callable[..., None]] = {
    "errors": _errors,
    "predictions": _predictions,
    "kernels": _kernels,
    "neighbours": _neighbours,
}


def _write(folder: Path, stem: str, **arrays: np.ndarray) -> None:
    """Write named arrays, in a file that is committed if it is small."""
    file = folder / f"{stem}.npz"
    files.write_arrays(file, **arrays)
    if file.stat().st_size > LARGE:
        file.replace(folder / f"{stem}.large.npz")


def read(folder: Path, name: str) -> dict[str, np.ndarray] | None:
    """Return the arrays of an artefact by name, or None where it was not measured or is not on this machine."""
    stem = name.replace("/", "-")
    for file in (folder / f"{stem}.npz", folder / f"{stem}.large.npz"):
        if file.is_file():
            try:
                with file.open("rb") as stream, np.load(stream, allow_pickle=False) as content:
                    return dict(content)
            except (EOFError, ValueError, OSError, zipfile.BadZipFile) as error:
                raise UserError(f"{file} is damaged ({error!r}). Delete it; it is measured again.") from error
    return None


def is_measured(folder: Path, name: str) -> bool:
    """Return whether an artefact is there."""
    kind, *where = name.split("/")
    if kind == "errors":
        return any([row["split"], row["views"]] == where for row in read_errors(folder))
    stem = name.replace("/", "-")
    return any((folder / f"{stem}{end}").is_file() for end in (".npz", ".large.npz"))
