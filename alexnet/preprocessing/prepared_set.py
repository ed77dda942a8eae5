"""A prepared set on disk: what every source of images is turned into before training.

<set>/prepare.json              classes, counts, sha256 of every file; written last, so its presence means complete
<set>/mean.npy                  (H, W, 3) float32, mean of the training images at each pixel (paper 2)
<set>/covariance.npy            (3, 3) float64, covariance of the training pixels' colours (paper 4.1)
<set>/<split>/images.npy        codec raw: (N, H, W, 3) uint8, memory-mapped when opened; 197 kB for an image of 256x256
<set>/<split>/images.jpegs      codec jpeg: JPEGs of quality 95 one after another, a sixth of the bytes, decoded when read
<set>/<split>/offsets.npy       codec jpeg: (N + 1,) int64, where each of them begins
<set>/<split>/labels.npy        (N,) int64
<set>/<split>/shards.json       of photographs: sha256 of each 1024 images (`shards.py`)
"""

import hashlib
import io
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from alexnet import files
from alexnet.config import PROJECT_DIR, UserError
from alexnet.preprocessing.catalog import Codec

IMAGE_FILES: dict[Codec, str] = {"raw": "images.npy", "jpeg": "images.jpegs"}
OFFSETS, SHARDS, MANIFEST = "offsets.npy", "shards.json", "prepare.json"
QUALITY = 95  # cuda-convnet2's make-data has it too
HASHED_UP_TO = 2 * 10**9  # bytes of images that opening a set reads in full, to compare their sha256
CHUNK = 1000  # images of which sums are made at a time


def encode(pixels_HWC: np.ndarray) -> bytes:
    """Return an image, uint8, as a JPEG."""
    stream = io.BytesIO()
    Image.fromarray(pixels_HWC).save(stream, "JPEG", quality=QUALITY)
    return stream.getvalue()


def decode(data: bytes) -> np.ndarray:
    """Return the pixels (H, W, 3) uint8 of a JPEG that `encode` made."""
    with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
        return np.asarray(image)


def decode_fast(data: np.ndarray) -> np.ndarray:
    """Return the pixels of a JPEG (n,) uint8 that `encode` made, the same as `decode` does, in two thirds of its time."""
    # Why here: importing torchvision takes a second, which those who read no JPEGs need not wait.
    import torch
    import torchvision.io  # noqa: F401  # registers the operation

    # Why not `torchvision.io.decode_jpeg`, which calls this: it warns, each time, that TorchCodec will follow it.
    return torch.ops.image.decode_jpeg(torch.from_numpy(np.array(data)), 3, False).permute(1, 2, 0).numpy()


def header(num_images: int, side: int) -> bytes:
    """Return the first bytes of an .npy file of images, as many for any number of them."""
    stream = io.BytesIO()
    shape = (num_images, side, side, 3)
    np.lib.format.write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return stream.getvalue()


class JpegImages:
    """Images (N, H, W, 3) uint8 that are decoded when they are indexed, as those of an .npy file are read."""

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(self, file: Path, offsets: np.ndarray, side: int) -> None:
        self.file, self.offsets = file, offsets
        self.shape = (len(offsets) - 1, side, side, 3)
        self._data = np.memmap(file, np.uint8, "r") if self.shape[0] else np.empty(0, np.uint8)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> np.ndarray:
        """Return one image or several: `images[i]`, `images[3:7]`, `images[numbers]`, `images[mask]`."""
        numbers = np.arange(len(self))[key]  # Why: an image that is not there is an IndexError
        if numbers.ndim == 0:
            return decode_fast(self._data[self.offsets[numbers] : self.offsets[numbers + 1]])
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
    if not is_prepared(name):
        raise UserError(f"No prepared set {name!r} in {data_dir()}. Make it with: alexnet prepare {name}")
    manifest = files.read_json(folder / MANIFEST, f"Make the set again with: alexnet prepare {name} --force")
    _check_files(folder, manifest, verify)
    codec = manifest.get("codec", "raw")
    splits = {split: open_split(folder / split, codec) for split in manifest["counts"]}
    mean, covariance = (np.load(folder / f"{name}.npy") for name in ("mean", "covariance"))
    classes, words = (tuple(manifest.get(key, manifest["classes"])) for key in ("classes", "words"))
    fingerprint, stand_in = manifest["fingerprint"], manifest["stand_in"]
    return PreparedSet(name, folder, classes, splits, mean, covariance, fingerprint, stand_in, words, codec)


def open_split(folder: Path, codec: Codec) -> Split:
    """Open the images and labels of a finished split."""
    labels = np.load(folder / "labels.npy")
    if codec == "raw":
        return Split(np.load(folder / IMAGE_FILES["raw"], mmap_mode="r"), labels)
    side = np.load(folder.parent / "mean.npy").shape[0]
    return Split(JpegImages(folder / IMAGE_FILES["jpeg"], np.load(folder / OFFSETS, mmap_mode="r"), side), labels)


def _check_files(folder: Path, manifest: dict[str, Any], verify: bool | None) -> None:
    """Raise UserError, naming the file, unless the set's files are as its manifest says.

    Lengths are compared always; the sha256 of files unless `verify` is False, of the images of large sets if it is True.
    """
    lengths, digests = manifest["bytes"], manifest["sha256"]
    for path, length in lengths.items():
        if not (folder / path).is_file():
            raise _changed(folder, path, "missing")
        if (found := (folder / path).stat().st_size) != length:
            raise _changed(folder, path, f"changed since it was prepared: it has {found:,} bytes, not {length:,}")
    if verify is False:
        return
    for path, digest in digests.items():
        if _sha256(folder / path) != digest:
            raise _changed(folder, path, "changed since it was prepared")
    sharded = [path for path in lengths if path not in digests]
    for path in sharded:
        _check_header(folder, path, manifest)
        if verify or sum(lengths[path] for path in sharded) <= HASHED_UP_TO:
            _check_shards(folder, path)


def _changed(folder: Path, path: str, what: str) -> UserError:
    return UserError(f"{folder / path} is {what}. Make the set again with: alexnet prepare {folder.name} --force")


def _check_header(folder: Path, path: str, manifest: dict[str, Any]) -> None:
    if path.endswith(IMAGE_FILES["raw"]):
        wanted = header(sum(manifest["counts"][path.split("/")[0]].values()), manifest["side"])
        with (folder / path).open("rb") as stream:
            if stream.read(len(wanted)) != wanted:
                raise _changed(folder, path, "changed since it was prepared, in its first bytes")


def _check_shards(folder: Path, path: str) -> None:
    """Raise UserError unless each shard of a split's images has its sha256."""
    record = json.loads((folder / path).with_name(SHARDS).read_text())
    total, label = sum(length for length, _ in record["shards"]), f"verifying {path}"
    with (folder / path).open("rb") as stream, tqdm(total=total, desc=label, unit="B", unit_scale=True, leave=False) as bar:
        stream.seek(record["start"])
        for number, (length, digest) in enumerate(record["shards"]):
            found, left = hashlib.sha256(), length
            while left and (block := stream.read(min(left, 2**20))):
                found.update(block)
                left -= len(block)
            if found.hexdigest() != digest:
                raise _changed(folder, path, f"changed since it was prepared, in its shard {number}")
            bar.update(length)


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_split(folder: Path, images_NHWC: np.ndarray, labels_N: np.ndarray) -> None:
    """Write the images and labels of a split that fits into memory."""
    files.write_array(folder / IMAGE_FILES["raw"], np.ascontiguousarray(images_NHWC, np.uint8))
    files.write_array(folder / "labels.npy", labels_N.astype(np.int64))


def finish_set(
    folder: Path,
    classes: Sequence[str],
    splits: Sequence[str],
    statistics: tuple[np.ndarray, np.ndarray] | None = None,
    **facts: Any,
) -> None:
    """Compute counts and checksums of written splits, and mean and covariance unless given; write the manifest."""
    mean, covariance = statistics or pixel_statistics(np.load(folder / "train" / IMAGE_FILES["raw"], mmap_mode="r"))
    files.write_array(folder / "mean.npy", mean.astype(np.float32))
    files.write_array(folder / "covariance.npy", covariance)
    parts = (*IMAGE_FILES.values(), OFFSETS, "labels.npy", SHARDS)
    names = ["mean.npy", "covariance.npy", *(f"{split}/{part}" for split in splits for part in parts)]
    paths = [name for name in names if (folder / name).is_file()]
    # Why: the sha256 of images that were written in shards is in shards.json, so that they need not be read once more.
    sharded = {f"{s}/{name}" for s in splits for name in IMAGE_FILES.values() if (folder / s / SHARDS).is_file()}
    digests = {path: _sha256(folder / path) for path in paths if path not in sharded}
    counts = {}
    for split in splits:
        numbers = np.bincount(np.load(folder / split / "labels.npy"), minlength=len(classes))
        counts[split] = dict(zip(classes, numbers.tolist(), strict=True))
    fingerprint = hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()[:16]
    lengths = {path: (folder / path).stat().st_size for path in paths}
    manifest = {"classes": list(classes), "counts": counts, "fingerprint": fingerprint, "sha256": digests, "bytes": lengths}
    files.write_json(folder / MANIFEST, {**manifest, "side": len(mean), **facts})


def pixel_statistics(images_NHWC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean image (H, W, 3) and the colour covariance (3, 3) over all pixels, accumulated in float64."""
    total, outer = np.zeros(images_NHWC.shape[1:]), np.zeros((3, 3))
    for start in range(0, len(images_NHWC), CHUNK):
        chunk = images_NHWC[start : start + CHUNK].astype(np.float64)
        total += chunk.sum(axis=0)
        outer += colour_products(chunk)
    return statistics_of(total, outer, len(images_NHWC))


def colour_products(pixels: np.ndarray) -> np.ndarray:
    """Return the sum over pixels (..., 3) of the products of two colours, (3, 3) float64, exact."""
    pixels = pixels.reshape(-1, 3).astype(np.float64)
    return pixels.T @ pixels


def statistics_of(total_HWC: np.ndarray, outer: np.ndarray, num_images: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean image and the colour covariance of images from their sum and from that of their colours' products."""
    num_pixels = num_images * total_HWC[..., 0].size
    # Why: sums of integers are exact in any order, so these files have the same bytes on every machine.
    colour = total_HWC.reshape(-1, 3).sum(axis=0) / num_pixels
    return total_HWC / num_images, outer / num_pixels - np.outer(colour, colour)
