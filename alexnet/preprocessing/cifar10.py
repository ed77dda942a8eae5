"""CIFAR-10: torchvision's download (checksummed), a folder in torchvision's layout, or class folders of PNGs."""

import hashlib
import io
from pathlib import Path

import numpy as np
from PIL import Image

from alexnet import files
from alexnet.config import UserError
from alexnet.preprocessing.image_index import ImageIndex, Source, index_classes
from alexnet.preprocessing.photograph import UNREADABLE

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
OF_EACH = {"train": 5000, "test": 1000}  # images of each class
SIDE = 32


def find(source: Path | None, download_dir: Path, accept_bad: bool = False) -> Source:
    """Return the images of both splits in one order whatever the source; without one, download the set into `download_dir`.

    Raises UserError, naming the file or class, for what is missing or damaged, and for other numbers without `accept_bad`.
    """
    splits, is_folders = {}, source is not None and any((source / split).is_dir() for split in OF_EACH)
    listed = {split: _list_folders(source / split, accept_bad) for split in OF_EACH} if is_folders else {}
    for split in OF_EACH:
        splits[split] = _in_order(*(_read_all(listed[split]) if is_folders else _read_batches(source, download_dir, split)))
    return Source(CLASSES, CLASSES, splits, facts={"source": "class folders" if is_folders else "torchvision"})


def _in_order(images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sort by label and then by the sha256 of the pixels, so that all sources of the same images give the same bytes."""
    digests = [hashlib.sha256(image.tobytes()).digest() for image in images]
    order = sorted(range(len(labels)), key=lambda i: (labels[i], digests[i]))
    return images[order], labels[order]


def _list_folders(split_dir: Path, any_number: bool) -> ImageIndex:
    """Index the images of `{train,test}/<class>/`. Raises UserError for other classes or counts."""
    index = index_classes([split_dir], CLASSES)
    for name, count in zip(CLASSES, np.bincount(index.labels, minlength=len(CLASSES)), strict=True):
        if count != OF_EACH[split_dir.name] and not any_number:
            what = f"{split_dir / name} holds {count} images where CIFAR-10 has {OF_EACH[split_dir.name]}"
            raise UserError(f"{what}. Complete the folder, or leave out --source to download the set.")
    return index


def _read_all(index: ImageIndex) -> tuple[np.ndarray, np.ndarray]:
    images = np.empty((len(index), SIDE, SIDE, 3), np.uint8)
    for i in range(len(index)):
        try:
            with Image.open(io.BytesIO(index.read(i)), formats=("PNG",)) as image:
                if image.size != (SIDE, SIDE):
                    raise ValueError(f"{image.width}x{image.height} pixels where {SIDE}x{SIDE} are needed")
                images[i] = image.convert("RGB")
        except UNREADABLE as error:
            raise UserError(f"{index.name(i)} cannot be read as an image ({error}). Replace it and repeat.") from error
    return images, index.labels


def _read_batches(source: Path | None, download_dir: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
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
