"""Sets of photographs, each found on disk in whichever layout its owner has it.

ilsvrc2010, ilsvrc2012   as they were handed out: tar files or folders, and a development kit that has the labels. Training
                         images are tars inside a tar, or a folder or tar for each class; the others are in one folder or tar
                         without classes, or in a folder for each class. Classes are numbered in the order of their wnids,
                         not by the kit's numbers. torchvision's ImageNet knows 2012 only and unpacks its 145 GB first.
fall2009, fall2011       the whole of ImageNet as it was then: a tar file or a folder for each wnid
imagenet20, imagenette   twenty classes, or ten, of ILSVRC for machines that cannot hold it all: Imagenette v2, Imagewoof v2
folders                  a set of one's own: train/<class>/ and val/<class>/ or test/<class>/
"""

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alexnet import randomness
from alexnet.config import UserError
from alexnet.preprocessing.catalog import SETS
from alexnet.preprocessing.image_index import (
    Group,
    ImageIndex,
    Source,
    TarSpan,
    class_places,
    index_classes,
    index_flat,
    patched,
    unpacked,
)

KIT_NAMES = {"val": "validation", "test": "test"}
NUMBER = re.compile(r"_(\d{8})\.")  # ILSVRC2012_val_00000293.JPEG is the 293rd
HALVES_SEED = 2009


def _words(text: str) -> dict[str, str]:
    return dict(pair.split(" ", 1) for pair in text.split(", "))


IMAGENETTE = _words(
    "n01440764 tench, n02102040 English springer, n02979186 cassette player, n03000684 chain saw, n03028079 church, "
    "n03394916 French horn, n03417042 garbage truck, n03425413 gas pump, n03445777 golf ball, n03888257 parachute"
)
IMAGEWOOF = _words(
    "n02086240 Shih-Tzu, n02087394 Rhodesian ridgeback, n02088364 beagle, n02089973 English foxhound, "
    "n02093754 Border terrier, n02096294 Australian terrier, n02099601 golden retriever, "
    "n02105641 Old English sheepdog, n02111889 Samoyed, n02115641 dingo"
)
PUBLISHER = "https://s3.amazonaws.com/fast-ai-imageclas"
# Why 320 pixels: the archives of that size are a fifth of the full ones, and 256 are needed.
DOWNLOADS = {
    "imagenette2-320": (f"{PUBLISHER}/imagenette2-320.tgz", "3df6f0d01a2c9592104656642f5e78a3"),
    "imagewoof2-320": (f"{PUBLISHER}/imagewoof2-320.tgz", "af65be7963816efa949fa3c3b4947740"),
}
PARTS_OF = {"imagenet20": {"imagenette2": IMAGENETTE, "imagewoof2": IMAGEWOOF}, "imagenette": {"imagenette2": IMAGENETTE}}


@dataclass(frozen=True)
class Kit:
    """What a development kit says: the classes, and the number of the class of each image of the other splits."""

    wnids: tuple[str, ...]
    words: tuple[str, ...]
    label_of_id: dict[int, int]
    num_train_images: int


def find_ilsvrc(source: Path, year: int) -> Source:
    """Find the images and labels of ILSVRC-2010 or 2012 (paper Tables 1 and 2). Raises UserError for what is missing."""
    published = SETS[f"ilsvrc{year}"].counts
    roots = {split: _root(source, year, split) for split in published}
    kit = _read_kit(source, year)
    if kit is None:
        wnids = tuple(sorted(class_places(roots["train"])))
        words, official = _read_words(source, wnids), dict(published)
    else:
        wnids, words, official = kit.wnids, kit.words, {"train": kit.num_train_images}
    splits = {"train": index_classes([roots["train"]], wnids)}
    for split in list(published)[1:]:
        if roots[split].is_dir() and any(path.is_dir() for path in roots[split].iterdir()):
            splits[split] = index_classes([roots[split]], wnids)
            truth = _kit_file(source, _truth_name(year, split))
            official |= {} if truth is None else {split: len(truth.split())}
        else:
            labels = _labels(source, year, split, kit)
            splits[split] = index_flat(roots[split], lambda name, labels=labels: _label(name, labels))
            official |= {split: len(labels)}
    patches = source / "patch_images.tar"
    if patches.is_file():  # Why: some images of 2010's archives say "not available"; this later archive has them
        splits = {split: patched(index, patches, split) for split, index in splits.items()}
    facts = {"source": f"ILSVRC-{year}"}
    if year == 2012:
        facts["note"] = "the labels of the test images were never published: Table 2's test column cannot be measured"
    return Source(wnids, words, splits, official, facts)


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
        for found, data in unpacked(file):
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
        columns = (f"ILSVRC{year}_ID", "WNID", "words", "num_children", "num_train_images")
        rows = zip(*(synsets[column] for column in columns), strict=True)
    except (ValueError, KeyError, NotImplementedError, TypeError) as error:
        raise UserError(
            f"The meta.mat in {source} is not ILSVRC-{year}'s ({error}). Copy its development kit again."
        ) from error
    leaves = sorted((str(wnid), int(k), str(words), int(count)) for k, wnid, words, children, count in rows if children == 0)
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


def _read_words(source: Path, wnids: tuple[str, ...]) -> tuple[str, ...]:
    """Return what people call each wnid, from `words.txt` or `synset_words.txt` in `source`, or else the wnid itself."""
    words = {}
    for name in ("words.txt", "synset_words.txt"):
        if (source / name).is_file():
            for line in (source / name).read_text(encoding="utf-8", errors="replace").splitlines():
                wnid, _, word = line.replace("\t", " ").partition(" ")
                words[wnid] = word.strip()
    return tuple(words.get(wnid, wnid) for wnid in wnids)


def find_fall(source: Path, year: int) -> Source:
    """Find the images of the fall of 2009 or 2011. Raises UserError for an empty folder.

    Paper 6: of 2009's 8.9 million images half were for training and half for testing; the paper does not say which, so the
    halves here are drawn from a seed, class by class. 2011's release served to pre-train two nets of Table 2.
    """
    places = class_places(source)
    root = source
    if len(places) == 1:  # the one tar of tars, or folder of folders
        (place,) = places.values()
        root = place.file if isinstance(place, TarSpan) else place
    wnids = tuple(sorted(class_places(root)))
    if not wnids:
        raise UserError(f"{source} holds neither <wnid>.tar nor <wnid>/ nor one tar file of such tar files.")
    index = index_classes([root], wnids)
    facts = {"source": f"ImageNet, fall {year}", "published_classes": SETS[f"fall{year}"].num_classes}
    splits = {"train": index}
    if year == 2009:
        halves = [_halves(group, wnid) for group, wnid in zip(index.groups, wnids, strict=True)]
        train = ImageIndex(tuple(first for first, _ in halves), index.refused, index.remarks)
        splits = {"train": train, "test": ImageIndex(tuple(second for _, second in halves))}
        facts["split_seed"] = HALVES_SEED
    return Source(wnids, _read_words(source, wnids), splits, facts=facts)


def _halves(group: Group, wnid: str) -> tuple[Group, Group]:
    """Divide a class into two halves; of an odd number of images one half, in turn, gets one more."""
    count = len(group.names)
    more = count % 2 * (group.label % 2)
    order = randomness.generator(HALVES_SEED, f"halves of {wnid}").permutation(count)
    half = count // 2 + more
    return group.take(np.sort(order[:half])), group.take(np.sort(order[half:]))


def find_imagenet20(source: Path, name: str) -> Source:
    """Find the images of imagenet20 or imagenette: {train,val}/<wnid>/, or the archives unpacked beside each other.

    Raises UserError for other folders.
    """
    parts, counts = PARTS_OF[name], SETS[name].counts
    words = {wnid: word for part in parts.values() for wnid, word in part.items()}
    splits = {}
    for split in counts:
        is_one = (source / split).is_dir()
        roots = [source / split] if is_one else [_unpacked_part(source, part, split) for part in parts]
        splits[split] = index_classes(roots, tuple(words), others=name == "imagenette")
    return Source(tuple(words), tuple(words.values()), splits, official=counts, facts={"source": "class folders"})


def _unpacked_part(source: Path, part: str, split: str) -> Path:
    found = sorted([*source.glob(f"{part}*/{split}"), *source.glob(f"{part}*/{part}*/{split}")])
    if not found:
        raise UserError(
            f"{source} has neither {split}/<wnid>/ nor {part}*/{split}/<wnid>/. Point --source at a folder with one "
            "of the two layouts, or leave it out to download the set."
        )
    return found[0]


def download_imagenet20(folder: Path, name: str) -> Path:
    """Download and unpack the archives of imagenet20 or imagenette into `folder`. Raises UserError without a network."""
    from torchvision.datasets.utils import download_and_extract_archive  # Why here: it takes two seconds to import

    for archive, (url, md5) in DOWNLOADS.items():
        if archive.split("-")[0] not in PARTS_OF[name]:
            continue
        try:  # The archive is fetched again where it is not what its MD5 sum says; what it holds is therefore known.
            download_and_extract_archive(url, str(folder), str(folder / archive), md5=md5)
        except (RuntimeError, OSError) as error:
            raise UserError(
                f"{url} could not be downloaded ({error}). Repeat the command, or without a network give a copy: "
                f"alexnet prepare {name} --source DIR"
            ) from error
    return folder


def find_folders(source: Path) -> Source:
    """Index the images of `source`; its classes are the folders of `train` in the order of their names.

    Raises UserError when `train`, or both of the others, are missing, or their folders differ from those of `train`.
    """
    splits = [split for split in ("train", "val", "test") if (source / split).is_dir()]
    if splits[:1] != ["train"] or len(splits) == 1:
        raise UserError(
            f"{source} has {', '.join(splits) or 'neither train, val nor test'}; a set needs train/<class>/ and "
            "val/<class>/ or test/<class>/."
        )
    names = tuple(sorted(class_places(source / "train")))
    return Source(names, names, {split: index_classes([source / split], names) for split in splits})


FINDERS: dict[str, Callable[[Path], Source]] = {
    "imagenet20": lambda source: find_imagenet20(source, "imagenet20"),
    "imagenette": lambda source: find_imagenet20(source, "imagenette"),
    "ilsvrc2010": lambda source: find_ilsvrc(source, 2010),
    "ilsvrc2012": lambda source: find_ilsvrc(source, 2012),
    "fall2009": lambda source: find_fall(source, 2009),
    "fall2011": lambda source: find_fall(source, 2011),
    "folders": find_folders,
}
