"""From indexed photographs to a split on disk: decoded on all cores, written in order by one process, resumable.

A shard is 1024 indexed images. After each the split's files are on the disk and `progress.npz` says how far they count; what
a killed call wrote beyond is truncated by the next. So the bytes depend neither on the number of processes nor on
interruptions. An image that cannot be read leaves no hole: the next takes its place, and its name goes into the report.
Where the source was mended in between, a call resumes at the first shard that it concerns.
"""

import hashlib
import io
import json
import multiprocessing
import os
import sys
import warnings
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import numpy as np
from tqdm import tqdm

from alexnet import files
from alexnet.config import UserError
from alexnet.preprocessing import photograph, prepared_set
from alexnet.preprocessing.image_index import LARGEST_FILE, ImageIndex
from alexnet.preprocessing.prepared_set import IMAGE_FILES, Codec, JpegImages

SHARD = 1024
CHUNK = 16  # images that a process decodes at a time: 3 MB, of which each process has two in flight; divides SHARD
PROGRESS = "progress.npz"
LENGTHS = "progress.lengths"  # of the JPEGs, uint32 one after another
UNREADABLE = (*photograph.UNREADABLE, zlib.error, MemoryError)


@dataclass
class Chunk:
    """Some consecutive images of the index, less those that could not be read, as they are written to disk."""

    images: list[bytes]
    total: np.ndarray  # (H, W, 3) uint16, sum of the images
    outer: np.ndarray  # (3, 3) float64, sum over the pixels of the products of two colours
    refused: list[tuple[int, str]] = field(default_factory=list)  # number in the index, why
    remarks: list[tuple[int, str]] = field(default_factory=list)  # number in the index, what is unusual


@dataclass(frozen=True)
class Job:
    """What every decoding process knows: which images, and what is made of them. An item of it is a decoded chunk."""

    index: ImageIndex
    side: int
    codec: Codec
    turn: AbstractContextManager | None = None  # a lock, so that one process at a time holds a very large photograph

    def __len__(self) -> int:
        return -(-len(self.index) // CHUNK)

    def __getitem__(self, number: int) -> Chunk:
        chunk = Chunk([], np.zeros((self.side, self.side, 3), np.uint16), np.zeros((3, 3)))
        for i in range(number * CHUNK, min((number + 1) * CHUNK, len(self.index))):
            try:
                pixels, notes = read(self.index, i, self.side, self.turn)
            except UNREADABLE as error:
                why = str(error) or type(error).__name__
                chunk.refused.append((i, "not an image" if "cannot identify image file" in why else why))
                continue
            chunk.images.append(pixels.tobytes() if self.codec == "raw" else prepared_set.encode(pixels))
            # Why: the mean image and the colours' covariance are those of what will be read, not of what was encoded.
            shown = pixels if self.codec == "raw" else prepared_set.decode(chunk.images[-1])
            chunk.total += shown
            chunk.outer += prepared_set.colour_products(shown)
            chunk.remarks += [(i, note) for note in notes]
        return chunk


def read(index: ImageIndex, i: int, side: int, turn: AbstractContextManager | None = None) -> tuple[np.ndarray, list[str]]:
    """Read image `i` as (side, side, 3) uint8, and say what is unusual about it. Raises what is in UNREADABLE."""
    data, zipped = index.read(i), []
    if not data:
        raise ValueError("an empty file")
    if data.startswith(b"\x1f\x8b"):  # Why: some images of ILSVRC-2010's archives are compressed with gzip
        unzip = zlib.decompressobj(wbits=31)
        data, zipped = unzip.decompress(data, LARGEST_FILE), ["compressed with gzip"]
    pixels, (kind, *notes) = photograph.read(io.BytesIO(data), side, turn)
    name = index.name(i).split(" in ")[0].lower()
    misnamed = name.endswith((".jpg", ".jpeg")) and kind not in ("JPEG", "MPO")
    return pixels, [*zipped, *([f"{kind} named as JPEG"] if misnamed else []), *notes]


@dataclass
class Shard:
    """What became of 1024 indexed images (or as many as were left)."""

    digest: str  # of their names and labels
    num_images: int = 0  # that could be read
    num_bytes: int = 0
    sha256: str = ""
    refused: list[tuple[int, str]] = field(default_factory=list)
    remarks: list[tuple[int, str]] = field(default_factory=list)


@dataclass
class Written:
    """How far a split is, and the sums over its pixels; all of it is on the disk."""

    side: int
    codec: Codec
    shards: list[Shard]
    total: np.ndarray  # (H, W, 3) int64, sum of the images
    outer: np.ndarray  # (3, 3) float64, sum over the pixels of the products of two colours

    @property
    def num_images(self) -> int:
        """Images written."""
        return sum(shard.num_images for shard in self.shards)

    @property
    def num_indexed(self) -> int:
        """Images that were decoded or refused."""
        return self.num_images + len(self.refused)

    @property
    def start(self) -> int:
        """Where the first image is in its file."""
        return len(prepared_set.header(0, self.side)) if self.codec == "raw" else 0

    @property
    def stop(self) -> int:
        """Where the last image ends in its file."""
        return self.start + sum(shard.num_bytes for shard in self.shards)

    @property
    def refused(self) -> list[tuple[int, str]]:
        """Number in the index of each image that could not be read, and why."""
        return [pair for shard in self.shards for pair in shard.refused]

    @property
    def remarks(self) -> dict[str, list[int]]:
        """What is unusual -> the numbers of such images in the index."""
        found: dict[str, list[int]] = {}
        for i, kind in (pair for shard in self.shards for pair in shard.remarks):
            found.setdefault(kind, []).append(i)
        return found


def write(folder: Path, index: ImageIndex, side: int, codec: Codec, processes: int) -> Written:
    """Decode the images of `index` into `folder`, resuming after the shards that an earlier call finished.

    Images that cannot be read are left out. Raises OSError when the disk is full, and UserError when a process is killed;
    finished shards are kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for other in {*IMAGE_FILES.values()} - {IMAGE_FILES[codec]}:
        (folder / other).unlink(missing_ok=True)
    written = _resumed(folder, index, side, codec)
    done, count, label = written.num_indexed, len(index), f"{folder.parent.name} {folder.name}"
    with ExitStack() as stack:
        images = stack.enter_context(_open_at(folder / IMAGE_FILES[codec], written.stop))
        lengths = stack.enter_context(_open_at(folder / LENGTHS, 4 * written.num_images))
        bar = stack.enter_context(tqdm(total=count, initial=done, desc=label, unit=" images", unit_scale=True, leave=False))
        chunks = _decoded(index, side, codec, done // CHUNK, processes)
        for start in range(done, count, SHARD):
            shard, sha256 = Shard(index.digest(start, min(start + SHARD, count))), hashlib.sha256()
            for chunk in islice(chunks, SHARD // CHUNK):
                _write_chunk(chunk, shard, written, images, lengths)
                sha256.update(b"".join(chunk.images))
                bar.update(len(chunk.images) + len(chunk.refused))
            shard.sha256 = sha256.hexdigest()
            written.shards.append(shard)
            _commit(folder, written, images, lengths)
        if codec == "raw":
            images.seek(0)
            images.write(prepared_set.header(written.num_images, side))
    return written


def finish(folder: Path, index: ImageIndex, written: Written) -> None:
    """Write the labels of the images that could be read, where each begins, and the checksums of the shards."""
    files.write_array(folder / "labels.npy", np.delete(index.labels(), [i for i, _ in written.refused]))
    checksums = [[shard.num_bytes, shard.sha256] for shard in written.shards]
    files.write_json(folder / prepared_set.SHARDS, {"start": written.start, "shards": checksums})
    if written.codec == "jpeg":
        files.write_array(folder / prepared_set.OFFSETS, _offsets(folder, written.num_images))


def saved(folder: Path) -> Written | None:
    """Return how far an unfinished split is, if it was begun."""
    if not (folder / PROGRESS).is_file():
        return None
    with np.load(folder / PROGRESS) as found:
        state = json.loads(str(found["state"]))
        shards = [Shard(**shard) for shard in state.pop("shards")]
        return Written(**state, shards=shards, total=found["total"], outer=found["outer"])


def _decoded(index: ImageIndex, side: int, codec: Codec, first: int, processes: int) -> Iterator[Chunk]:
    """Yield the chunks from number `first` on, decoded by several processes that are at most two chunks ahead each."""
    from torch.utils.data import DataLoader  # Why here: torch takes a second to import

    # Why fork: it shares the index of millions of names, and imports no modules again in every process.
    how = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn") if processes > 1 else None
    job = Job(index, side, codec, None if how is None else how.Lock())
    options = {"num_workers": 0 if how is None else processes, "multiprocessing_context": how, "collate_fn": _as_it_is}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Why: it warns of more processes than cores, which is the user's choice
            chunks = iter(DataLoader(job, batch_size=None, sampler=range(first, len(job)), **options))
        yield from chunks
    except RuntimeError as error:
        raise UserError(
            f"A decoding process was killed, perhaps for want of memory ({error}). What is done is kept: repeat the "
            f"command, with --processes {max(1, processes // 2)} if it happens again."
        ) from error


def _as_it_is(chunk: Chunk) -> Chunk:
    return chunk


def _open_at(file: Path, length: int) -> BinaryIO:
    """Open a file for writing behind its first `length` bytes, which are kept, and truncate the rest."""
    stream = file.open("r+b" if file.is_file() else "w+b")
    stream.truncate(length)
    stream.seek(length)
    return stream


def _write_chunk(chunk: Chunk, shard: Shard, written: Written, images: BinaryIO, lengths: BinaryIO) -> None:
    """Write images behind the earlier ones and count them."""
    of_each = np.array([len(image) for image in chunk.images], "<u4")
    images.writelines(chunk.images)
    lengths.write(of_each.tobytes())
    shard.num_images += len(of_each)
    shard.num_bytes += int(of_each.sum())
    shard.refused += chunk.refused
    shard.remarks += chunk.remarks
    written.total += chunk.total
    written.outer += chunk.outer


def _commit(folder: Path, written: Written, *streams: BinaryIO) -> None:
    """Put what was written on the disk, then note that it counts."""
    for stream in streams:
        stream.flush()
        os.fsync(stream.fileno())
    state = {"side": written.side, "codec": written.codec, "shards": [vars(shard) for shard in written.shards]}
    files.write_arrays(folder / PROGRESS, state=np.array(json.dumps(state)), total=written.total, outer=written.outer)


def _resumed(folder: Path, index: ImageIndex, side: int, codec: Codec) -> Written:
    """Return what `folder` holds of the split, up to the first shard that was lost or whose source has changed."""
    fresh = Written(side, codec, [], np.zeros((side, side, 3), np.int64), np.zeros((3, 3)))
    found, file = saved(folder), folder / IMAGE_FILES[codec]
    if found is None or (found.side, found.codec) != (side, codec):
        return fresh
    if not file.is_file() or file.stat().st_size < found.stop:
        return fresh
    same = _num_unchanged(index, found.shards)
    if same == len(found.shards):
        return found
    fresh.shards = found.shards[:same]
    _sum_up(folder, fresh)
    return fresh


def _num_unchanged(index: ImageIndex, shards: list[Shard]) -> int:
    """Return how many shards can be kept: indexed as before, and none of their refused images is readable now."""
    for number, shard in enumerate(shards):
        start, stop = number * SHARD, min((number + 1) * SHARD, len(index))
        if shard.num_images + len(shard.refused) != stop - start or index.digest(start, stop) != shard.digest:
            return number
        if any(_is_readable(index, i) for i, _ in shard.refused):
            return number
    return len(shards)


def _is_readable(index: ImageIndex, i: int) -> bool:
    try:
        read(index, i, side=8)
    except UNREADABLE:
        return False
    return True


def _offsets(folder: Path, num_images: int) -> np.ndarray:
    """Return where each of the JPEGs written begins, and where the last one ends, (N + 1,) int64."""
    return np.cumsum([0, *np.fromfile(folder / LENGTHS, "<u4", num_images)], dtype=np.int64)


def _sum_up(folder: Path, written: Written) -> None:
    """Compute the sums over the pixels once more, from the images on the disk."""
    file, shape = folder / IMAGE_FILES[written.codec], (written.num_images, written.side, written.side, 3)
    if written.codec == "jpeg":
        images = JpegImages(file, _offsets(folder, written.num_images), written.side)
    else:
        images = np.memmap(file, np.uint8, "r", written.start, shape) if shape[0] else np.empty(shape)
    for image in images:
        written.total += image
        written.outer += prepared_set.colour_products(image)
