"""CIFAR-10: torchvision's download (checksummed), a copy of it, or class folders of PNGs."""

import hashlib
import pickle
from functools import partial
from pathlib import Path

import numpy as np

from alexnet.config import UserError
from alexnet.preprocessing import photograph
from alexnet.preprocessing.image_index import ImageIndex, Source, damage_named, files_named, index_classes

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
OF_EACH = {"train": 5000, "test": 1000}  # images of each class
SIDE = 32
NO_NETWORK = (
    "Without a network, give a copy: alexnet prepare cifar10 --source DIR, where DIR has {train,test}/<class>/*.png, or the "
    "unpacked cifar-10-batches-py, or the archive cifar-10-python.tar.gz."
)
Images = tuple[np.ndarray, np.ndarray]  # (N, H, W, 3) uint8 and their labels (N,)


def find(source: Path | None, download_dir: Path, accept_bad: bool = False) -> Source:
    """Return the images of both splits in one order whatever the source; without one, download the set into `download_dir`.

    Raises UserError, naming the file or class, for what is missing or damaged, and for other numbers without `accept_bad`.
    """
    if source is not None and any((source / split).is_dir() for split in OF_EACH):
        kind = "class folders"
        splits = {split: _read_all(index_classes([source / split], CLASSES)) for split in OF_EACH}
    else:
        kind, splits = "torchvision", _read_batches(source, download_dir)
    for split, (images, labels) in splits.items():
        for name, count in zip(CLASSES, np.bincount(labels, minlength=len(CLASSES)), strict=True):
            if count != OF_EACH[split] and not accept_bad:
                what = f"{source}/{split}/{name} holds {count} images where CIFAR-10 has {OF_EACH[split]}"
                raise UserError(f"{what}. Complete the folder, or leave out --source to download the set.")
        # Why sorted by the sha256 of the pixels: so that all sources of the same images give the same bytes.
        order = sorted(range(len(labels)), key=lambda i: (labels[i], hashlib.sha256(images[i].tobytes()).digest()))
        splits[split] = images[order], labels[order]
    return Source(CLASSES, CLASSES, splits, facts={"source": kind})


def _read_all(index: ImageIndex) -> Images:
    images = np.empty((len(index), SIDE, SIDE, 3), np.uint8)
    for i in range(len(index)):
        if isinstance(found := photograph.read_or_why(partial(index.read, i), SIDE, only="PNG"), str):
            raise UserError(f"{index.name(i)} cannot be read as an image ({found}). Replace it and repeat.")
        images[i] = found
    return images, index.labels


def _read_batches(source: Path | None, download_dir: Path) -> dict[str, Images]:
    """Read the version for Python, whose MD5 sums torchvision knows; download it when no source is given."""
    from torchvision.datasets import CIFAR10, utils  # Why here: it takes two seconds, which most commands can do without

    names = {"train": [name for name, _ in CIFAR10.train_list], "test": [name for name, _ in CIFAR10.test_list]}
    what = f"CIFAR-10 could not be read or downloaded below {source or download_dir}"
    with damage_named(what, NO_NETWORK):
        if source is None:
            utils.download_url(CIFAR10.url, str(download_dir), CIFAR10.filename, CIFAR10.tgz_md5)
        folders = f"{CIFAR10.base_folder}/", ""
        found = files_named(source or download_dir, [*names["train"], *names["test"]], folders, CIFAR10.filename)
        for name, md5 in (*CIFAR10.train_list, *CIFAR10.test_list):
            if hashlib.md5(found.get(name, b"")).hexdigest() != md5:
                raise RuntimeError(f"{name} is damaged" if name in found else f"{name} is missing")
    # Unpickling executes what a file says; these are known by their sums.
    parts = {split: [pickle.loads(found[name], encoding="latin1") for name in names[split]] for split in names}
    joined = {s: [np.concatenate([part[key] for part in of]) for key in ("data", "labels")] for s, of in parts.items()}
    return {s: (rows.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1), labels) for s, (rows, labels) in joined.items()}
