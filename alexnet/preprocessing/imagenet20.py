"""ImageNet-20: Imagenette v2 and Imagewoof v2, twenty classes of ILSVRC for machines that cannot hold it all."""

from pathlib import Path

from alexnet.config import UserError
from alexnet.preprocessing.download import fetch, unpack
from alexnet.preprocessing.listing import Listing, joined, list_classes
from alexnet.preprocessing.photographs import Source

IMAGENETTE = {
    "n01440764": "tench",
    "n02102040": "English springer",
    "n02979186": "cassette player",
    "n03000684": "chain saw",
    "n03028079": "church",
    "n03394916": "French horn",
    "n03417042": "garbage truck",
    "n03425413": "gas pump",
    "n03445777": "golf ball",
    "n03888257": "parachute",
}
IMAGEWOOF = {
    "n02086240": "Shih-Tzu",
    "n02087394": "Rhodesian ridgeback",
    "n02088364": "beagle",
    "n02089973": "English foxhound",
    "n02093754": "Border terrier",
    "n02096294": "Australian terrier",
    "n02099601": "golden retriever",
    "n02105641": "Old English sheepdog",
    "n02111889": "Samoyed",
    "n02115641": "dingo",
}
COUNTS = {"train": 9469 + 9025, "val": 3925 + 3929}  # Imagenette's and Imagewoof's
# Why 320 pixels: the archives of that size are a fifth of the full ones, and 256 are needed.
ARCHIVES = {
    "imagenette2-320": (
        "https://s3.amazonaws.com/fast-ai-imageclas/imagenette2-320.tgz",
        "3df6f0d01a2c9592104656642f5e78a3",
    ),
    "imagewoof2-320": ("https://s3.amazonaws.com/fast-ai-imageclas/imagewoof2-320.tgz", "af65be7963816efa949fa3c3b4947740"),
}
DOWNLOAD_BYTES = 2 * 700 * 10**6  # both archives, and what is unpacked from them


def find(source: Path) -> Source:
    """List the images of `source`: {train,val}/<wnid>/ with all classes, or the two archives unpacked beside each other.

    Raises UserError for other folders.
    """
    names = {**IMAGENETTE, **IMAGEWOOF}
    splits = {split: _list(source, split) for split in COUNTS}
    return Source(tuple(names), tuple(names.values()), splits, official=COUNTS, facts={"source": "class folders"})


def _list(source: Path, split: str) -> Listing:
    if (source / split).is_dir():
        return list_classes(source / split, (*IMAGENETTE, *IMAGEWOOF))
    halves = []
    for pattern, names in (("imagenette2*", IMAGENETTE), ("imagewoof2*", IMAGEWOOF)):
        found = sorted([*source.glob(f"{pattern}/{split}"), *source.glob(f"{pattern}/{pattern}/{split}")])
        if not found:
            raise UserError(
                f"{source} has neither {split}/<wnid>/ nor {pattern}/{split}/<wnid>/. Point --source at a folder with one "
                "of the two layouts, or leave it out to download the set."
            )
        halves.append(list_classes(found[0], tuple(names), first_label=len(IMAGENETTE) * len(halves)))
    return joined(*halves)


def download(folder: Path) -> Path:
    """Download both archives into `folder`, unpack them there, and return it. Raises UserError without a network."""
    for name, (url, md5) in ARCHIVES.items():
        unpack(fetch(url, folder / f"{name}.tgz", md5), folder / name)
    return folder
