"""A prepared set on disk: what every source of images is turned into before training.

<set>/prepare.json                   classes, counts, sha256 of every file; written last, so its presence means complete
<set>/mean.npy                       (H, W, 3) float32, mean of the training images at each pixel (paper 2)
<set>/covariance.npy                 (3, 3) float64, covariance of the training pixels' colours (paper 4.1)
<set>/{train,test}/images.npy        (N, H, W, 3) uint8, memory-mapped when opened
<set>/{train,test}/labels.npy        (N,) int64
<set>/{train,test}/shards.json       of photographs: sha256 of each 1024 images (`filling.py`)

Photographs have the splits that their source has (train, val, test), and may be kept as JPEGs (`codec.py`).
"""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from alexnet.config import PROJECT_DIR, UserError
from alexnet.preprocessing.codec import FILES, OFFSETS, Codec, JpegImages, open_images
from alexnet.preprocessing.integrity import SHARDS, check_files, sha256

CHUNK = 1000  # images between two notes of progress; at most this many are decoded twice after a kill
MANIFEST = "prepare.json"


@dataclass(frozen=True)
class Split:
    """Images (N, H, W, 3) uint8 and their labels (N,) int64."""

    images: np.ndarray | JpegImages
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class PreparedSet:
    """An opened set: its splits, the training mean image (H, W, 3), and what its manifest says."""

    name: str
    folder: Path
    classes: tuple[str, ...]
    splits: dict[str, Split]
    mean: np.ndarray
    covariance: np.ndarray
    fingerprint: str
    stand_in: bool
    words: tuple[str, ...]  # what people call the classes, which may be wnids
    codec: Codec = "raw"


def data_dir() -> Path:
    """Return the folder of the prepared sets: `$ALEXNET_DATA`, else `data` in the project."""
    return Path(os.environ.get("ALEXNET_DATA", PROJECT_DIR / "data"))


def is_prepared(name: str) -> bool:
    """Return whether the set `name` is complete in `data_dir()`."""
    return (data_dir() / name / MANIFEST).is_file()


def open_set(name: str, verify: bool | None = None) -> PreparedSet:
    """Open the prepared set `name` after comparing the length of each file with its manifest, and with `verify` the sha256.

    By default the sha256 of all but the images of large sets are compared. Raises UserError when the set is missing, or a
    file is missing or changed.
    """
    folder = data_dir() / name
    if not (folder / MANIFEST).is_file():
        raise UserError(f"No prepared set {name!r} in {data_dir()}. Make it with: alexnet prepare {name}")
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
    except ValueError as error:
        raise UserError(
            f"{folder / MANIFEST} is damaged. Make the set again with: alexnet prepare {name} --force"
        ) from error
    check_files(folder, manifest, verify)
    form, side = manifest.get("codec", "raw"), manifest.get("side", 0)
    splits = {
        split: Split(open_images(folder / split, form, side), np.load(folder / split / "labels.npy"))
        for split in manifest["counts"]
    }
    return PreparedSet(
        name=name,
        folder=folder,
        classes=tuple(manifest["classes"]),
        splits=splits,
        mean=np.load(folder / "mean.npy"),
        covariance=np.load(folder / "covariance.npy"),
        fingerprint=manifest["fingerprint"],
        stand_in=manifest["stand_in"],
        words=tuple(manifest.get("words", manifest["classes"])),
        codec=form,
    )


def fill_split(folder: Path, labels: np.ndarray, side: int, decode: Callable[[int], np.ndarray], source: str = "") -> None:
    """Decode image after image into `folder/images.npy`, going on after the chunks that an earlier call finished.

    `decode(i)` gives image i, (side, side, 3) uint8. `source` names the images and their order: under another one an
    earlier call's chunks are not continued. What `decode` raises passes through; finished chunks are kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shape = (len(labels), side, side, 3)
    file, progress = folder / "images.npy", folder / "progress.json"
    record = {"shape": list(shape), "labels": hashlib.sha256(labels.tobytes()).hexdigest(), "source": source}
    state = json.loads(progress.read_text()) if progress.is_file() and file.is_file() else {}
    done = state.pop("done", 0)
    if not done or state != record:
        done = 0
        progress.unlink(missing_ok=True)
    images = np.lib.format.open_memmap(file, "r+" if done else "w+", np.uint8, shape)
    if not done:
        _allocate(file)
    label = f"{folder.parent.name} {folder.name}"
    with tqdm(total=len(labels), initial=done, desc=label, unit=" images", unit_scale=True, leave=False) as bar:
        for start in range(done, len(labels), CHUNK):
            stop = min(start + CHUNK, len(labels))
            for i in range(start, stop):
                images[i] = decode(i)
                bar.update()
            images.flush()
            write_json(progress, {**record, "done": stop})
    del images
    save_array(folder / "labels.npy", labels.astype(np.int64))


def _allocate(file: Path) -> None:
    # Why: a memory-mapped file is a promise of space; where the disk breaks it, the process dies without an error.
    if hasattr(os, "posix_fallocate"):
        with file.open("r+b") as stream:
            os.posix_fallocate(stream.fileno(), 0, file.stat().st_size)


def sort_canonically(folder: Path) -> None:
    """Reorder a split, whose labels must ascend, by the sha256 of the pixels within each label, so that every source of the
    same images gives the same bytes. Doing it twice, or being stopped in between, does no harm."""
    images, labels = np.load(folder / "images.npy"), np.load(folder / "labels.npy")
    assert (np.diff(labels) >= 0).all()  # so labels.npy stays as it is, and one file is replaced, whole or not at all
    digests = [hashlib.sha256(image.tobytes()).digest() for image in images]
    order = sorted(range(len(labels)), key=lambda i: (labels[i], digests[i]))
    if order != list(range(len(labels))):
        save_array(folder / "images.npy", images[order])


Statistics = tuple[np.ndarray, np.ndarray]  # mean image (H, W, 3), covariance of the colours (3, 3), both float64


def finish_set(
    folder: Path, classes: Sequence[str], splits: Sequence[str], statistics: Statistics | None = None, **facts: Any
) -> None:
    """Compute counts and checksums of a filled set, mean and covariance unless they are given, and write its manifest."""
    mean, covariance = statistics or pixel_statistics(np.load(folder / "train" / "images.npy", mmap_mode="r"))
    save_array(folder / "mean.npy", mean.astype(np.float32))
    save_array(folder / "covariance.npy", covariance)
    files = ["mean.npy", "covariance.npy", *(f"{s}/{part}" for s in splits for part in _parts(folder / s))]
    sharded = FILES.values()
    # Why: the sha256 of images that were written in shards is in shards.json, so that they need not be read once more.
    whole = [f for f in files if f.split("/")[-1] not in sharded or not (folder / f).with_name(SHARDS).is_file()]
    digests = {file: sha256(folder / file) for file in whole}
    counts = {}
    for split in splits:
        numbers = np.bincount(np.load(folder / split / "labels.npy"), minlength=len(classes))
        counts[split] = dict(zip(classes, numbers.tolist(), strict=True))
    fingerprint = hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()[:16]
    lengths = {file: (folder / file).stat().st_size for file in files}
    manifest = {"classes": list(classes), "counts": counts, "fingerprint": fingerprint, "sha256": digests, "bytes": lengths}
    write_json(folder / MANIFEST, {**manifest, **facts})
    for split in splits:  # Why last: a kill before this line must not cost the decoded images.
        for progress in (folder / split).glob("progress.*"):
            progress.unlink()


def _parts(folder: Path) -> list[str]:
    """Return the names of a split's files."""
    return [name for name in (*FILES.values(), OFFSETS, "labels.npy", SHARDS) if (folder / name).is_file()]


def pixel_statistics(images: np.ndarray) -> Statistics:
    """Return the mean image (H, W, 3) and the colour covariance (3, 3) over all pixels, accumulated in float64."""
    total = np.zeros(images.shape[1:])
    outer = np.zeros((3, 3))
    for start in range(0, len(images), CHUNK):
        chunk = images[start : start + CHUNK].astype(np.float64)
        total += chunk.sum(axis=0)
        pixels = chunk.reshape(-1, 3)
        outer += pixels.T @ pixels
    return statistics(total, outer, len(images))


def statistics(total: np.ndarray, outer: np.ndarray, num_images: int) -> Statistics:
    """Return the mean image and the colour covariance of images from their sum and from that of their colours' products."""
    num_pixels = num_images * total[..., 0].size
    # Why: sums of integers are exact in any order, so these files have the same bytes on every machine.
    colour = total.reshape(-1, 3).sum(axis=0) / num_pixels
    return total / num_images, outer / num_pixels - np.outer(colour, colour)


def save_array(file: Path, array: np.ndarray) -> None:
    """Write an .npy file whole or not at all."""
    partial = file.with_suffix(".partial")
    with partial.open("wb") as stream:
        np.save(stream, array)
    partial.replace(file)


def write_json(file: Path, value: Any) -> None:
    """Write a JSON file whole or not at all."""
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(value, indent=1) + "\n")
    partial.replace(file)
