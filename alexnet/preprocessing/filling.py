"""From listed images to a split on disk: decoded on all cores, written in order by one process, resumable.

A shard is 1024 listed images. After each the split's files are on the disk and `progress.npz` says how far they count; what
a killed call wrote beyond is cut off by the next. So the bytes do not depend on the number of processes or on interruptions.
An image that cannot be read leaves no hole: the next takes its place, and its name goes into the report.
"""

import hashlib
import io
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from alexnet.preprocessing import images, store, workers
from alexnet.preprocessing.listing import Listing

CHUNK = 16  # images that a process decodes at a time: 3 MB, of which each process has two in flight
SHARD = 1024
NAMES_KEPT = 100  # of each kind of remark
PROGRESS = "progress.npz"


@dataclass(frozen=True)
class Job:
    """What every process knows: which images, and what is made of them."""

    listing: Listing
    side: int


@dataclass
class Chunk:
    """Decoded images `start` to `stop` of the listing, less those that could not be read."""

    start: int
    stop: int
    data: bytes
    num_images: int
    total: np.ndarray  # (H, W, 3) uint16, sum of the images
    outer: np.ndarray  # (3, 3) int64, sum over pixels of the products of two colours
    refused: list[tuple[int, str]]
    remarks: list[tuple[str, int]]


@dataclass
class State:
    """How far a split is; everything up to here is on the disk."""

    listing: str  # digest
    side: int
    done: int = 0  # listed images
    num_images: int = 0  # written ones
    num_bytes: int = 0
    shards: list[tuple[int, str]] = field(default_factory=list)  # bytes and sha256
    refused: list[tuple[int, str]] = field(default_factory=list)  # number in the listing, why
    remarks: dict[str, int] = field(default_factory=dict)  # kind -> how many
    examples: dict[str, list[str]] = field(default_factory=dict)  # kind -> the first names


@dataclass
class Filled:
    """A finished split: what it holds and the sums over its pixels."""

    state: State
    total: np.ndarray  # (H, W, 3) int64
    outer: np.ndarray  # (3, 3) int64


def decode(job: Job, span: tuple[int, int]) -> Chunk:
    """Decode the images of the listing from `span[0]` up to `span[1]`."""
    kept, refused, remarks = [], [], []
    for i in range(*span):
        try:
            pixels, notes = images.read_photograph(io.BytesIO(job.listing.read(i)), job.side)
        except images.UNREADABLE as error:
            refused.append((i, _why(error)))
            continue
        kept.append(pixels)
        remarks += [(_remark(note, job.listing.name(i)), i) for note in notes]
    stack = np.stack(kept) if kept else np.empty((0, job.side, job.side, 3), np.uint8)
    colours = stack.reshape(-1, 3).astype(np.float64)
    outer = (colours.T @ colours).astype(np.int64)  # exact: 16 images sum to less than 2^53
    total = stack.sum(axis=0, dtype=np.uint16)
    return Chunk(*span, stack.tobytes(), len(kept), total, outer, refused, [r for r in remarks if r[0]])


def _why(error: BaseException) -> str:
    text = str(error) or type(error).__name__
    return "not an image" if "cannot identify image file" in text else text


def _remark(note: str, name: str) -> str:
    """Return the remark under which a note is reported: a format only where the name says that it is a JPEG."""
    if note not in (*images.FORMATS, "MPO"):
        return note
    claims_jpeg = name.split(" in ")[0].lower().endswith((".jpg", ".jpeg"))
    return f"{note} named as JPEG" if claims_jpeg and note not in ("JPEG", "MPO") else ""


def fill(folder: Path, listing: Listing, side: int, processes: int) -> Filled:
    """Decode the images of `listing` into `folder/images.npy`, going on after what an earlier call finished.

    Images that cannot be read are left out. Raises OSError when the disk is full; finished shards are kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    filled = _resume(folder, State(listing.digest(), side))
    state = filled.state
    header = _header(len(listing), side)
    file = folder / "images.npy"
    with file.open("r+b" if file.is_file() else "w+b") as stream:
        stream.truncate(len(header) + state.num_bytes)
        stream.write(header)
        stream.seek(len(header) + state.num_bytes)
        for chunk in _chunks(folder, Job(listing, side), state.done, processes):
            _add(filled, chunk, stream, listing)
            if chunk.stop % SHARD == 0 or chunk.stop == len(listing):
                _commit(folder, filled, stream)
        stream.seek(0)
        stream.write(_header(state.num_images, side))
    return filled


def finish(folder: Path, listing: Listing, filled: Filled) -> None:
    """Write the labels of the images that could be read, and the checksums of the shards."""
    refused = [i for i, _ in filled.state.refused]
    store.save_array(folder / "labels.npy", np.delete(listing.labels(), refused))
    shards = {"start": len(_header(0, filled.state.side)), "shards": filled.state.shards}
    store.write_json(folder / store.SHARDS, shards)


def _chunks(folder: Path, job: Job, done: int, processes: int) -> Iterator[Chunk]:
    count = len(job.listing)
    spans = [(start, min(start + CHUNK, count)) for start in range(done, count, CHUNK)]
    label = f"{folder.parent.name} {folder.name}"
    with tqdm(total=count, initial=done, desc=label, unit=" images", unit_scale=True, leave=False) as bar:
        for chunk in workers.map_in_order(decode, job, spans, processes):
            yield chunk
            bar.update(chunk.stop - chunk.start)


def _add(filled: Filled, chunk: Chunk, stream: Any, listing: Listing) -> None:
    """Write a chunk behind the earlier ones and count it."""
    state = filled.state
    if state.done % SHARD == 0:
        state.shards.append((0, hashlib.sha256()))
    num_bytes, digest = state.shards[-1]
    digest.update(chunk.data)
    stream.write(chunk.data)
    state.shards[-1] = (num_bytes + len(chunk.data), digest)
    state.done = chunk.stop
    state.num_images += chunk.num_images
    state.num_bytes += len(chunk.data)
    state.refused += chunk.refused
    filled.total += chunk.total
    filled.outer += chunk.outer
    for remark, i in chunk.remarks:
        state.remarks[remark] = state.remarks.get(remark, 0) + 1
        if state.remarks[remark] <= NAMES_KEPT:
            state.examples.setdefault(remark, []).append(listing.name(i))


def _commit(folder: Path, filled: Filled, stream: Any) -> None:
    stream.flush()
    os.fsync(stream.fileno())
    num_bytes, digest = filled.state.shards[-1]
    filled.state.shards[-1] = (num_bytes, digest.hexdigest())
    partial = folder / "progress.partial"
    with partial.open("wb") as progress:
        np.savez(progress, state=json.dumps(asdict(filled.state)), total=filled.total, outer=filled.outer)
        os.fsync(progress.fileno())
    partial.replace(folder / PROGRESS)


def _resume(folder: Path, fresh: State) -> Filled:
    """Return what `folder` holds of the split, or `fresh` when it holds nothing or something else."""
    if (folder / PROGRESS).is_file() and (folder / "images.npy").is_file():
        with np.load(folder / PROGRESS) as saved:
            state = State(**json.loads(str(saved["state"])))
            if (state.listing, state.side) == (fresh.listing, fresh.side):
                return Filled(state, saved["total"], saved["outer"])
        (folder / PROGRESS).unlink()
    return Filled(fresh, np.zeros((fresh.side, fresh.side, 3), np.int64), np.zeros((3, 3), np.int64))


def _header(num_images: int, side: int) -> bytes:
    """Return the first bytes of an .npy file, as many for any number of images."""
    stream = io.BytesIO()
    shape = (num_images, side, side, 3)
    np.lib.format.write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return stream.getvalue()
