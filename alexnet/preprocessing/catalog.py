"""The data sets by name: what they are, how many images they have, how one gets them.

Plans, prose and estimates take their numbers from here, also for sets that are not prepared. The numbers are those that the
paper or the publishers print; what was really found is in a prepared set's manifest.
"""

from dataclasses import dataclass, field
from typing import Literal

RAW_UP_TO = 300 * 10**9  # bytes of a raw set; larger ones are kept as JPEGs by default. ILSVRC-2012 has 262
JPEG_PART = 6  # a JPEG of quality 95 takes about a sixth of its pixels
Codec = Literal["raw", "jpeg"]  # of photographs on disk (`prepared_set.py`)
DOWNLOAD = "downloaded, or with --source from a copy"
FORMULA = "computed from a seed"
OWN_COPY = "from your own copy, with --source"


def default_codec(num_images: int, side: int) -> Codec:
    """Return the codec that a set is kept in unless the user says."""
    return "raw" if bytes_of(num_images, side, "raw") <= RAW_UP_TO else "jpeg"


def bytes_of(num_images: int, side: int, codec: Codec) -> int:
    """Return about how many bytes prepared images take on disk."""
    return num_images * side**2 * 3 // (1 if codec == "raw" else JPEG_PART)


@dataclass(frozen=True)
class SetInfo:
    """A data set, prepared or not."""

    title: str  # in a sentence: "... on ILSVRC-2010"
    num_classes: int  # 0 where it depends on the source
    side: int  # pixels
    counts: dict[str, int] = field(hash=False)  # split -> images; empty where they depend on the source
    how: str = OWN_COPY  # one gets it; the command is `alexnet prepare` and the set's name
    is_exact: bool = True  # the counts; if not, they are the paper's round numbers

    @property
    def stand_in(self) -> bool:
        """Whether its images are made by formula: what is measured on them is no result about photographs."""
        return self.how == FORMULA

    @property
    def num_images(self) -> int:
        """Images in all splits."""
        return sum(self.counts.values())

    @property
    def num_bytes(self) -> int:
        """About how many bytes the prepared set takes on disk, in the form that is chosen by default."""
        return bytes_of(self.num_images, self.side, default_codec(self.num_images, self.side))


class _Sets(dict[str, SetInfo]):
    def __missing__(self, name: str) -> SetInfo:  # class folders under a name that the user gave them
        return SetInfo(name, 0, 256, {})


SETS: dict[str, SetInfo] = _Sets()
SETS |= {
    "cifar10": SetInfo("CIFAR-10", 10, 32, {"train": 50_000, "test": 10_000}, DOWNLOAD),
    "formula32": SetInfo("Formula-32", 10, 32, {"train": 4000, "test": 1000}, FORMULA),
    "formula256": SetInfo("Formula-256", 20, 256, {"train": 1500, "val": 300, "test": 300}, FORMULA),
    # Imagenette v2 and Imagewoof v2: ten classes of ILSVRC each
    "imagenet20": SetInfo("ImageNet-20", 20, 256, {"train": 9469 + 9025, "val": 3925 + 3929}, DOWNLOAD),
    "imagenette": SetInfo("Imagenette", 10, 256, {"train": 9469, "val": 3925}, DOWNLOAD),
    "ilsvrc2010": SetInfo("ILSVRC-2010", 1000, 256, {"train": 1_261_406, "val": 50_000, "test": 150_000}),
    # The labels of its test images were never published.
    "ilsvrc2012": SetInfo("ILSVRC-2012", 1000, 256, {"train": 1_281_167, "val": 50_000}),
    # Paper 6: 8.9 million images, "half for training and half for testing": round numbers.
    "fall2009": SetInfo("ImageNet, fall 2009", 10_184, 256, {"train": 4_450_000, "test": 4_450_000}, is_exact=False),
    # Paper 6: 15 million images, 22,000 categories; the 2012 run notes have 21,843 classes.
    "fall2011": SetInfo("ImageNet, fall 2011", 21_843, 256, {"train": 15_000_000}, is_exact=False),
    "folders": SetInfo("class folders", 0, 256, {}),
}


def title_of(data: str) -> str:
    """Return what a set is called in prose; a stand-in is called one."""
    if (info := SETS.get(data)) is None:
        return "ILSVRC" if data == "ilsvrc" else data  # of no year that the paper says; or a set of the user's own
    return f"{info.title} (a stand-in, no photographs)" if info.stand_in else info.title


def command(name: str) -> str:
    """Return the command that makes a set."""
    return f"alexnet prepare {name}" if name in SETS else f"alexnet prepare folders --name {name} --source DIR"
