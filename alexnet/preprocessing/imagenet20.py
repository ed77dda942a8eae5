"""ImageNet-20: Imagenette v2 and Imagewoof v2, twenty classes of ILSVRC for machines that cannot hold it all."""

from pathlib import Path

from alexnet.config import UserError
from alexnet.preprocessing.listing import list_class_folders
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


def find(source: Path) -> Source:
    """List the images of `source/{train,val}/<wnid>/`. Raises UserError for other folders."""
    names = {**IMAGENETTE, **IMAGEWOOF}
    for split in COUNTS:
        found = {path.name for path in (source / split).iterdir() if path.is_dir()} if (source / split).is_dir() else set()
        if odd := sorted(found - names.keys()) or sorted(names.keys() - found):
            raise UserError(
                f"{source / split / odd[0]} {'should not be there' if odd[0] in found else 'is missing'}: imagenet20 needs "
                f"{{train,val}}/<wnid>/ for the twenty classes {', '.join(names)}."
            )
    listings = {split: list_class_folders(source / split, tuple(names)) for split in COUNTS}
    return Source(tuple(names), tuple(names.values()), listings, official=COUNTS, facts={"source": "class folders"})
