"""Make a prepared set: find its images, decode, write in order, resume, report those that are missing or unreadable.

CIFAR-10 and the sets made by formula fit into memory and are written whole. Photographs are decoded on all cores and written
in order by one process, in shards of 1024 indexed images. After each the split's files are on the disk and `progress.json`
says how far they count; what a killed call wrote beyond is truncated by the next, or all if the source has changed. So the
bytes depend neither on the number of processes nor on interruptions. An image that cannot be read leaves no hole.
"""

import hashlib
import io
import multiprocessing
import os
import shlex
import shutil
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import PIL
from tqdm import tqdm

from alexnet import files
from alexnet.config import UserError, nearest
from alexnet.machine import available_cores
from alexnet.preprocessing import catalog, cifar10, imagenet, photograph, prepared_set, synthetic
from alexnet.preprocessing.image_index import ImageIndex, Source
from alexnet.preprocessing.prepared_set import IMAGE_FILES, OFFSETS, SHARDS, Codec, PreparedSet

SIDE = 256
TOLERATED = 0.001  # fraction of a split's images that may be missing or unreadable without being accepted explicitly
SHOWN = 20  # names on the screen; prepare.json has all
WAIT = 1.0  # seconds between two looks whether another process is done
SHARD = 1024
CHUNK = 16  # images that a process decodes at a time: 3 MB, of which each process has two in flight; divides SHARD
PROGRESS = "progress.json"
LENGTHS = "progress.lengths"  # of the images in their file, uint32 one after another

Written = dict[str, list]  # how far a split is: "key", "shards" (bytes and sha256 of each) and "refused" (number, why)
Chunk = tuple[list[bytes], list]  # images, refused


def prepare(
    name: str,
    source: Path | None = None,
    force: bool = False,
    processes: int | None = None,
    codec: Codec | None = None,
    accept_bad: bool = False,
    verify: bool | None = None,
) -> PreparedSet:
    """Make the prepared set `name` unless it is there, resuming where an earlier call stopped, and return it opened.

    `source` is a folder to read from instead of a download. `force` starts again. Photographs are decoded by `processes`, by
    default one on each core, and kept in the form `codec`, by default chosen by size; `accept_bad` accepts that more than
    0.1 % are missing or unreadable. `verify` compares every byte with the checksums. Raises UserError for an unknown set, a
    source that is not what it should be (the message names the file), or a full disk; what was done is kept.
    """
    if name not in catalog.SETS:
        raise UserError(f"There is no data set {name!r}{nearest(name, catalog.SETS)}. Known are {', '.join(catalog.SETS)}.")
    folder, lock = prepared_set.data_dir() / name, prepared_set.data_dir() / f"{name}.lock"
    if force or not prepared_set.is_prepared(name):
        with files.disk_errors_named(folder.parent, "ALEXNET_DATA"):
            if files.is_locked(lock):
                print(f"Another process is preparing {name}; waiting for it.", file=sys.stderr)
            while files.is_locked(lock):
                time.sleep(WAIT)
            with files.locked(lock, f"Another process is preparing {name}. Repeat the command when it is done."):
                if force or not prepared_set.is_prepared(name):  # Why again: another process may have made it meanwhile
                    _make(folder, source, force, processes or available_cores(), codec, accept_bad)
    data = prepared_set.open_set(name, verify)
    if codec not in (None, data.codec):
        raise UserError(f"{name} is prepared with --codec {data.codec}. To make it again with {codec}, add --force.")
    return data


def _make(folder: Path, source: Path | None, force: bool, processes: int, codec: Codec | None, accept_bad: bool) -> None:
    name, download = folder.name, folder.with_name(f"{folder.name}.download")
    found = _find(name, source, download, accept_bad)
    if force:  # Why not earlier: a source that is no good must not cost the set that is there
        shutil.rmtree(folder, ignore_errors=True)
    facts = {"stand_in": catalog.SETS[name].stand_in, "words": found.words, **found.facts}
    if all(isinstance(images, ImageIndex) for images in found.splits.values()):
        codec = codec or catalog.default_codec(sum(map(len, found.splits.values())), SIDE)
        where = "" if source is None else f" --source {shlex.quote(str(source))}"
        command = f"alexnet prepare {name}{where} --codec {codec} --accept-bad"
        report = _write_photographs(folder, found, codec, processes, None if accept_bad else command)
        facts |= {"codec": codec, "side": SIDE, "pillow": PIL.__version__, "report": report}
    else:
        for split, (images, labels) in found.splits.items():
            prepared_set.write_split(folder / split, images, labels)
    prepared_set.finish_set(folder, found.classes, tuple(found.splits), **facts)
    for file in folder.glob("*/progress.*"):  # Why last: a kill before this line must not cost the decoded images
        file.unlink()
    shutil.rmtree(download, ignore_errors=True)


def _find(name: str, source: Path | None, download: Path, accept_bad: bool) -> Source:
    """Find or make the images of a set. Raises UserError for a source that is missing or not what it should be."""
    how = catalog.SETS[name].how
    if source is not None and how == catalog.FORMULA:
        raise UserError(f"{name} is computed from a seed; leave out --source.")
    if source is None and how == catalog.OWN_COPY:
        raise UserError(f"{name} is made of images on disk. Say where: alexnet prepare {name} --source DIR")
    if source is not None and not source.is_dir():
        raise UserError(f"{source} is not a folder. Point --source at the images of {name}.")
    if name == "cifar10":
        return cifar10.find(source, download, accept_bad)
    if how == catalog.FORMULA:
        spec = synthetic.SPECS[name]
        images = {split: synthetic.generate(spec, split, count) for split, count in catalog.SETS[name].counts.items()}
        return Source(spec.classes, spec.classes, images, facts={"source": "formula", "seed": spec.seed})
    return imagenet.FINDERS[name](source or imagenet.download_imagenet20(download, name))


def _write_photographs(folder: Path, source: Source, codec: Codec, processes: int, command: str | None) -> dict[str, Any]:
    """Write the indexed images of all splits. Return what is wrong with each, for the manifest.

    Raises UserError when a process is killed, and for too many bad images, unless they are accepted, which `command` does.
    """
    counts = ", ".join(f"{len(index):,} {split}" for split, index in source.splits.items())
    size = f"about {catalog.bytes_of(sum(map(len, source.splits.values())), SIDE, codec) / 1e9:.1f} GB with --codec {codec}"
    print(f"{folder.name}: {counts} images in {len(source.classes):,} classes, {size}", file=sys.stderr)
    report = {}
    try:
        for split, index in source.splits.items():
            refused = _write(folder / split, index, SIDE, codec, processes)
            report[split] = _report(f"{folder.name} {split}: ", index, refused, source.official.get(split))
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise UserError(
            f"A decoding process was killed, perhaps for want of memory ({error}). What is done is kept: repeat the "
            f"command, with --processes {max(1, processes // 2)} if it happens again."
        ) from error
    for split, entries in report.items():
        _refuse_bad(split, entries, command)
    return report


def _report(where: str, index: ImageIndex, refused: list, official: int | None) -> dict[str, Any]:
    """Return what is wrong with a split, and print it, cut short."""
    skipped = [*index.refused, *((index.name(i), why) for i, why in refused)]
    listed = len(index) + len(index.refused)
    missing = max(0, (official or 0) - listed)
    lines = [f"skipped {file}: {why}" for file, why in skipped[:SHOWN]]
    lines += [f"skipped {len(skipped) - SHOWN:,} more"] if len(skipped) > SHOWN else []
    lines += [f"{missing:,} of the published {official:,} are missing"] if missing else []
    print(*(f"{where}{line}\n" for line in lines), sep="", end="", file=sys.stderr)
    return {"listed": listed, "official": official, "missing": missing, "skipped": skipped}


def _refuse_bad(split: str, entries: dict[str, Any], command: str | None) -> None:
    """Raise UserError for a split without an image; also, unless accepted, for more than 0.1 % bad ones or a surplus."""
    skipped, listed = len(entries["skipped"]), entries["listed"]
    bad, whole = skipped + entries["missing"], entries["official"] or listed
    if listed == skipped:
        raise UserError(f"The split {split} has no image that can be read. Is --source the right folder?")
    what = f"{bad:,} of {whole:,} images missing or unreadable, more than {TOLERATED:.1%}" if bad > TOLERATED * whole else ""
    what = f"{listed:,} images where {whole:,} were published" if listed > whole else what
    if what and command:
        raise UserError(
            f"The split {split} has {what} (see above). Mend the source and repeat the command, or accept what there is, "
            f"for which nothing is decoded again: {command}"
        )


def _write(folder: Path, index: ImageIndex, side: int, codec: Codec, processes: int) -> list:
    """Decode the images of `index` into `folder`, resuming after the shards that an earlier call finished.

    Returns the numbers of the images that cannot be read, which are left out, and why. Raises OSError when the disk is full,
    and RuntimeError when a process is killed; finished shards are kept.
    """
    written = _saved(folder, hashlib.sha256(f"{index.digest()} {side} {codec}".encode()).hexdigest())
    shards, refused = written["shards"], written["refused"]
    done = min(len(shards) * SHARD, len(index))
    start, label = len(prepared_set.header(0, side)) if codec == "raw" else 0, f"{folder.parent.name} {folder.name}"
    with (
        (folder / IMAGE_FILES[codec]).open("ab") as images,
        (folder / LENGTHS).open("ab") as lengths,
        tqdm(total=len(index), initial=done, desc=label, unit=" images", leave=False) as bar,
    ):
        images.truncate(start + sum(length for length, _ in shards))  # of a new file, it is room for the header
        lengths.truncate(4 * (done - len(refused)))
        chunks = _decoded(index, side, codec, done // CHUNK, processes)
        for _ in range(done, len(index), SHARD):
            _write_shard(written, islice(chunks, SHARD // CHUNK), images, lengths, bar)
            for stream in (images, lengths):  # first what was written, then that it counts
                stream.flush()
                os.fsync(stream.fileno())
            files.write_json(folder / PROGRESS, written)
    with (folder / IMAGE_FILES[codec]).open("r+b") as images:
        images.write(prepared_set.header(len(index) - len(refused), side)[:start])
    files.write_array(folder / "labels.npy", np.delete(index.labels, [i for i, _ in refused]))
    files.write_json(folder / SHARDS, {"start": start, "shards": shards})
    if codec == "jpeg":
        ends = np.fromfile(folder / LENGTHS, "<u4").cumsum(dtype=np.int64)
        files.write_array(folder / OFFSETS, np.concatenate(([0], ends)))
    return refused


def _saved(folder: Path, key: str) -> Written:
    """Return how far an earlier call came that wrote the same images, if its files are there; else clear the folder."""
    if (folder / PROGRESS).is_file():
        written = files.read_json(folder / PROGRESS, "Delete it and repeat the command.")
        there = sum(file.stat().st_size for file in folder.glob("images.*"))
        if written["key"] == key and there >= sum(length for length, _ in written["shards"]):
            return written
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    return {"key": key, "shards": [], "refused": []}


def _write_shard(written: Written, chunks: Iterator[Chunk], images: BinaryIO, lengths: BinaryIO, bar: tqdm) -> None:
    """Write the images of some chunks behind the earlier ones and count them."""
    sha256, num_bytes = hashlib.sha256(), 0
    for encoded, refused in chunks:
        of_each = np.array([len(image) for image in encoded], "<u4")
        images.writelines(encoded)
        lengths.write(of_each.tobytes())
        sha256.update(b"".join(encoded))
        num_bytes += int(of_each.sum())
        written["refused"] += refused
        bar.update(len(encoded) + len(refused))
    written["shards"].append([num_bytes, sha256.hexdigest()])


def _decoded(index: ImageIndex, side: int, codec: Codec, first: int, processes: int) -> Iterator[Chunk]:
    """Return the chunks from number `first` on, decoded by several processes that are at most two chunks ahead each."""
    from torch.utils.data import DataLoader  # Why here: torch takes a second to import

    # Why fork: it shares the index of millions of names, and imports no modules again in every process.
    how = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn") if processes > 1 else None
    decode = partial(_decode_chunk, index, side, codec, how.Lock() if how else None)
    options = {"num_workers": processes if how else 0, "multiprocessing_context": how}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Why: it warns of more processes than cores, which is the user's choice
        return iter(DataLoader(range(first, -(-len(index) // CHUNK)), batch_size=None, collate_fn=decode, **options))


def _decode_chunk(index: ImageIndex, side: int, codec: Codec, turn: AbstractContextManager | None, number: int) -> Chunk:
    images, refused = [], []
    for i in range(number * CHUNK, min((number + 1) * CHUNK, len(index))):
        try:
            pixels = photograph.read(io.BytesIO(index.read(i)), side, turn)
        except photograph.UNREADABLE as error:
            why = str(error) or type(error).__name__
            refused.append([i, "not an image" if "cannot identify image file" in why else why])
            continue
        images.append(pixels.tobytes() if codec == "raw" else prepared_set.encode(pixels))
    return images, refused
