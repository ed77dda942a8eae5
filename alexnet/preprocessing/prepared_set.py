"""A prepared set on disk: what every source of images is turned into before training.

<set>/prepare.json              classes, counts, sha256 of every file; written last, so its presence means complete
<set>/mean.npy                  (H, W, 3) float32, mean of the training images at each pixel (paper 2)
<set>/covariance.npy            (3, 3) float64, covariance of the training pixels' colours (paper 4.1)
<set>/<split>/images.npy        codec raw: (N, H, W, 3) uint8, memory-mapped when opened; 197 kB for an image of 256x256
<set>/<split>/images.jpegs      codec jpeg: JPEGs of quality 95 one after another, a sixth of the bytes, decoded when read
<set>/<split>/offsets.npy       codec jpeg: (N + 1,) int64, where each of them begins
<set>/<split>/labels.npy        (N,) int64
<set>/<split>/shards.json       of photographs: sha256 of each 1024 images (`prepare.py`)
"""

import functools
import hashlib
import io
import json
import math
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from alexnet import files
from alexnet.config import UserError, home_dir
from alexnet.preprocessing.catalog import Codec, command

IMAGE_FILES: dict[Codec, str] = {"raw": "images.npy", "jpeg": "images.jpegs"}
OFFSETS, SHARDS, MANIFEST = "offsets.npy", "shards.json", "prepare.json"
NAME = "[a-z0-9][a-z0-9_-]*"  # of a set
QUALITY = 95  # cuda-convnet2's make-data has it too
HASHED_UP_TO = 2 * 10**9  # bytes of images that opening a set reads in full, to compare their sha256
CHUNK = 16  # images of which sums are made at a time, by each thread


def encode(pixels_HWC: np.ndarray) -> bytes:
    """Return an image, (H, W, 3) uint8, as a JPEG."""
    stream = io.BytesIO()
    Image.fromarray(pixels_HWC).save(stream, "JPEG", quality=QUALITY)
    return stream.getvalue()


def decode(data: bytes | np.ndarray) -> np.ndarray:
    """Return the pixels (H, W, 3) uint8 of a JPEG that `encode` made: Pillow's, in two thirds of its time."""
    import torch  # Why here: it takes a second, which those who read no JPEGs need not wait
    import torchvision.io  # noqa: F401  # registers the operation

    # Why not `torchvision.io.decode_jpeg`, which calls this: it warns, each time, that TorchCodec will follow it.
    encoded = torch.from_numpy(np.frombuffer(data, np.uint8).copy())
    return torch.ops.image.decode_jpeg(encoded, 3, False).permute(1, 2, 0).numpy()


def header(num_images: int, side: int) -> bytes:
    """Return the first bytes of an .npy file of images, as many for any number of them."""
    stream, shape = io.BytesIO(), (num_images, side, side, 3)
    np.lib.format.write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return stream.getvalue()


class JpegImages:
    """Images (N, H, W, 3) uint8 that are decoded when they are indexed, as those of an .npy file are read."""

    def __init__(self, file: Path, offsets: np.ndarray, side: int) -> None:
        self.file, self.offsets = file, offsets
        self.shape = (len(offsets) - 1, side, side, 3)
        self._data = np.memmap(file, np.uint8, "r") if self.shape[0] else np.empty(0, np.uint8)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> np.ndarray:
        """Return one image or several: `images[i]`, `images[3:7]`, `images[numbers]`, `images[mask]`."""
        # Why: an image that is not there is an IndexError; and what is as long as the set costs more than decoding.
        numbers = (range if isinstance(key, int | np.integer | slice) else np.arange)(len(self))[key]
        if isinstance(numbers, int | np.integer):
            return decode(self._data[self.offsets[numbers] : self.offsets[numbers + 1]])
        return np.stack([self[i] for i in numbers]) if len(numbers) else np.empty((0, *self.shape[1:]), np.uint8)


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
    """Return the folder of the prepared sets: `$ALEXNET_DATA`, else `data` in `home_dir()`."""
    return Path(os.environ.get("ALEXNET_DATA") or home_dir() / "data").expanduser()


def is_prepared(name: str) -> bool:
    """Return whether the set `name` is complete in `data_dir()`, perhaps still beside its place."""
    there = ((data_dir() / f"{name}{beside}" / MANIFEST).is_file() for beside in ("", ".new"))
    return bool(re.fullmatch(NAME, name)) and any(there)


def settle(name: str) -> None:
    """Put a complete set that was built beside its place there, also where a killed call left off; needs the set's lock."""
    folder, new, old = (data_dir() / f"{name}{beside}" for beside in ("", ".new", ".old"))
    if (new / MANIFEST).is_file():
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)
            folder.rename(old)
        new.rename(folder)
        files.sync_folder(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def open_set(name: str, verify: bool | None = None) -> PreparedSet:
    """Open the prepared set `name`. Raises UserError when it is missing, or a file of it is missing or changed.

    Its files' lengths are compared, unless `verify` is False also their sha256; a large set's images only if it is True.
    """
    folder, mend = data_dir() / name, f"Make the set again with: {command(name)} --force"
    if not is_prepared(name):
        raise UserError(f"No prepared set {name!r} in {data_dir()}. Make it with: {command(name)}")
    if not (folder / MANIFEST).is_file():
        with files.locked(data_dir() / f"{name}.lock"):
            settle(name)
    manifest = read_manifest(folder, mend)
    if wrong := _difference(folder, manifest, verify):
        raise UserError(f"{wrong}. {mend}")
    classes, codec = tuple(manifest["classes"]), manifest.get("codec", "raw")
    images = {split: _open_images(folder / split, codec, manifest["side"]) for split in manifest["counts"]}
    splits = {split: Split(opened, np.load(folder / split / "labels.npy")) for split, opened in images.items()}
    mean, covariance = (np.load(folder / f"{name}.npy") for name in ("mean", "covariance"))
    known = manifest["fingerprint"], manifest["stand_in"], tuple(manifest.get("words", classes))
    return PreparedSet(name, folder, classes, splits, mean, covariance, *known, codec)


def read_manifest(folder: Path, mend: str = "Make the set again with --force.") -> dict[str, Any]:
    """Return the manifest of a set. Raises UserError, which ends in `mend`, for one that is missing, cut or other JSON."""
    manifest = files.read_json(folder / MANIFEST, mend)
    if not isinstance(manifest, dict) or {"classes", "counts", "bytes", "sha256", "side", "fingerprint"} - manifest.keys():
        raise UserError(f"{folder / MANIFEST} is not a set's manifest. {mend}")
    return manifest


def _open_images(folder: Path, codec: Codec, side: int) -> np.ndarray | JpegImages:
    file = folder / IMAGE_FILES[codec]
    # Why asarray: slices of a memmap take several times longer to make.
    return np.asarray(np.load(file, mmap_mode="r")) if codec == "raw" else JpegImages(file, np.load(folder / OFFSETS), side)


def _difference(folder: Path, manifest: dict[str, Any], verify: bool | None) -> str:
    lengths, digests = manifest["bytes"], manifest["sha256"]
    whole = verify or sum(lengths[path] for path in lengths.keys() - digests.keys()) <= HASHED_UP_TO
    for path, length in lengths.items():
        file = folder / path
        if not file.is_file():
            return f"{file} is missing"
        if (found := file.stat().st_size) != length:
            return f"{file} is changed since it was prepared: it has {found:,} bytes, not {length:,}"
        parts = [(length, digests[path], "")] if path in digests else _shards(file, manifest, whole)
        with file.open("rb") as stream:
            for num_bytes, digest, where in () if verify is False else parts:
                if hashlib.sha256(stream.read(num_bytes)).hexdigest() != digest:
                    return f"{file} is changed since it was prepared{where}"
    return ""


def _shards(file: Path, manifest: dict[str, Any], whole: bool) -> Iterator[tuple[int, str, str]]:
    """Yield length, sha256 and place of the parts of a file of photographs: its header and, for the `whole`, its shards."""
    record, count = json.loads(file.with_name(SHARDS).read_text()), sum(manifest["counts"][file.parent.name].values())
    first = header(count, manifest["side"])[: record["start"]]
    yield len(first), hashlib.sha256(first).hexdigest(), ", in its first bytes"
    shards = tqdm(record["shards"] if whole else [], f"verifying {file.parent.name}", leave=False, disable=not whole)
    yield from ((length, digest, f", in its shard {number}") for number, (length, digest) in enumerate(shards))


def write_split(folder: Path, images_NHWC: np.ndarray, labels_N: np.ndarray) -> None:
    """Write the images and labels of a split that fits into memory."""
    files.write_array(folder / IMAGE_FILES["raw"], np.ascontiguousarray(images_NHWC, np.uint8))
    files.write_array(folder / "labels.npy", labels_N.astype(np.int64))


def finish_set(folder: Path, classes: Sequence[str], splits: Sequence[str], **facts: Any) -> None:
    """Compute mean, covariance, counts and checksums of written splits; write the manifest."""
    mean, covariance = pixel_statistics(_open_images(folder / "train", facts.get("codec", "raw"), facts.get("side", 0)))
    files.write_array(folder / "mean.npy", mean.astype(np.float32))
    files.write_array(folder / "covariance.npy", covariance)
    parts = (*IMAGE_FILES.values(), OFFSETS, "labels.npy", SHARDS)
    names = ["mean.npy", "covariance.npy", *(f"{split}/{part}" for split in splits for part in parts)]
    lengths = {name: (folder / name).stat().st_size for name in names if (folder / name).is_file()}
    # Why: the sha256 of images that were written in shards is in shards.json, so that they need not be read once more.
    sharded = {f"{s}/{name}" for s in splits for name in IMAGE_FILES.values() if (folder / s / SHARDS).is_file()}
    digests = {path: hashlib.sha256((folder / path).read_bytes()).hexdigest() for path in lengths if path not in sharded}
    numbers = {s: np.bincount(np.load(folder / s / "labels.npy"), minlength=len(classes)).tolist() for s in splits}
    counts = {split: dict(zip(classes, found, strict=True)) for split, found in numbers.items()}
    fingerprint = hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()[:16]
    manifest = {"classes": list(classes), "counts": counts, "fingerprint": fingerprint, "sha256": digests, "bytes": lengths}
    files.write_json(folder / MANIFEST, {**manifest, "side": len(mean), **facts})


def pixel_statistics(images_NHWC: np.ndarray | JpegImages) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean image (H, W, 3) and the colour covariance (3, 3) over all pixels, float64."""

    def sums(start: int) -> tuple[np.ndarray, np.ndarray]:
        part = images_NHWC[start : start + CHUNK]
        pixels = part.reshape(-1, 3).astype(np.float64)
        return part.sum(axis=0, dtype=np.int64), pixels.T @ pixels

    # Why: sums of integers are exact in any order, so these files have the same bytes on every machine.
    with ThreadPoolExecutor() as threads:
        each = threads.map(sums, range(0, len(images_NHWC), CHUNK))
        total, outer = functools.reduce(lambda one, other: (one[0] + other[0], one[1] + other[1]), each)
    num_pixels = math.prod(images_NHWC.shape[:3])
    colour = total.reshape(-1, 3).sum(axis=0) / num_pixels
    return total / len(images_NHWC), outer / num_pixels - np.outer(colour, colour)
