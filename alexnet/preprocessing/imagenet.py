"""Sets of photographs, each found on disk in whichever layout its owner has it.

ilsvrc2010, ilsvrc2012: training images in tars inside a tar, or a folder or tar for each class; others in one folder or tar
with the development kit, or in class folders (torchvision's ImageNet unpacks 145 GB first). Also Kaggle's folders with
LOC_val_solution.csv, Caffe's val.txt, and Hugging Face's tar.gz files, whose images have their labels in their names.
fall2009, fall2011: all of ImageNet as it was then. imagenet20, imagenette: twenty classes, or ten, of ILSVRC. folders: a set
of one's own. Classes are in the order of their names.
"""

import io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from alexnet import randomness
from alexnet.config import PROJECT_DIR, UserError
from alexnet.files import shown
from alexnet.preprocessing import image_index
from alexnet.preprocessing.catalog import SETS
from alexnet.preprocessing.image_index import ImageIndex, Place, Source, class_places, index_classes, index_places
from alexnet.preprocessing.prepared_set import data_dir

SPLIT_SEED = 2009
WNID_LAST = re.compile(rb"_(n\d{8})\.\w+$")  # n01440764_10026_n01440764.JPEG, as Hugging Face has them
READ_KIT = "from alexnet.preprocessing import imagenet; imagenet.print_leaves()"
KIT_SECONDS, KIT_MEMORY = 60, 8 * 2**30  # that reading a meta.mat may take
WORDS = (
    "n01440764 tench, n02102040 English springer, n02979186 cassette player, n03000684 chain saw, n03028079 church, "
    "n03394916 French horn, n03417042 garbage truck, n03425413 gas pump, n03445777 golf ball, n03888257 parachute",
    "n02086240 Shih-Tzu, n02087394 Rhodesian ridgeback, n02088364 beagle, n02089973 English foxhound, "
    "n02093754 Border terrier, n02096294 Australian terrier, n02099601 golden retriever, "
    "n02105641 Old English sheepdog, n02111889 Samoyed, n02115641 dingo",
)
IMAGENETTE, IMAGEWOOF = (dict(pair.split(" ", 1) for pair in words.split(", ")) for words in WORDS)
PARTS_OF = {"imagenet20": {"imagenette2": IMAGENETTE, "imagewoof2": IMAGEWOOF}, "imagenette": {"imagenette2": IMAGENETTE}}
DOWNLOADS = {  # Why 320 pixels: the archives of that size are a fifth of the full ones, and 256 are needed.
    "imagenette2": ("https://s3.amazonaws.com/fast-ai-imageclas/imagenette2-320.tgz", "3df6f0d01a2c9592104656642f5e78a3"),
    "imagewoof2": ("https://s3.amazonaws.com/fast-ai-imageclas/imagewoof2-320.tgz", "af65be7963816efa949fa3c3b4947740"),
}


def find_ilsvrc(source: Path, year: int) -> Source:
    """Find the images and labels of ILSVRC-2010 or 2012 (paper Tables 1 and 2). Raises UserError for what is missing."""
    official = dict(SETS[f"ilsvrc{year}"].counts)
    roots = {split: _roots(source, year, split) for split in official}
    truths = {"val": f"ILSVRC{year}_validation_ground_truth.txt", "test": f"ILSVRC{year}_test_ground_truth.txt"}
    kit = image_index.files_named(source, ["meta.mat", *truths.values()], ("*devkit*/**/", "data/", ""), "*devkit*.tar.gz")
    label_of_id: dict[str, int] = {}
    if "meta.mat" in kit:
        wnids, words, label_of_id, official["train"] = _classes(kit["meta.mat"], source, year)
    else:
        names = (name for place in roots["train"] for _, _, name, *_ in image_index.list_files(Place(place)))
        named = (match[1].decode() for name in names if (match := WNID_LAST.search(name)))
        wnids = tuple(sorted(class_places(roots["train"][0]) or set(named)))
        words = _read_words(source, wnids)
    splits = {}
    for split, places in roots.items():
        truth = truths.get(split, "")
        if truth in kit:
            official[split] = len(kit[truth].split())
        if class_places(places[0]) if split == "train" else any(path.is_dir() for path in places[0].glob("*")):
            splits[split] = index_classes(places, wnids)
        elif not len(splits.setdefault(split, _index_named(places, wnids))):
            label_of = _labels(source, split, wnids, truth, kit.get(truth), label_of_id)
            splits[split] = index_places(map(Place, places), lambda _, name, of=label_of: of.get(_stem(name)))
    patches = source / "patch_images.tar"
    if patches.is_file():  # Why: some images of 2010's archives say "not available"; this later archive has them
        splits = {split: _patched(index, patches) for split, index in splits.items()}
    return Source(wnids, words, splits, official, {"source": f"ILSVRC-{year}"})


def _roots(source: Path, year: int, split: str) -> list[Path]:
    stems = [f"ILSVRC{year}_{word}_{split}" for word in ("img", "images")]
    names = [f"{stem}.tar" for stem in stems] + [split, *stems, f"ILSVRC/Data/CLS-LOC/{split}"]
    if found := [source / name for name in names if (source / name).exists()]:
        return found[:1]
    if zipped := sorted(f for where in ("", "data/") for f in source.glob(f"{where}{split}_images*.tar.gz") if f.is_file()):
        return [image_index.unzipped(part, data_dir() / f"ilsvrc{year}.download") for part in zipped]
    known = f"{', '.join(names)} and {split}_images*.tar.gz"
    raise UserError(f"{source} has none of {known}, where the {split} images of ILSVRC-{year} could be.")


def _index_named(places: list[Path], wnids: tuple[str, ...]) -> ImageIndex:
    # In the order of the official archives.
    label_of = {wnid.encode(): label for label, wnid in enumerate(wnids)}
    index = index_places(map(Place, places), lambda _, name: label_of.get(name.rpartition(b"_")[2].partition(b".")[0]))
    names = [WNID_LAST.sub(b"", name) for name in index.rows["name"].tolist()]
    return replace(index, rows=index.rows[np.lexsort((names, index.labels))])


def _classes(meta: bytes, source: Path, year: int) -> tuple[tuple[str, ...], tuple[str, ...], dict[str, int], int]:
    """Return wnids, words, the label of each of the kit's numbers, and the number of training images."""
    # Why another process: a damaged MATLAB file may crash SciPy's reader, or have it ask for any amount of memory.
    command = [sys.executable, "-c", READ_KIT, str(year)]
    try:
        done = subprocess.run(command, input=meta, capture_output=True, timeout=KIT_SECONDS, cwd=PROJECT_DIR)
        said = done.stderr.decode(errors="replace").strip().splitlines() or [f"its reader ended with {done.returncode}"]
        leaves = [] if done.returncode else json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        said, leaves = ["it takes too long to read"], []
    if not leaves:
        raise UserError(f"The meta.mat in {source} is not ILSVRC-{year}'s ({shown(said[-1])}). Copy its kit again.")
    wnids, words, numbers, counts = zip(*leaves, strict=True)
    return wnids, words, {str(number): label for label, number in enumerate(numbers)}, sum(counts)


def print_leaves() -> None:
    """Print the classes of the meta.mat on standard input that are no groups: wnid, words, number, training images; JSON."""
    import resource

    from scipy.io import loadmat

    resource.setrlimit(resource.RLIMIT_AS, (KIT_MEMORY, KIT_MEMORY))
    synsets = np.atleast_1d(loadmat(io.BytesIO(sys.stdin.buffer.read()), squeeze_me=True)["synsets"])
    rows = synsets[["WNID", "words", f"ILSVRC{sys.argv[1]}_ID", "num_train_images", "num_children"]]
    print(json.dumps(sorted((str(w), str(words), int(k), int(n)) for w, words, k, n, children in rows if children == 0)))


def _labels(
    source: Path, split: str, wnids: tuple[str, ...], truth: str, numbers: bytes | None, label_of_id: dict[str, int]
) -> dict[bytes, int]:
    """Return the label of each name in the kit's file `truth`, in Caffe's list (name and number), or Kaggle's (and wnid)."""
    known = {wnid: label for label, wnid in enumerate(wnids)} | {str(label): label for label in range(len(wnids))}
    lists = [name for name in (f"{split}.txt", f"LOC_{split}_solution.csv") if (source / name).is_file()]
    if numbers is not None and label_of_id:
        known, lists = label_of_id, [truth]
        pairs = [(f"{i:08d}", number) for i, number in enumerate(numbers.decode("latin1").split(), 1)]
    elif lists:
        lines = (source / lists[0]).read_text(errors="replace").replace(",", " ").splitlines()
        pairs = [(*line.split(), "", "")[:2] for line in lines if line.strip() and not line.startswith("ImageId")]
    else:
        missing = f"{'meta.mat' if numbers or not truth else truth} is missing in {source} ({split} images)"
        kit = f"the development kit, for test images the file of their labels, or {split}.txt or LOC_{split}_solution.csv"
        raise UserError(f"{missing}, which are not sorted into classes. Put there {kit}, and repeat the command.")
    if odd := [word for _, word in pairs if word not in known]:
        raise UserError(f"{lists[0]} has {shown(odd[0])}, which is no class of {source} ({split} images). Copy it again.")
    return {_stem(name.encode()): known[word] for name, word in pairs}


def _stem(name: bytes) -> bytes:
    return name.split(b".")[0][-8:]  # ILSVRC2012_val_00000293.JPEG is the 293rd


def _patched(index: ImageIndex, patches: Path) -> ImageIndex:
    new = index_places([Place(patches)], lambda *_: 0)  # it has images of all splits
    _, old, better = np.intersect1d(index.rows["name"], new.rows["name"], return_indices=True)
    rows = index.rows.copy()
    rows["place"][old] = len(index.places)
    for column in ("offset", "length", "changed"):
        rows[column][old] = new.rows[column][better]
    return ImageIndex((*index.places, *new.places), rows, index.refused)


def _read_words(source: Path, wnids: tuple[str, ...]) -> tuple[str, ...]:
    words = {}
    for file in (source / name for name in ("words.txt", "synset_words.txt", "LOC_synset_mapping.txt")):
        lines = file.read_text("utf-8", "replace").replace("\t", " ").splitlines() if file.is_file() else ()
        words |= {wnid: word.strip() for wnid, _, word in (line.partition(" ") for line in lines)}
    return tuple(words.get(wnid, wnid) for wnid in wnids)


def find_fall(source: Path, year: int) -> Source:
    """Find the images of the fall of 2009 or 2011. Raises UserError for an empty folder.

    Paper 6: of 2009's 8.9 million images half were for training, it does not say which; here they are drawn, class by class.
    """
    places = list(class_places(source).values())
    root = places[0].path if len(places) == 1 else source  # the one tar of tars, or folder of folders
    wnids = tuple(sorted(class_places(root)))
    if not wnids:
        raise UserError(f"{source} holds neither <wnid>.tar nor <wnid>/ nor one tar file of such tar files.")
    splits, facts = {"train": index_classes([root], wnids)}, {"source": f"ImageNet, fall {year}"}
    if year == 2009:
        index, is_first = splits["train"], drawn(splits["train"].labels, wnids, "halves", half)
        rest = replace(index, rows=index.rows[~is_first], refused=())
        splits = {"train": replace(index, rows=index.rows[is_first]), "test": rest}
        facts["split_seed"] = SPLIT_SEED
    return Source(wnids, _read_words(source, wnids), splits, facts=facts)


def half(count: int, label: int) -> int:
    """Return half of a number of images; of an odd one the classes get one more in turn."""
    return count // 2 + count % 2 * (label % 2)


def drawn(labels: np.ndarray, names: tuple[str, ...], purpose: str, size: Callable[[int, int], int]) -> np.ndarray:
    """Return which images, sorted by class, are drawn from a seed: `size(n, k)` of the n images of class k."""
    chosen, starts = np.zeros(len(labels), bool), np.searchsorted(labels, np.arange(len(names) + 1))
    for label, name in enumerate(names):
        count = starts[label + 1] - starts[label]
        order = randomness.generator(SPLIT_SEED, f"{purpose} of {shown(name)}").permutation(count)
        chosen[starts[label] + order[: size(count, label)]] = True
    return chosen


def find_imagenet20(source: Path | None, name: str, download: Path) -> Source:
    """Find the images of imagenet20 or imagenette: {train,val}/<wnid>/, or the archives unpacked beside each other.

    Without a source, download and unpack the archives. Raises UserError for what is missing, also the network.
    """
    parts, counts = PARTS_OF[name], SETS[name].counts
    for part in parts if source is None else ():
        from torchvision.datasets.utils import download_and_extract_archive  # Why here: it takes two seconds to import

        (url, md5), mend = DOWNLOADS[part], "Repeat the command, or without a network give a copy: alexnet prepare"
        with image_index.damage_named(f"{url} could not be downloaded", f"{mend} {name} --source DIR"):
            # The archive is fetched again where it is not what its MD5 sum says; what it holds is therefore known.
            download_and_extract_archive(url, str(download), md5=md5)
    source, splits = source or download, {}
    words = {wnid: word for part in parts.values() for wnid, word in part.items()}
    for split in counts:
        unpacked = [root for part in parts for root in sorted(source.glob(f"{part}*/{split}"))[:1]]
        roots = [source / split] if (source / split).is_dir() else unpacked
        if len(unpacked) < len(parts) and roots is unpacked:
            known = f"{split}/<wnid>/ nor {'*/, '.join(parts)}*/ with {split}/<wnid>/"
            raise UserError(f"{source} has neither {known}. Leave out --source to download the set.")
        splits[split] = index_classes(roots, tuple(words), others=name == "imagenette")
    return Source(tuple(words), tuple(words.values()), splits, official=counts, facts={"source": "class folders"})


def find_folders(source: Path, val_fraction: float | None) -> Source:
    """Find a user's own images: train/<class>/ and val/<class>/, test/<class>/ or both; classes in the order of names.

    With `val_fraction` such a part of each class of train/<class>/ or <class>/, drawn from a seed, is for validation: at
    least one image, but never the last.
    """
    splits = [split for split in ("train", "val", "test") if (source / split).is_dir()]
    if not (splits in ([], ["train"]) if val_fraction else splits[:1] == ["train"] and len(splits) > 1):
        there = f"{source} has {', '.join(splits) or 'neither train, val nor test'}; a set needs train/<class>/ and"
        raise UserError(f"{there} val/<class>/ or test/<class>/, or --val-fraction 0.1 and no val or test.")
    root, facts = source / "train" if splits else source, {"source": "class folders"}
    names = tuple(sorted(class_places(root)))
    found = {root.name: index_classes([root], names) for root in ([source / split for split in splits] or [source])}
    if val_fraction:
        (index,) = found.values()
        is_val = drawn(index.labels, names, "validation", lambda n, _: max(0, min(max(1, round(val_fraction * n)), n - 1)))
        rest = replace(index, rows=index.rows[is_val], refused=())
        found = {"train": replace(index, rows=index.rows[~is_val]), "val": rest}
        facts |= {"val_fraction": val_fraction, "split_seed": SPLIT_SEED}
    for k in sorted(set(range(len(names))) - set(found["train"].labels.tolist())):
        raise UserError(f"The class {shown(names[k])} has no training image in {root}. Add some, or remove the class.")
    return Source(names, tuple(map(shown, names)), found, facts=facts)
