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
import re
import shutil
import sys
import threading
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
WAIT = 1.0  # seconds between two looks whether another process is there
SHARD = 1024
CHUNK = 16  # images that a process decodes at a time: 3 MB, of which each process has two in flight; divides SHARD
BESIDE = ".new"  # ends the name of a set that is made again, beside the one that is there
PROGRESS = "progress.json"
LENGTHS = "progress.lengths"  # of the images in their file, uint32 one after another

Written = dict[str, list]  # how far a split is: "key", "shards" (bytes and sha256 of each) and "refused" (number, why)
Chunk = tuple[list[bytes], list]  # images, refused


def prepare(
    kind: str,
    source: Path | None = None,
    force: bool = False,
    processes: int | None = None,
    codec: Codec | None = None,
    accept_bad: bool = False,
    verify: bool | None = None,
    val_fraction: float | None = None,
    name: str | None = None,
) -> PreparedSet:
    """Make the prepared set `kind` unless it is there, resuming where an earlier call stopped, and return it opened.

    `source` is a folder to read from instead of a download. `force` makes the set again, beside the one that is there.
    Photographs are decoded by `processes`, by default one on each core, and kept in the form `codec`, by default chosen by
    size; `accept_bad` accepts that more than 0.1 % are missing or unreadable. `verify` compares every byte with the
    checksums. Of class folders `val_fraction` is put aside for validation, and `name` is what the set is called. Raises
    UserError for an unknown set, a source that is not what it should be (the message names the file) or not what the set was
    made of, or a full disk; what was done is kept.
    """
    name = kind if name is None else name
    _refuse_options(kind, name, val_fraction)
    folder, lock = prepared_set.data_dir() / name, prepared_set.data_dir() / f"{name}.lock"
    with files.disk_errors_named(folder.parent, "ALEXNET_DATA"):
        if force or not prepared_set.is_prepared(name):
            if files.is_locked(lock):
                print(f"Another process is preparing {name}; waiting for it.", file=sys.stderr)
            with files.locked(lock):
                _swap(folder)
                if force or not prepared_set.is_prepared(name):  # Why again: another process may have made it meanwhile
                    origin = _origin(source, val_fraction)  # Why first: what changes from here on is noticed later
                    found = _find(kind, source, folder.with_name(f"{name}.download"), accept_bad, val_fraction)
                    _make(folder, found, origin, accept_bad, processes or available_cores(), codec)
        elif source is not None:
            _refuse_other(folder, source, val_fraction)
        data = prepared_set.open_set(name, verify)
    if codec not in (None, data.codec):
        raise UserError(f"{name} is prepared with --codec {data.codec}. To make it again with {codec}, add --force.")
    return data


def _refuse_options(kind: str, name: str, val_fraction: float | None) -> None:
    if kind not in catalog.SETS and not prepared_set.is_prepared(kind):
        known = f"Known are {', '.join(catalog.SETS)}, and what you prepare with --name"
        raise UserError(f"There is no data set {kind!r}{nearest(kind, catalog.SETS)}. {known}.")
    if (name != kind or val_fraction is not None) and kind != "folders":
        raise UserError("--name and --val-fraction are for class folders: alexnet prepare folders --source DIR --name NAME")
    if name != kind and (name in catalog.SETS or not re.fullmatch("[a-z0-9][a-z0-9_-]*", name)):
        raise UserError(f"--name must be small letters, digits, - and _, and no known set's name, not {name!r}.")
    if val_fraction is not None and not 0 < val_fraction < 1:
        raise UserError(f"--val-fraction must be more than 0 and less than 1, not {val_fraction}.")


def _origin(source: Path | None, val_fraction: float | None) -> dict[str, str]:
    """Return what a set is made of: the folder, and a sha256 of the names, sizes and times of all files in it."""
    digest, seen = hashlib.sha256(str(val_fraction).encode()), set()
    for where, folders, names in os.walk(source, followlinks=True) if source else ():
        real = {folder: os.path.realpath(os.path.join(where, folder)) for folder in sorted(folders)}
        folders[:] = [folder for folder in real if real[folder] not in seen]  # Why: links may lead in a circle
        seen.update(real.values())
        for file in (Path(where, name) for name in sorted(names)):
            has = file.stat() if file.exists() else file.lstat()
            digest.update(f"{file.relative_to(source)} {has.st_size} {has.st_mtime_ns}".encode(errors="surrogateescape"))
    return {"folder": str(source.resolve()) if source else "a download", "sha256": digest.hexdigest()}


def _refuse_other(folder: Path, source: Path, val_fraction: float | None) -> None:
    """Raise UserError when the set in `folder` was made of something else than `source`, if it says so."""
    was = files.read_json(folder / prepared_set.MANIFEST, "Make the set again with --force.").get("origin")
    if was is not None and source.is_dir() and _origin(source, val_fraction)["sha256"] != was["sha256"]:
        what = f"{folder.name} is prepared from {was['folder']}, and what is in {source} now are other files"
        raise UserError(f"{what}. To make the set again from there, add --force.")


def _swap(folder: Path) -> None:
    """Put a set that was built beside another in its place, also where a killed call left off doing so."""
    new, old = folder.with_name(f"{folder.name}{BESIDE}"), folder.with_name(f"{folder.name}.old")
    if (new / prepared_set.MANIFEST).is_file():
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)
            folder.rename(old)
        new.rename(folder)
        files.sync_folder(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def _make(place: Path, found: Source, origin: dict[str, str], accept_bad: bool, processes: int, codec: Codec | None) -> None:
    """Make the set in `place`, beside it while there is one: whatever happens, that one is not lost."""
    is_new = not prepared_set.is_prepared(place.name)
    folder = place if is_new else place.with_name(f"{place.name}{BESIDE}")
    (folder / prepared_set.MANIFEST).unlink(missing_ok=True)
    facts = {"stand_in": catalog.SETS[place.name].stand_in, "words": found.words, "origin": origin, **found.facts}
    if all(isinstance(images, ImageIndex) for images in found.splits.values()):
        codec = codec or catalog.default_codec(sum(map(len, found.splits.values())), SIDE)
        report = _write_photographs(folder, found, codec, processes, accept_bad)
        facts |= {"codec": codec, "side": SIDE, "pillow": PIL.__version__, "report": report}
    else:
        for split, (images, labels) in found.splits.items():
            prepared_set.write_split(folder / split, images, labels)
    prepared_set.finish_set(folder, found.classes, tuple(found.splits), **facts)
    for file in folder.glob("*/progress.*"):  # Why last: a kill before this line must not cost the decoded images
        file.unlink()
    _swap(place)
    shutil.rmtree(place.with_name(f"{place.name}.download"), ignore_errors=True)


def _find(kind: str, source: Path | None, download: Path, accept_bad: bool, val_fraction: float | None) -> Source:
    """Find or make the images of a set. Raises UserError for a source that is missing or not what it should be."""
    how = catalog.SETS[kind].how
    if source is not None and how == catalog.FORMULA:
        raise UserError(f"{kind} is computed from a seed; leave out --source.")
    if kind not in catalog.SETS:
        raise UserError(f"{kind} is made again with: {catalog.command(kind)} --force")
    if source is None and how == catalog.OWN_COPY:
        raise UserError(f"{kind} is made of images on disk. Say where: alexnet prepare {kind} --source DIR")
    if source is not None and not source.is_dir():
        raise UserError(f"{source} is not a folder. Point --source at the images of {kind}.")
    if kind == "cifar10":
        return cifar10.find(source, download, accept_bad)
    if how == catalog.FORMULA:
        spec = synthetic.SPECS[kind]
        images = {split: synthetic.generate(spec, split, count) for split, count in catalog.SETS[kind].counts.items()}
        return Source(spec.classes, spec.classes, images, facts={"source": "formula", "seed": spec.seed})
    if kind == "folders":
        return imagenet.find_folders(source, val_fraction)
    return imagenet.FINDERS[kind](source or imagenet.download_imagenet20(download, kind))


def _write_photographs(folder: Path, source: Source, codec: Codec, processes: int, accept_bad: bool) -> dict[str, Any]:
    """Write the indexed images of all splits. Return what is wrong with each, for the manifest.

    Raises UserError when a process is killed, and for too many bad images, unless they are accepted.
    """
    name, counts = folder.name.removesuffix(BESIDE), ", ".join(f"{len(i):,} {split}" for split, i in source.splits.items())
    size = f"about {catalog.bytes_of(sum(map(len, source.splits.values())), SIDE, codec) / 1e9:.1f} GB with --codec {codec}"
    print(f"{name}: {counts} images in {len(source.classes):,} classes, {size}", file=sys.stderr)
    for split, index in source.splits.items():  # Why already: what is wrong here needs no hours of decoding to be seen
        _refuse_bad(split, _report(f"{name} {split}: ", index, source.official.get(split)), accept_bad)
    report = {}
    try:
        for split, index in source.splits.items():
            refused = _write(folder / split, index, SIDE, codec, processes)
            report[split] = _report(f"{name} {split}: ", index, source.official.get(split), refused)
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise UserError(
            f"A decoding process was killed, perhaps for want of memory ({error}). What is done is kept: repeat the "
            f"command, with --processes {max(1, processes // 2)} if it happens again."
        ) from error
    for split, entries in report.items():
        _refuse_bad(split, entries, accept_bad)
    return report


def _report(where: str, index: ImageIndex, official: int | None, refused: list | None = None) -> dict[str, Any]:
    """Return what is wrong with a split, and print, cut short, what was found last: in indexing, or then in decoding."""
    undecoded = [(index.name(i), why) for i, why in refused or ()]
    listed, skipped = len(index) + len(index.refused), [*index.refused, *undecoded]
    missing, new = max(0, (official or 0) - listed), index.refused if refused is None else undecoded
    lines = [f"skipped {file}: {why}" for file, why in new[:SHOWN]]
    lines += [f"skipped {len(new) - SHOWN:,} more"] if len(new) > SHOWN else []
    lines += [f"{missing:,} of the published {official:,} are missing"] if missing and refused is None else []
    print(*(f"{where}{line}\n" for line in lines), sep="", end="", file=sys.stderr)
    return {"listed": listed, "official": official, "missing": missing, "skipped": skipped}


def _refuse_bad(split: str, entries: dict[str, Any], accept_bad: bool) -> None:
    """Raise UserError for a split without an image; also, unless accepted, for more than 0.1 % bad ones or a surplus."""
    skipped, listed = len(entries["skipped"]), entries["listed"]
    bad, whole = skipped + entries["missing"], entries["official"] or listed
    if listed == skipped:
        raise UserError(f"The split {split} has no image that can be read. Is --source the right folder?")
    what = f"{bad:,} of {whole:,} images missing or unreadable, more than {TOLERATED:.1%}" if bad > TOLERATED * whole else ""
    what = f"{listed:,} images where {whole:,} were published" if listed > whole else what
    if what and not accept_bad:
        mend = "Mend the source and repeat the command; or repeat it with --accept-bad, which decodes nothing again"
        raise UserError(f"The split {split} has {what} (see above). {mend}.")


def _write(folder: Path, index: ImageIndex, side: int, codec: Codec, processes: int) -> list:
    """Decode the images of `index` into `folder`, resuming after the shards that an earlier call finished.

    Returns the numbers of the images that cannot be read, which are left out, and why. Raises OSError when the disk is full,
    and RuntimeError when a process is killed; finished shards are kept.
    """
    written = _saved(folder, hashlib.sha256(f"{index.digest()} {side} {codec}".encode()).hexdigest())
    shards, refused = written["shards"], written["refused"]
    done = min(len(shards) * SHARD, len(index))
    start, label = len(prepared_set.header(0, side)) if codec == "raw" else 0, " ".join(folder.parts[-2:])
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
        images.flush()
        os.fsync(images.fileno())
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
    files.make_folder(folder)
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
    options |= {"worker_init_fn": partial(_end_with, os.getpid())}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Why: it warns of more processes than cores, which is the user's choice
        return iter(DataLoader(range(first, -(-len(index) // CHUNK)), batch_size=None, collate_fn=decode, **options))


def _end_with(parent: int, worker: int) -> None:
    """Have a decoding process end when the one that started it does: torch looks too late for one that is killed early."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(WAIT)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _decode_chunk(index: ImageIndex, side: int, codec: Codec, turn: AbstractContextManager | None, number: int) -> Chunk:
    images, refused = [], []
    for i in range(number * CHUNK, min((number + 1) * CHUNK, len(index))):
        data = b""
        try:
            data = index.read(i)
            pixels = photograph.read(io.BytesIO(data), side, turn)
        except photograph.UNREADABLE as error:
            refused.append([i, photograph.why_not(error, data)])
            continue
        images.append(pixels.tobytes() if codec == "raw" else prepared_set.encode(pixels))
    return images, refused
