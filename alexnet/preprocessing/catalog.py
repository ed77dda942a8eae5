"""The data sets by name: what they are, how many images they have, how one gets them.

Plans, prose and estimates take their numbers from here, also for sets that are not prepared. The numbers are those that the
paper or the publishers print; what was really found is in a prepared set's manifest.
"""

from dataclasses import dataclass, field

from alexnet.config import UserError, nearest

RAW_UP_TO = 300 * 10**9  # bytes of a raw set; larger ones are kept as JPEGs by default. ILSVRC-2012 has 262
JPEG_PART = 6  # a JPEG of quality 95 takes about a sixth of its pixels


@dataclass(frozen=True)
class SetInfo:
    """A data set, prepared or not."""

    title: str  # in a sentence: "... on ILSVRC-2010"
    num_classes: int  # 0 where it depends on the source
    side: int  # pixels
    counts: dict[str, int] = field(hash=False)  # split -> images; empty where they depend on the source
    how: str  # what to give `alexnet prepare`
    stand_in: bool = False  # images made by formula: no result about photographs
    is_exact: bool = True  # the counts; if not, they are the paper's round numbers

    @property
    def num_images(self) -> int:
        """Images in all splits."""
        return sum(self.counts.values())

    @property
    def num_bytes(self) -> int:
        """About how many bytes the prepared set takes on disk, in the form that is chosen by default."""
        pixels = self.num_images * self.side**2 * 3
        return pixels if pixels <= RAW_UP_TO else pixels // JPEG_PART


OWN_COPY = "your own copy: alexnet prepare {} --source DIR"
DOWNLOAD = "alexnet prepare {} downloads it; without a network add --source DIR"

SETS: dict[str, SetInfo] = {
    "cifar10": SetInfo("CIFAR-10", 10, 32, {"train": 50_000, "test": 10_000}, DOWNLOAD.format("cifar10")),
    "formula32": SetInfo(
        "Formula-32", 10, 32, {"train": 4000, "test": 1000}, "computed from a seed: alexnet prepare formula32", stand_in=True
    ),
    "formula256": SetInfo(
        "Formula-256",
        20,
        256,
        {"train": 1500, "val": 300, "test": 300},
        "computed from a seed: alexnet prepare formula256",
        stand_in=True,
    ),
    "imagenet20": SetInfo(  # Imagenette and Imagewoof, version 2
        "ImageNet-20", 20, 256, {"train": 9469 + 9025, "val": 3925 + 3929}, DOWNLOAD.format("imagenet20")
    ),
    "imagenette": SetInfo("Imagenette", 10, 256, {"train": 9469, "val": 3925}, DOWNLOAD.format("imagenette")),
    "ilsvrc2010": SetInfo(
        "ILSVRC-2010",
        1000,
        256,
        {"train": 1_261_406, "val": 50_000, "test": 150_000},
        OWN_COPY.format("ilsvrc2010"),
    ),
    "ilsvrc2012": SetInfo(  # the labels of its test images were never published
        "ILSVRC-2012", 1000, 256, {"train": 1_281_167, "val": 50_000}, OWN_COPY.format("ilsvrc2012")
    ),
    "fall2009": SetInfo(  # paper 6: 8.9 million images, "half for training and half for testing"
        "ImageNet, fall 2009",
        10_184,
        256,
        {"train": 4_450_000, "test": 4_450_000},
        OWN_COPY.format("fall2009"),
        is_exact=False,
    ),
    "fall2011": SetInfo(  # paper 6: "15M images, 22K categories"; the 2012 run notes have 21,843 classes
        "ImageNet, fall 2011", 21_843, 256, {"train": 15_000_000}, OWN_COPY.format("fall2011"), is_exact=False
    ),
    "folders": SetInfo("class folders", 0, 256, {}, OWN_COPY.format("folders")),
}


def info(name: str) -> SetInfo:
    """Return what is known of the set `name`. Raises UserError for an unknown one."""
    if name not in SETS:
        raise UserError(f"There is no data set {name!r}{nearest(name, SETS)}. Known are {', '.join(SETS)}.")
    return SETS[name]
