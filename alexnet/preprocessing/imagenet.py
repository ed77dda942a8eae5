"""Sets of photographs, each found on disk in whichever layout its owner has it.

ilsvrc2010, ilsvrc2012   as they were handed out, with a development kit that has the labels: training images in tars inside
                         a tar, or a folder or tar for each class; others in one folder or tar, or in class folders.
                         Classes are numbered in the order of their wnids. torchvision's ImageNet unpacks 145 GB first.
fall2009, fall2011       the whole of ImageNet as it was then: a tar file or a folder for each wnid
imagenet20, imagenette   twenty classes, or ten, of ILSVRC for machines that cannot hold it all: Imagenette v2, Imagewoof v2
folders                  a set of one's own: train/<class>/ and val/<class>/ or test/<class>/
"""

import io
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from alexnet import randomness
from alexnet.config import UserError
from alexnet.preprocessing.catalog import SETS
from alexnet.preprocessing.image_index import (
    ImageIndex,
    Place,
    Source,
    class_places,
    index_classes,
    index_place,
    joined,
)

HALVES_SEED = 2009
LARGEST_KIT_FILE = 64 * 2**20  # bytes; more is not unpacked into memory


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
PARTS_OF = {"imagenet20": {"imagenette2": IMAGENETTE, "imagewoof2": IMAGEWOOF}, "imagenette": {"imagenette2": IMAGENETTE}}
PUBLISHER = "https://s3.amazonaws.com/fast-ai-imageclas"
DOWNLOADS = {  # Why 320 pixels: the archives of that size are a fifth of the full ones, and 256 are needed.
    "imagenette2": (f"{PUBLISHER}/imagenette2-320.tgz", "3df6f0d01a2c9592104656642f5e78a3"),
    "imagewoof2": (f"{PUBLISHER}/imagewoof2-320.tgz", "af65be7963816efa949fa3c3b4947740"),
}


def find_ilsvrc(source: Path, year: int) -> Source:
    """Find the images and labels of ILSVRC-2010 or 2012 (paper Tables 1 and 2). Raises UserError for what is missing."""
    official = dict(SETS[f"ilsvrc{year}"].counts)
    roots = {split: _root(source, year, split) for split in official}
    truths = {"val": f"ILSVRC{year}_validation_ground_truth.txt", "test": f"ILSVRC{year}_test_ground_truth.txt"}
    kit = _kit_files(source, ("meta.mat", *truths.values()))
    label_of_id: dict[int, int] = {}
    if "meta.mat" in kit:
        wnids, words, label_of_id, official["train"] = _classes(kit["meta.mat"], source, year)
    else:
        wnids = tuple(sorted(class_places(roots["train"])))
        words = _read_words(source, wnids)
    splits = {"train": index_classes([roots["train"]], wnids)}
    for split in list(official)[1:]:
        if truths[split] in kit:
            official[split] = len(kit[truths[split]].split())
        if any(path.is_dir() for path in roots[split].glob("*")):
            splits[split] = index_classes([roots[split]], wnids)
        else:
            label_of = _label_of(kit, truths[split], label_of_id, f"{source} (ILSVRC-{year}, {split} images)")
            splits[split] = index_place(Place(roots[split]), label_of)
    patches = source / "patch_images.tar"
    if patches.is_file():  # Why: some images of 2010's archives say "not available"; this later archive has them
        splits = {split: _patched(index, patches) for split, index in splits.items()}
    return Source(wnids, words, splits, official, {"source": f"ILSVRC-{year}"})


def _root(source: Path, year: int, split: str) -> Path:
    """Return the folder or tar file of a split."""
    stems = [f"ILSVRC{year}_{word}_{split}" for word in ("img", "images")]
    names = [f"{stem}.tar" for stem in stems] + [split, *stems]
    if found := [source / name for name in names if (source / name).exists()]:
        return found[0]
    raise UserError(f"{source} has none of {', '.join(names)}, where the {split} images of ILSVRC-{year} could be.")


def _kit_files(source: Path, names: tuple[str, ...]) -> dict[str, bytes]:
    """Return those files of the development kit that are in `source`, also unpacked or in the kit's archive."""
    patterns = [folder + name for name in names for folder in ("*devkit*/**/", "data/", "")]
    found = {file.name: file.read_bytes() for pattern in patterns for file in sorted(source.glob(pattern), reverse=True)}
    for archive in [] if "meta.mat" in found else sorted(source.glob("*devkit*.tar.gz")):
        try:
            with tarfile.open(archive, "r:gz") as tar:
                members = {PurePosixPath(member.name).name: member for member in tar if member.isreg()}
                small = [name for name in names if name in members and members[name].size <= LARGEST_KIT_FILE]
                found = {name: tar.extractfile(members[name]).read() for name in small} | found
        except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
            raise UserError(f"{archive} cannot be unpacked ({error}). Copy it again and repeat the command.") from error
    return found


def _classes(meta: bytes, source: Path, year: int) -> tuple[tuple[str, ...], tuple[str, ...], dict[int, int], int]:
    """Return what a kit says: wnids, words, the label of each of its numbers, and the number of training images."""
    from scipy.io import loadmat  # Why here: it takes a while to import, and only this needs it

    try:
        synsets = np.atleast_1d(loadmat(io.BytesIO(meta), squeeze_me=True)["synsets"])
        columns = ("WNID", "words", f"ILSVRC{year}_ID", "num_train_images", "num_children")
        rows = zip(*(synsets[column] for column in columns), strict=True)
        leaves = sorted((str(w), str(words), int(k), int(count)) for w, words, k, count, children in rows if children == 0)
        wnids, words, numbers, counts = zip(*leaves, strict=True)
    except (ValueError, KeyError, NotImplementedError, TypeError) as error:
        raise UserError(f"The meta.mat in {source} is not ILSVRC-{year}'s ({error}). Copy its kit again.") from error
    return wnids, words, {number: label for label, number in enumerate(numbers)}, sum(counts)


def _label_of(kit: dict[str, bytes], truth: str, label_of_id: dict[int, int], where: str) -> Callable[[bytes], int | None]:
    """Return the function from an image's name to its label, for a split that has no folders for classes."""
    if missing := [name for name in (truth, "meta.mat") if name not in kit]:
        raise UserError(
            f"{missing[0]} is missing in {where}, which are not sorted into classes. Put the development kit there, and for "
            "test images the file of their labels, and repeat the command."
        )
    try:
        labels = {b"%08d" % i: label_of_id[int(number)] for i, number in enumerate(kit[truth].split(), 1)}
    except (ValueError, KeyError) as error:
        raise UserError(f"{truth} has {error}, which is no class of {where}. Copy the development kit again.") from error
    return lambda name: labels.get(name.split(b".")[0][-8:])  # ILSVRC2012_val_00000293.JPEG is the 293rd


def _patched(index: ImageIndex, patches: Path) -> ImageIndex:
    """Replace the images of which the archive `patches` has another version, last in their class."""
    label_of = dict(zip(index.rows["name"].tolist(), index.labels.tolist(), strict=True))
    new = replace(index_place(Place(patches), label_of.get), refused=())  # Why: it has images of other splits
    kept = ~np.isin(index.rows["name"], new.rows["name"])
    both = joined([replace(index, rows=index.rows[kept]), new])
    return replace(both, rows=both.rows[np.argsort(both.labels, kind="stable")])


def _read_words(source: Path, wnids: tuple[str, ...]) -> tuple[str, ...]:
    """Return what people call each wnid, from `words.txt` or `synset_words.txt` in `source`, or else the wnid itself."""
    words = {}
    for file in filter(Path.is_file, (source / "words.txt", source / "synset_words.txt")):
        lines = file.read_text(encoding="utf-8", errors="replace").replace("\t", " ").splitlines()
        words |= {wnid: word.strip() for wnid, _, word in (line.partition(" ") for line in lines)}
    return tuple(words.get(wnid, wnid) for wnid in wnids)


def find_fall(source: Path, year: int) -> Source:
    """Find the images of the fall of 2009 or 2011. Raises UserError for an empty folder.

    Paper 6: of 2009's 8.9 million images half were for training and half for testing; the paper does not say which, so the
    halves here are drawn from a seed, class by class. 2011's release served to pre-train two nets of Table 2.
    """
    places = list(class_places(source).values())
    root = places[0].path if len(places) == 1 else source  # the one tar of tars, or folder of folders
    wnids = tuple(sorted(class_places(root)))
    if not wnids:
        raise UserError(f"{source} holds neither <wnid>.tar nor <wnid>/ nor one tar file of such tar files.")
    index = index_classes([root], wnids)
    splits, facts = {"train": index}, {"source": f"ImageNet, fall {year}"}
    if year == 2009:
        is_first = first_halves(index.labels, wnids)
        splits["train"] = replace(index, rows=index.rows[is_first])
        splits["test"] = replace(index, rows=index.rows[~is_first], refused=())
        facts["split_seed"] = HALVES_SEED
    return Source(wnids, _read_words(source, wnids), splits, facts=facts)


def first_halves(labels: np.ndarray, wnids: tuple[str, ...]) -> np.ndarray:
    """Return which images, sorted by class, are in the first half of theirs; of odd numbers it gets one more in turn."""
    chosen = np.zeros(len(labels), bool)
    starts = np.searchsorted(labels, np.arange(len(wnids) + 1))
    for label, wnid in enumerate(wnids):
        count = starts[label + 1] - starts[label]
        order = randomness.generator(HALVES_SEED, f"halves of {wnid}").permutation(count)
        chosen[starts[label] + order[: count // 2 + count % 2 * (label % 2)]] = True
    return chosen


def find_imagenet20(source: Path, name: str) -> Source:
    """Find the images of imagenet20 or imagenette: {train,val}/<wnid>/, or the archives unpacked beside each other."""
    parts, counts = PARTS_OF[name], SETS[name].counts
    words = {wnid: word for part in parts.values() for wnid, word in part.items()}
    splits = {}
    for split in counts:
        roots = [root for part in parts for root in sorted(source.glob(f"{part}*/{split}"))[:1]]
        if (source / split).is_dir():
            roots = [source / split]
        elif len(roots) < len(parts):
            known = f"{split}/<wnid>/ nor {'*/, '.join(parts)}*/ with {split}/<wnid>/"
            raise UserError(f"{source} has neither {known}. Leave out --source to download the set.")
        splits[split] = index_classes(roots, tuple(words), others=name == "imagenette")
    return Source(tuple(words), tuple(words.values()), splits, official=counts, facts={"source": "class folders"})


def download_imagenet20(folder: Path, name: str) -> Path:
    """Download and unpack the archives of imagenet20 or imagenette into `folder`. Raises UserError without a network."""
    from torchvision.datasets.utils import download_and_extract_archive  # Why here: it takes two seconds to import

    for part in PARTS_OF[name]:
        url, md5 = DOWNLOADS[part]
        try:  # The archive is fetched again where it is not what its MD5 sum says; what it holds is therefore known.
            download_and_extract_archive(url, str(folder), md5=md5)
        except (RuntimeError, OSError) as error:
            raise UserError(
                f"{url} could not be downloaded ({error}). Repeat the command, or without a network give a copy: "
                f"alexnet prepare {name} --source DIR"
            ) from error
    return folder


def find_folders(source: Path) -> Source:
    """Find a user's own images: train/<class>/ and val/<class>/, test/<class>/ or both; classes in the order of names."""
    splits = [split for split in ("train", "val", "test") if (source / split).is_dir()]
    if splits[:1] != ["train"] or len(splits) == 1:
        found = ", ".join(splits) or "neither train, val nor test"
        raise UserError(f"{source} has {found}; a set needs train/<class>/ and val/<class>/ or test/<class>/.")
    names = tuple(sorted(class_places(source / "train")))
    return Source(names, names, {split: index_classes([source / split], names) for split in splits})


FINDERS: dict[str, Callable[[Path], Source]] = {
    **{name: partial(find_imagenet20, name=name) for name in PARTS_OF},
    **{f"ilsvrc{year}": partial(find_ilsvrc, year=year) for year in (2010, 2012)},
    **{f"fall{year}": partial(find_fall, year=year) for year in (2009, 2011)},
    "folders": find_folders,
}
