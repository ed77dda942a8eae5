"""Where images come from: each source becomes a prepared set (`store.py`).

cifar10     torchvision's download (checksummed), a folder in torchvision's layout, or class folders of PNGs
formula32   the embedded stand-in for CIFAR-10, computed from a seed (`formula.py`)
formula256  the embedded stand-in for ILSVRC, likewise
imagenet20  Imagenette v2 and Imagewoof v2 (`imagenet20.py`)
ilsvrc2010, ilsvrc2012   the competition's archives or folders (`ilsvrc.py`)
fall2009, fall2011       the whole of ImageNet (`fall.py`)
folders     any train/<class> and val/<class> or test/<class> (`folders.py`)
"""

import functools
import hashlib
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
from PIL import Image

from alexnet.config import UserError
from alexnet.preprocessing import disk, fall, folders, formula, ilsvrc, imagenet20, photographs, store
from alexnet.preprocessing.codec import Codec
from alexnet.preprocessing.photographs import Request, Source
from alexnet.preprocessing.store import PreparedSet

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CIFAR10_COUNTS = {"train": 5000, "test": 1000}  # images of each class
CIFAR10_BYTES = 60_000 * 32 * 32 * 3


def prepare(
    name: str,
    source: Path | None = None,
    force: bool = False,
    processes: int | None = None,
    codec: Codec | None = None,
    accept_bad: bool = False,
    verify: bool | None = None,
) -> PreparedSet:
    """Make the prepared set `name` unless it is there, going on where an earlier call stopped, and return it opened.

    `source` is a folder to read from instead of a download. `force` starts again. Photographs are decoded by `processes`, by
    default one on each core, and kept in the form `codec` (`codec.py`), by default chosen by size; `accept_bad` goes on
    without those that are missing or unreadable even if they are more than 0.1 %. `verify` compares every byte with the
    checksums. Raises UserError for an unknown set, a source that is not what it should be (the message names the file), or a
    full disk; what was done is kept.
    """
    if name not in PREPARERS:
        raise UserError(f"There is no data set {name!r}; known are {', '.join(PREPARERS)}.")
    folder = store.data_dir() / name
    if force or not store.is_prepared(name):
        with disk.alone(store.data_dir() / f"{name}.lock"):
            if force or not store.is_prepared(name):  # Why again: another process may have made it in the meantime
                PREPARERS[name](folder, Request(source, force, processes, codec, accept_bad))
    data = store.open_set(name, verify)
    if codec not in (None, data.codec):
        raise UserError(f"{name} is prepared with --codec {data.codec}. To make it again with {codec}, add --force.")
    return data


def _prepare_cifar10(folder: Path, request: Request) -> None:
    source = request.source
    class_folders = source is not None and any((source / split).is_dir() for split in CIFAR10_COUNTS)
    if class_folders:
        for split in CIFAR10_COUNTS:
            _cifar10_files(source / split)
    elif source is not None:
        _refuse_damaged_batches(source)
    request.clear(folder)
    # Why so much: sorting writes the images a second time; a download is an archive and what is unpacked from it.
    with disk.disk_errors_named(folder, bytes_needed=(4 if source is None else 2) * CIFAR10_BYTES):
        for split in CIFAR10_COUNTS:
            if source is not None and class_folders:
                files, labels = _cifar10_files(source / split)
                order = hashlib.sha256("\n".join(map(str, files)).encode()).hexdigest()
                store.fill_split(folder / split, labels, 32, lambda i, files=files: read_rgb(files[i], side=32), order)
            else:
                images, labels = _torchvision_cifar10(folder, source, split)
                store.fill_split(folder / split, labels, 32, images.__getitem__, "torchvision")
            # Why: so that the download and the class folders, whose orders differ, give the same bytes.
            store.sort_canonically(folder / split)
        facts = {"source": "class folders" if class_folders else "torchvision"}
        store.finish_set(folder, CIFAR10_CLASSES, tuple(CIFAR10_COUNTS), stand_in=False, **facts)
    shutil.rmtree(folder / "download", ignore_errors=True)


def _cifar10_files(split_dir: Path) -> tuple[list[Path], np.ndarray]:
    """List the PNGs of `{train,test}/<class>/` in class order; UserError for other folders or other counts."""
    found = sorted(path.name for path in split_dir.iterdir() if path.is_dir()) if split_dir.is_dir() else []
    if tuple(found) != CIFAR10_CLASSES:
        odd = sorted(set(found) - set(CIFAR10_CLASSES)) or sorted(set(CIFAR10_CLASSES) - set(found))
        raise UserError(
            f"{split_dir / odd[0]} {'should not be there' if odd[0] in found else 'is missing'}: the class folders must be "
            f"{', '.join(CIFAR10_CLASSES)}, because a label is a folder's place in this order."
        )
    files: list[Path] = []
    for name in CIFAR10_CLASSES:
        of_class = sorted((split_dir / name).glob("*.png"))
        if len(of_class) != CIFAR10_COUNTS[split_dir.name]:
            raise UserError(
                f"{split_dir / name} holds {len(of_class)} PNG files where CIFAR-10 has {CIFAR10_COUNTS[split_dir.name]}. "
                "Complete the folder (or leave out --source to download the set) and repeat the command."
            )
        files += of_class
    return files, np.repeat(np.arange(len(CIFAR10_CLASSES)), CIFAR10_COUNTS[split_dir.name])


def torchvision_datasets() -> ModuleType:
    """Import `torchvision.datasets`; only here, because it takes two seconds that most commands can do without."""
    import torchvision.datasets

    return torchvision.datasets


def _torchvision_cifar10(folder: Path, source: Path | None, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Read CIFAR-10, by label, through torchvision, which checks the MD5 sums; download it when no source is given."""
    root = source if source is not None else folder / "download"
    try:
        data = torchvision_datasets().CIFAR10(str(root), train=split == "train", download=source is None)
    except (RuntimeError, OSError) as error:
        if isinstance(error, OSError) and error.errno in disk.FULL:
            raise
        raise UserError(
            f"CIFAR-10 could not be read or downloaded below {root} ({error}). Without a network, give a copy: "
            "alexnet prepare cifar10 --source DIR"
        ) from error
    labels = np.array(data.targets)
    order = np.argsort(labels, kind="stable")
    return data.data[order], labels[order]


def _refuse_damaged_batches(source: Path) -> None:
    """Raise UserError, naming the file, unless `source` holds the files that torchvision unpacks, intact."""
    layout = torchvision_datasets().CIFAR10
    for name, md5 in [*layout.train_list, *layout.test_list]:
        file = source / layout.base_folder / name
        if not torchvision_datasets().utils.check_integrity(str(file), md5):
            what = "is not the published file (its MD5 sum differs)" if file.is_file() else "is missing"
            raise UserError(
                f"{file} {what}, and {source} has no class folders {{train,test}}/<class>/*.png either. Point --source at "
                "one of the two layouts, or leave it out to download the set."
            )


def read_rgb(file: Path, side: int) -> np.ndarray:
    """Read an image as (side, side, 3) uint8. Raises UserError naming the file when it is unreadable or another size."""
    try:
        with Image.open(file) as image:
            pixels = np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise UserError(
            f"{file} cannot be read as an image ({error}). Replace it and repeat the command: it goes on from there."
        ) from error
    if pixels.shape != (side, side, 3):
        raise UserError(
            f"{file} has {pixels.shape[1]}x{pixels.shape[0]} pixels where {side}x{side} are needed. Replace it and repeat."
        )
    return pixels


def _formula_decoder(spec: formula.Spec, split: str) -> Callable[[int], np.ndarray]:
    """Return image number -> image, which computes a block at a time and remembers the last one."""

    @functools.lru_cache(maxsize=1)
    def block(number: int) -> np.ndarray:
        return formula.generate(spec, split, spec.block, first=number * spec.block)[0]

    return lambda i: block(i // spec.block)[i % spec.block]


def _prepare_formula(spec: formula.Spec) -> Callable[[Path, Request], None]:
    def preparer(folder: Path, request: Request) -> None:
        if request.source is not None:
            raise UserError(f"{spec.name} is computed from a seed; leave out --source.")
        request.clear(folder)
        with disk.disk_errors_named(folder, spec.num_bytes):
            for split, count in spec.counts.items():
                labels, decode = formula.labels(spec, count), _formula_decoder(spec, split)
                store.fill_split(folder / split, labels, spec.side, decode, source=repr(spec))
            store.finish_set(folder, spec.classes, tuple(spec.counts), stand_in=True, source="formula", seed=spec.seed)

    return preparer


def _prepare_photographs(find: Callable[[Path], Source]) -> Callable[[Path, Request], None]:
    def preparer(folder: Path, request: Request) -> None:
        if request.source is None:
            raise UserError(
                f"{folder.name} is made of images on disk. Say where: alexnet prepare {folder.name} --source DIR"
            )
        if not request.source.is_dir():
            raise UserError(f"{request.source} is not a folder. Point --source at the images of {folder.name}.")
        photographs.prepare(folder, find(request.source), request)

    return preparer


def _prepare_imagenet20(folder: Path, request: Request) -> None:
    download = folder.with_name(f"{folder.name}.download")
    if request.source is None:
        with disk.disk_errors_named(download, imagenet20.DOWNLOAD_BYTES):
            request = replace(request, source=imagenet20.download(download))
    _prepare_photographs(imagenet20.find)(folder, request)
    shutil.rmtree(download, ignore_errors=True)


PREPARERS: dict[str, Callable[[Path, Request], None]] = {
    "cifar10": _prepare_cifar10,
    "formula32": _prepare_formula(formula.SMALL),
    "formula256": _prepare_formula(formula.LARGE),
    "imagenet20": _prepare_imagenet20,
    "ilsvrc2010": _prepare_photographs(ilsvrc.find_2010),
    "ilsvrc2012": _prepare_photographs(ilsvrc.find_2012),
    "fall2009": _prepare_photographs(fall.find_2009),
    "fall2011": _prepare_photographs(fall.find_2011),
    "folders": _prepare_photographs(folders.find),
}


PUBLISHED = {
    "imagenet20": imagenet20.COUNTS,
    **{f"ilsvrc{year}": counts for year, counts in ilsvrc.PUBLISHED.items()},
}


def expected_counts(name: str) -> dict[str, int]:
    """Return the number of images in each split of set `name`, prepared or not. Raises UserError for an unknown set."""
    if name == "cifar10":
        return {split: count * len(CIFAR10_CLASSES) for split, count in CIFAR10_COUNTS.items()}
    specs = {spec.name: spec for spec in (formula.SMALL, formula.LARGE)}
    if name in PUBLISHED:
        return dict(PUBLISHED[name])
    if name in PREPARERS and name not in specs:
        raise UserError(f"{name} has no published size: it is as large as what you prepare it from.")
    if name not in specs:
        raise UserError(f"There is no data set {name!r}; known are {', '.join(PREPARERS)}.")
    return dict(specs[name].counts)


def expected_bytes(name: str) -> int:
    """Return the bytes that set `name` takes on disk."""
    side = 256 if name == "formula256" or name in PUBLISHED else 32
    return sum(expected_counts(name).values()) * side * side * 3
