"""CIFAR-10: torchvision's download (checksummed), a folder in torchvision's layout, or class folders of PNGs."""

import hashlib
from pathlib import Path

import numpy as np
from PIL import Image

from alexnet import files
from alexnet.config import UserError
from alexnet.preprocessing.photograph import UNREADABLE

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
OF_EACH = {"train": 5000, "test": 1000}  # images of each class
SIDE = 32

Images = tuple[np.ndarray, np.ndarray]  # (N, 32, 32, 3) uint8, labels (N,)


def has_class_folders(source: Path) -> bool:
    """Return whether `source` is laid out as {train,test}/<class>/*.png."""
    return any((source / split).is_dir() for split in OF_EACH)


def read(source: Path | None, download_dir: Path, accept_bad: bool = False) -> dict[str, Images]:
    """Return the images of both splits in one order whatever the source; without one, download the set into `download_dir`.

    Class folders with fewer or more images than CIFAR-10 has are accepted with `accept_bad` only. Raises UserError, naming
    the file or class, for what is missing, damaged or not CIFAR-10's.
    """
    if source is not None and has_class_folders(source):
        found = {split: _list_pngs(source / split, accept_bad) for split in OF_EACH}  # Why first: before any is decoded
        return {split: _in_order(_read_pngs(*listed), listed[1]) for split, listed in found.items()}
    return {split: _in_order(*_read_batches(source, download_dir, split)) for split in OF_EACH}


def _in_order(images: np.ndarray, labels: np.ndarray) -> Images:
    """Sort by label and then by the sha256 of the pixels, so that all sources of the same images give the same bytes."""
    digests = [hashlib.sha256(image.tobytes()).digest() for image in images]
    order = sorted(range(len(labels)), key=lambda i: (labels[i], digests[i]))
    return images[order], labels[order]


def _list_pngs(split_dir: Path, any_number: bool) -> tuple[list[Path], np.ndarray]:
    """List the PNGs of `{train,test}/<class>/` in class order, with labels; UserError for other folders or counts."""
    found = sorted(path.name for path in split_dir.iterdir() if path.is_dir()) if split_dir.is_dir() else []
    if tuple(found) != CLASSES:
        odd = sorted(set(found) - set(CLASSES)) or sorted(set(CLASSES) - set(found))
        raise UserError(
            f"{split_dir / odd[0]} {'should not be there' if odd[0] in found else 'is missing'}: the class folders must be "
            f"{', '.join(CLASSES)}, because a label is a folder's place in this order."
        )
    pngs: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(CLASSES):
        of_class = sorted((split_dir / name).glob("*.png"))
        if len(of_class) != OF_EACH[split_dir.name] and not any_number:
            raise UserError(
                f"{split_dir / name} holds {len(of_class)} PNG files where CIFAR-10 has {OF_EACH[split_dir.name]}. "
                "Complete the folder (or leave out --source to download the set) and repeat the command."
            )
        pngs += of_class
        labels += [label] * len(of_class)
    return pngs, np.array(labels, np.int64)


def _read_pngs(pngs: list[Path], labels: np.ndarray) -> np.ndarray:
    images = np.empty((len(pngs), SIDE, SIDE, 3), np.uint8)
    for out, png in zip(images, pngs, strict=True):
        out[...] = _read_png(png)
    return images


def _read_png(png: Path) -> np.ndarray:
    try:
        with Image.open(png, formats=("PNG",)) as image:
            pixels = np.asarray(image.convert("RGB"))
    except UNREADABLE as error:
        raise UserError(f"{png} cannot be read as an image ({error}). Replace it and repeat the command.") from error
    if pixels.shape != (SIDE, SIDE, 3):
        found = f"{pixels.shape[1]}x{pixels.shape[0]}"
        raise UserError(f"{png} has {found} pixels where {SIDE}x{SIDE} are needed. Replace it and repeat.")
    return pixels


def _read_batches(source: Path | None, download_dir: Path, split: str) -> Images:
    """Read a split through torchvision, which checks the MD5 sums; download it when no source is given."""
    from torchvision.datasets import CIFAR10  # Why here: it takes two seconds, which most commands can do without

    root = source or download_dir
    try:
        data = CIFAR10(str(root), train=split == "train", download=source is None)
    except (RuntimeError, OSError) as error:
        if isinstance(error, OSError) and error.errno in files.FULL:
            raise
        raise UserError(
            f"CIFAR-10 could not be read or downloaded below {root} ({error}). Without a network, give a copy: alexnet "
            "prepare cifar10 --source DIR, where DIR has {train,test}/<class>/*.png or the unpacked cifar-10-batches-py."
        ) from error
    return data.data, np.array(data.targets)
