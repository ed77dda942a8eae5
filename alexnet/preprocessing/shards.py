"""From indexed photographs to a split on disk: decoded on all cores, written in order by one process, resumable.

A shard is 1024 indexed images. After each the split's files are on the disk and `progress.npz` says how far they count; what
a killed call wrote beyond is truncated by the next. So the bytes do not depend on the number of processes or on interruptions.
An image that cannot be read leaves no hole: the next takes its place, and its name goes into the report. Where the source
was mended in between, a call resumes at the first shard that it concerns.
"""

import hashlib
import io
import json
import multiprocessing
import os
import signal
import sys
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
from tqdm import tqdm

from alexnet import files
from alexnet.config import UserError
from alexnet.preprocessing import photograph, prepared_set
from alexnet.preprocessing.image_index import LARGEST_FILE, ImageIndex
from alexnet.preprocessing.prepared_set import IMAGE_FILES, Codec, JpegImages

SHARD = 1024
CHUNK = 16  # images that a process decodes at a time: 3 MB, of which each process has two in flight; divides SHARD
EXAMPLES = 100  # names kept of each kind of unusual image
PROGRESS = "progress.npz"
LENGTHS = "progress.lengths"  # of the JPEGs, uint32 one after another
WATCH = 1.0  # seconds between two looks whether the parent is still there
UNREADABLE = (*photograph.UNREADABLE, zlib.error, MemoryError)

Task = TypeVar("Task")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Job:
    """What every process knows: which images, and what is made of them."""

    index: ImageIndex
    side: int
    codec: Codec
    turn: AbstractContextManager | None = None  # a lock, so that one process at a time holds a very large photograph


@dataclass
class Chunk:
    """Some consecutive images of the index, less those that could not be read, as they are written to disk."""

    num_indexed: int
    data: bytes
    lengths: list[int]  # bytes of each image
    total: np.ndarray  # (H, W, 3) uint16, sum of the images
    outer: np.ndarray  # (3, 3) int64, sum over the pixels of the products of two colours
    refused: list[tuple[int, str]]  # number in the index, why
    remarks: list[tuple[str, int]]  # what is unusual, number in the index


@dataclass
class Shard:
    """What became of 1024 indexed images (or as many as were left)."""

    digest: str = ""  # of their names and labels
    num_images: int = 0  # that could be read
    num_bytes: int = 0
    sha256: str = ""
    refused: list[tuple[int, str]] = field(default_factory=list)  # number in the index, why
    remarks: dict[str, int] = field(default_factory=dict)  # what is unusual -> how many

    @property
    def num_indexed(self) -> int:
        """Images that were decoded or refused."""
        return self.num_images + len(self.refused)


@dataclass
class Written:
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
    def num_indexed(self) -> int:
        """Images that were decoded or refused."""
        return sum(shard.num_indexed for shard in self.shards)

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

    def remarks(self) -> dict[str, int]:
        """Return how many images are unusual, by kind."""
        kinds = sorted({kind for shard in self.shards for kind in shard.remarks})
        return {kind: sum(shard.remarks.get(kind, 0) for shard in self.shards) for kind in kinds}


def write(folder: Path, index: ImageIndex, side: int, codec: Codec, processes: int) -> Written:
    """Decode the images of `index` into `folder`, resuming after the shards that an earlier call finished.

    Images that cannot be read are left out. Raises OSError when the disk is full; finished shards are kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for other in {*IMAGE_FILES.values()} - {IMAGE_FILES[codec]}:
        (folder / other).unlink(missing_ok=True)
    written = _resumed(folder, index, side, codec)
    done, count, label = written.num_indexed, len(index), f"{folder.parent.name} {folder.name}"
    spans = ((start, min(start + CHUNK, count)) for start in range(done, count, CHUNK))
    with ExitStack() as stack:
        images = stack.enter_context(_open_at(folder / IMAGE_FILES[codec], written.stop))
        lengths = stack.enter_context(_open_at(folder / LENGTHS, 4 * written.num_images)) if codec == "jpeg" else None
        bar = stack.enter_context(tqdm(total=count, initial=done, desc=label, unit=" images", unit_scale=True, leave=False))
        job = Job(index, side, codec, _context().Lock())
        chunks = stack.enter_context(closing(map_in_order(decode, job, spans, processes)))
        for start in range(done, count, SHARD):
            stop = min(start + SHARD, count)
            shard = _write_shard(written, islice(chunks, -(-(stop - start) // CHUNK)), images, lengths, bar)
            shard.digest = index.digest(start, stop)
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


def forget_progress(folder: Path) -> None:
    """Remove what only a call that resumes needs."""
    for file in (PROGRESS, LENGTHS):
        (folder / file).unlink(missing_ok=True)


def begun(folder: Path) -> tuple[Codec, int] | None:
    """Return the codec with which an unfinished split was begun, and how many of its indexed images are done."""
    found = _saved(folder)
    return None if found is None else (found.codec, found.num_indexed)


def decode(job: Job, span: tuple[int, int]) -> Chunk:
    """Decode the images of the index from `span[0]` up to `span[1]`."""
    data, refused, remarks = [], [], []
    total, outer = np.zeros((job.side, job.side, 3), np.uint16), np.zeros((3, 3), np.int64)
    for i in range(*span):
        try:
            pixels, notes = read(job.index, i, job.side, job.turn)
        except UNREADABLE as error:
            refused.append((i, _why(error)))
            continue
        data.append(pixels.tobytes() if job.codec == "raw" else prepared_set.encode(pixels))
        # Why: the mean image and the colours' covariance are those of what will be read, not of what was encoded.
        shown = pixels if job.codec == "raw" else prepared_set.decode(data[-1])
        total += shown
        outer += colour_products(shown)
        remarks += [(note, i) for note in notes]
    return Chunk(span[1] - span[0], b"".join(data), [len(image) for image in data], total, outer, refused, remarks)


def read(index: ImageIndex, i: int, side: int, turn: AbstractContextManager | None = None) -> tuple[np.ndarray, list[str]]:
    """Read image `i` as (side, side, 3) uint8, and say what is unusual about it. Raises what is in UNREADABLE."""
    data, zipped = index.read(i), []
    if not data:
        raise ValueError("an empty file")
    if data.startswith(b"\x1f\x8b"):  # Why: some images of ILSVRC-2010's archives are compressed with gzip
        unzip = zlib.decompressobj(wbits=31)
        data, zipped = unzip.decompress(data, LARGEST_FILE), ["compressed with gzip"]
    pixels, notes = photograph.read(io.BytesIO(data), side, turn)
    name = index.name(i).split(" in ")[0].lower()
    kind, *others = notes
    if name.endswith((".jpg", ".jpeg")) and kind not in ("JPEG", "MPO"):
        others = [f"{kind} named as JPEG", *others]
    return pixels, zipped + others


def colour_products(image_HWC: np.ndarray) -> np.ndarray:
    """Return the sum over an image's pixels of the products of two colours, (3, 3) int64."""
    # Why: a row of 256 products is below 2^24, so float32 sums it exactly, in a third of the time of float64.
    exact = np.float32 if image_HWC.shape[1] <= 256 else np.float64
    planes = [np.ascontiguousarray(image_HWC[..., colour]).astype(exact) for colour in range(3)]
    outer = np.zeros((3, 3), np.int64)
    for i, j in ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)):
        outer[i, j] = outer[j, i] = np.einsum("hw,hw->h", planes[i], planes[j]).astype(np.int64).sum()
    return outer


def _why(error: BaseException) -> str:
    text = str(error) or type(error).__name__
    return "not an image" if "cannot identify image file" in text else text


def _open_at(file: Path, length: int) -> BinaryIO:
    """Open a file for writing behind its first `length` bytes, which are kept, and truncate the rest."""
    stream = file.open("r+b" if file.is_file() else "w+b")
    stream.truncate(length)
    stream.seek(length)
    return stream


def _write_shard(written: Written, chunks: Iterable[Chunk], images: BinaryIO, lengths: BinaryIO | None, bar: tqdm) -> Shard:
    """Write the images of a shard behind the earlier ones and count them."""
    digest, shard = hashlib.sha256(), Shard()
    for chunk in chunks:
        images.write(chunk.data)
        digest.update(chunk.data)
        if lengths is not None:
            lengths.write(np.array(chunk.lengths, "<u4").tobytes())
        shard.num_images += len(chunk.lengths)
        shard.num_bytes += len(chunk.data)
        shard.refused += chunk.refused
        written.total += chunk.total
        written.outer += chunk.outer
        for kind, i in chunk.remarks:
            shard.remarks[kind] = shard.remarks.get(kind, 0) + 1
            if len(written.examples.setdefault(kind, [])) < EXAMPLES:
                written.examples[kind].append(i)
        bar.update(chunk.num_indexed)
    shard.sha256 = digest.hexdigest()
    written.shards.append(shard)
    return shard


def _commit(folder: Path, written: Written, *streams: BinaryIO | None) -> None:
    """Put what was written on the disk, then note that it counts."""
    for stream in filter(None, streams):
        stream.flush()
        os.fsync(stream.fileno())
    state = {"side": written.side, "codec": written.codec, "examples": written.examples}
    state["shards"] = [vars(shard) for shard in written.shards]
    files.write_arrays(folder / PROGRESS, state=np.array(json.dumps(state)), total=written.total, outer=written.outer)


def _saved(folder: Path) -> Written | None:
    """Return what the progress of a split says, if there is any."""
    if not (folder / PROGRESS).is_file():
        return None
    with np.load(folder / PROGRESS) as saved:
        state = json.loads(str(saved["state"]))
        shards = [Shard(**shard) for shard in state.pop("shards")]
        return Written(**state, shards=shards, total=saved["total"], outer=saved["outer"])


def _resumed(folder: Path, index: ImageIndex, side: int, codec: Codec) -> Written:
    """Return what `folder` holds of the split, up to the first shard that was lost or whose source has changed."""
    fresh = Written(side, codec, [], {}, np.zeros((side, side, 3), np.int64), np.zeros((3, 3), np.int64))
    found = _saved(folder)
    if found is None or (found.side, found.codec) != (side, codec) or not _all_there(folder, found):
        return fresh
    same = _num_unchanged(index, found.shards)
    if same == len(found.shards):
        return found
    kept = Written(side, codec, found.shards[:same], {}, fresh.total, fresh.outer)
    kept.examples |= {kind: [i for i in known if i < kept.num_indexed] for kind, known in found.examples.items()}
    _sum_up(folder, kept)
    return kept


def _all_there(folder: Path, found: Written) -> bool:
    """Return whether the split's files are as long as its progress says, which a computer that lost power may break."""
    needed = {IMAGE_FILES[found.codec]: found.stop}
    if found.codec == "jpeg":
        needed[LENGTHS] = 4 * found.num_images
    return all((folder / f).is_file() and (folder / f).stat().st_size >= length for f, length in needed.items())


def _num_unchanged(index: ImageIndex, shards: list[Shard]) -> int:
    """Return how many shards can be kept: indexed as before, and none of their refused images is readable now."""
    start = 0
    for number, shard in enumerate(shards):
        stop = start + shard.num_indexed
        if stop != min(start + SHARD, len(index)) or index.digest(start, stop) != shard.digest:
            return number
        if any(_is_readable(index, i) for i, _ in shard.refused):
            return number
        start = stop
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
    for i in range(len(images)):
        written.total += images[i]
        written.outer += colour_products(images[i])


_job: Job | None = None  # of a decoding process


def _context() -> multiprocessing.context.BaseContext:
    # Why: fork shares the index of millions of names, and does not import the command's modules again in every process.
    return multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")


def map_in_order(
    function: Callable[[Job, Task], Result], job: Job, tasks: Iterable[Task], processes: int
) -> Iterator[Result]:
    """Yield `function(job, task)` for each task, computed by several processes that are at most two tasks ahead each.

    `job` is sent once. Raises UserError when a process dies.
    """
    if processes == 1:
        yield from (function(job, task) for task in tasks)
        return
    pool = ProcessPoolExecutor(processes, _context(), _start, (job, os.getpid()))
    waiting: deque[Future] = deque()
    try:
        for task in tasks:
            waiting.append(pool.submit(_call, function, task))
            if len(waiting) > 2 * processes:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise UserError(
            "A decoding process was killed, perhaps for want of memory. What is done is kept: repeat the command, with "
            f"--processes {max(1, processes // 2)} if it happens again."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _start(job: Job, parent: int) -> None:
    global _job
    _job = job
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Why: Ctrl-C reaches every process; the first one decides
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """End this process when its parent is gone, which a killed one cannot ask for."""
    while os.getppid() == parent:
        time.sleep(WATCH)
    os._exit(1)


def _call(function: Callable[[Job, Task], Result], task: Task) -> Result:
    return function(_job, task)
