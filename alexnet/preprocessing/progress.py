"""How far a split is: what is on the disk of it, shard by shard, and what of that a later call can keep."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np

from alexnet.preprocessing import codec, decoding
from alexnet.preprocessing.codec import Codec
from alexnet.preprocessing.listing import Listing

SHARD = 1024
FILE = "progress.npz"
LENGTHS = "progress.lengths"  # of the JPEGs, uint32 one after another


@dataclass
class Shard:
    """What became of 1024 listed images (or as many as were left)."""

    listed: str  # digest of their names and labels
    num_images: int = 0  # that could be read
    num_bytes: int = 0
    sha256: str = ""
    refused: list[tuple[int, str]] = field(default_factory=list)  # number in the listing, why
    remarks: dict[str, int] = field(default_factory=dict)  # what is unusual -> how many


@dataclass
class Filled:
    """How far a split is, and the sums over its pixels; all of it is on the disk."""

    side: int
    codec: Codec
    shards: list[Shard]
    examples: dict[str, list[int]]  # what is unusual -> the first images
    total: np.ndarray  # (H, W, 3) int64, sum of the images
    outer: np.ndarray  # (3, 3) int64, sum over the pixels of the products of two colours

    @property
    def num_images(self) -> int:
        """Images written."""
        return sum(shard.num_images for shard in self.shards)

    @property
    def num_bytes(self) -> int:
        """Bytes of the images written."""
        return sum(shard.num_bytes for shard in self.shards)

    @property
    def done(self) -> int:
        """Listed images that were decoded or refused."""
        return sum(shard.num_images + len(shard.refused) for shard in self.shards)

    @property
    def refused(self) -> list[tuple[int, str]]:
        """Number in the listing of each image that could not be read, and why."""
        return [pair for shard in self.shards for pair in shard.refused]

    def remarks(self) -> dict[str, int]:
        """Return how many images are unusual, by kind."""
        kinds = sorted({kind for shard in self.shards for kind in shard.remarks})
        return {kind: sum(shard.remarks.get(kind, 0) for shard in self.shards) for kind in kinds}


def start_of_images(form: Codec, side: int) -> int:
    """Return where the first image is in its file."""
    return len(codec.header(0, side)) if form == "raw" else 0


def commit(folder: Path, filled: Filled, *streams: BinaryIO | None) -> None:
    """Put what was written on the disk, then note that it counts."""
    for stream in filter(None, streams):
        stream.flush()
        os.fsync(stream.fileno())
    state = {"side": filled.side, "codec": filled.codec, "examples": filled.examples}
    state["shards"] = [vars(shard) for shard in filled.shards]
    partial = folder / "progress.partial"
    with partial.open("wb") as progress:
        np.savez(progress, state=json.dumps(state), total=filled.total, outer=filled.outer)
        progress.flush()
        os.fsync(progress.fileno())
    partial.replace(folder / FILE)


def resume(folder: Path, listing: Listing, side: int, form: Codec) -> Filled:
    """Return what `folder` holds of the split, up to the first shard that was lost or whose source has changed."""
    fresh = Filled(side, form, [], {}, np.zeros((side, side, 3), np.int64), np.zeros((3, 3), np.int64))
    if not (folder / FILE).is_file():
        return fresh
    with np.load(folder / FILE) as saved:
        state = json.loads(str(saved["state"]))
        shards = [Shard(**shard) for shard in state.pop("shards")]
        found = Filled(**state, shards=shards, total=saved["total"], outer=saved["outer"])
    if (found.side, found.codec) != (side, form) or not _all_there(folder, found):
        return fresh
    same = _unchanged(listing, shards)
    if same == len(shards):
        return found
    done = sum(shard.num_images + len(shard.refused) for shard in shards[:same])
    examples = {kind: [i for i in numbers if i < done] for kind, numbers in found.examples.items()}
    kept = Filled(side, form, shards[:same], examples, fresh.total, fresh.outer)
    _sum_up(folder, kept)
    return kept


def _all_there(folder: Path, found: Filled) -> bool:
    """Return whether the split's files are as long as its progress says, which a computer that lost power may break."""
    needed = {codec.FILES[found.codec]: start_of_images(found.codec, found.side) + found.num_bytes}
    if found.codec == "jpeg":
        needed[LENGTHS] = 4 * found.num_images
    return all((folder / f).is_file() and (folder / f).stat().st_size >= length for f, length in needed.items())


def _unchanged(listing: Listing, shards: list[Shard]) -> int:
    """Return how many shards can be kept: their images are listed as before, and none that was refused is readable now."""
    start = 0
    for number, shard in enumerate(shards):
        stop = start + shard.num_images + len(shard.refused)
        if stop != min(start + SHARD, len(listing)) or listing.digest(start, stop) != shard.listed:
            return number
        if any(decoding.readable(listing, i) for i, _ in shard.refused):
            return number
        start = stop
    return len(shards)


def begun(folder: Path) -> tuple[Codec, int] | None:
    """Return the form in which an unfinished split was begun, and how many of its listed images are done."""
    if not (folder / FILE).is_file():
        return None
    with np.load(folder / FILE) as saved:
        state = json.loads(str(saved["state"]))
    return state["codec"], sum(shard["num_images"] + len(shard["refused"]) for shard in state["shards"])


def offsets(folder: Path, num_images: int) -> np.ndarray:
    """Return where each of the JPEGs written begins, and where the last one ends, (N + 1,) int64."""
    return np.cumsum([0, *np.fromfile(folder / LENGTHS, "<u4", num_images)], dtype=np.int64)


def _sum_up(folder: Path, filled: Filled) -> None:
    """Compute the sums over the pixels once more, from the images on the disk."""
    file, shape = folder / codec.FILES[filled.codec], (filled.num_images, filled.side, filled.side, 3)
    if filled.codec == "jpeg":
        written = codec.JpegImages(file, offsets(folder, filled.num_images), filled.side)
    else:
        written = np.memmap(file, np.uint8, "r", start_of_images("raw", filled.side), shape) if shape[0] else np.empty(shape)
    for i in range(len(written)):
        total, outer = decoding.sums(written[i])
        filled.total += total
        filled.outer += outer
