"""ILSVRC-2010 and ILSVRC-2012 as they were handed out: tar files or folders, and a development kit that has the labels.

Training images are tars inside a tar, or a folder or tar for each class; the others are in one folder or tar without
classes, or in a folder for each class. Classes are numbered in the order of their wnids, not by the kit's numbers.
torchvision's ImageNet, which knows 2012 only, unpacks it all first, which takes its 145 GB a second time.
"""

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alexnet.config import UserError
from alexnet.preprocessing import archives
from alexnet.preprocessing.archives import Span
from alexnet.preprocessing.listing import class_places, list_classes, list_flat, patched
from alexnet.preprocessing.photographs import Source

PUBLISHED = {
    2010: {"train": 1_261_406, "val": 50_000, "test": 150_000},
    2012: {"train": 1_281_167, "val": 50_000},  # its test labels were never published
}
KIT_NAMES = {"val": "validation", "test": "test"}
NUMBER = re.compile(r"_(\d{8})\.")  # ILSVRC2012_val_00000293.JPEG is the 293rd


@dataclass(frozen=True)
class Kit:
    """What a development kit says: the classes, and the number of the class of each image of the other splits."""

    wnids: tuple[str, ...]
    words: tuple[str, ...]
    label_of_id: dict[int, int]
    num_train_images: int


def find_2010(source: Path) -> Source:
    """Find the images and labels of ILSVRC-2010 (paper Table 1, on test images). Raises UserError for what is missing."""
    return _find(source, 2010)


def find_2012(source: Path) -> Source:
    """Find the images and labels of ILSVRC-2012 (paper Table 2). Raises UserError for what is missing."""
    return _find(source, 2012)


def _find(source: Path, year: int) -> Source:
    roots = {split: _root(source, year, split) for split in PUBLISHED[year]}
    kit = _read_kit(source, year)
    if kit is None:
        wnids = tuple(sorted(class_places(roots["train"])[0]))
        words, official = read_words(source, wnids), dict(PUBLISHED[year])
    else:
        wnids, words, official = kit.wnids, kit.words, {"train": kit.num_train_images}
    splits = {"train": list_classes(roots["train"], wnids)}
    for split in list(PUBLISHED[year])[1:]:
        if roots[split].is_dir() and any(path.is_dir() for path in roots[split].iterdir()):
            splits[split] = list_classes(roots[split], wnids)
            truth = _kit_file(source, _truth_name(year, split))
            official |= {} if truth is None else {split: len(truth.split())}
        else:
            labels = _labels(source, year, split, kit)
            splits[split] = list_flat(roots[split], lambda name, labels=labels: _label(name, labels))
            official |= {split: len(labels)}
    patches = source / "patch_images.tar"
    if patches.is_file():  # Why: some images of 2010's archives say "not available"; this later archive has them
        splits = {split: patched(listing, Span.whole(patches), split) for split, listing in splits.items()}
    return Source(wnids, words, splits, official, _facts(year))


def _facts(year: int) -> dict[str, str]:
    facts = {"source": f"ILSVRC-{year}"}
    if year == 2012:
        facts["note"] = "the labels of the test images were never published: Table 2's test column cannot be measured"
    return facts


def _root(source: Path, year: int, split: str) -> Path:
    """Return the folder or tar file of a split."""
    stems = [f"ILSVRC{year}_{word}_{split}" for word in ("img", "images")]
    names = [f"{stem}.tar" for stem in stems] + [split, *stems]
    for name in names:
        if (source / name).exists():
            return source / name
    raise UserError(f"{source} has none of {', '.join(names)}, where the {split} images of ILSVRC-{year} could be.")


def _kit_file(source: Path, name: str) -> bytes | None:
    """Return the bytes of a file of the development kit, wherever in `source` it is, or None."""
    for pattern in (name, f"data/{name}", f"*devkit*/**/{name}"):
        for file in sorted(source.glob(pattern)):
            return file.read_bytes()
    for file in sorted(source.glob("*devkit*.tar.gz")):
        for found, data in archives.unpacked(file):
            if found == name:
                return data
    return None


def _read_kit(source: Path, year: int) -> Kit | None:
    data = _kit_file(source, "meta.mat")
    if data is None:
        return None
    from scipy.io import loadmat  # Why here: it takes a while to import, and only this needs it

    try:
        synsets = np.atleast_1d(loadmat(io.BytesIO(data), squeeze_me=True)["synsets"])
        rows = zip(*(synsets[field] for field in (f"ILSVRC{year}_ID", "WNID", "words", "num_children", "num_train_images")),
                   strict=True)  # fmt: skip
    except (ValueError, KeyError, NotImplementedError, TypeError) as error:
        raise UserError(
            f"The meta.mat in {source} is not ILSVRC-{year}'s ({error}). Copy its development kit again."
        ) from error
    leaves = sorted((str(wnid), int(number), str(words), int(count)) for number, wnid, words, children, count in rows
                    if children == 0)  # fmt: skip
    label_of_id = {number: label for label, (_, number, _, _) in enumerate(leaves)}
    wnids, words = tuple(leaf[0] for leaf in leaves), tuple(leaf[2] for leaf in leaves)
    return Kit(wnids, words, label_of_id, sum(leaf[3] for leaf in leaves))


def _truth_name(year: int, split: str) -> str:
    return f"ILSVRC{year}_{KIT_NAMES[split]}_ground_truth.txt"


def _labels(source: Path, year: int, split: str, kit: Kit | None) -> list[int]:
    """Return the label of each image of a split that has no folders for classes."""
    name = _truth_name(year, split)
    data = _kit_file(source, name)
    if data is None or kit is None:
        missing = name if data is None else "meta.mat"
        raise UserError(
            f"{missing} is missing: the {split} images are not sorted into classes, so their labels are needed. Put "
            f"ILSVRC-{year}'s development kit{' and that file' * (split == 'test')} into {source} and repeat the command."
        )
    try:
        return [kit.label_of_id[int(number)] for number in data.split()]
    except (ValueError, KeyError) as error:
        raise UserError(
            f"{name} has {error}, which is no class of ILSVRC-{year}. Copy the development kit again."
        ) from error


def _label(name: str, labels: list[int]) -> int | None:
    number = NUMBER.search(name)
    return labels[int(number[1]) - 1] if number and 0 < int(number[1]) <= len(labels) else None


def read_words(source: Path, wnids: tuple[str, ...]) -> tuple[str, ...]:
    """Return what people call each wnid, from `words.txt` or `synset_words.txt` in `source`, or else the wnid itself."""
    words = dict(_word_lines(source))
    return tuple(words.get(wnid, wnid) for wnid in wnids)


def _word_lines(source: Path) -> Iterator[tuple[str, str]]:
    for name in ("words.txt", "synset_words.txt"):
        if (source / name).is_file():
            for line in (source / name).read_text(encoding="utf-8", errors="replace").splitlines():
                wnid, _, words = line.replace("\t", " ").partition(" ")
                yield wnid, words.strip()
