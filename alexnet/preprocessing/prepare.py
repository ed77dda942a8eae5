"""Make a prepared set: find its images, decode, write in order, resume, report those that are missing or unreadable.

Photographs are decoded on all cores and written in order by one process, in shards of 1024 indexed images. After each the
split's files are on the disk and `progress.json` says how far they count; what a killed call wrote beyond is truncated by
the next, or all if the source has changed. So the bytes depend neither on the number of processes nor on interruptions.
"""

import hashlib
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
from typing import Any

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
SHARD = 1024
CHUNK = 16  # images that a process decodes at a time: 3 MB, of which each process has two in flight; divides SHARD
PROGRESS = "progress.json"  # of a split: "key" of its source, "shards" (bytes and sha256) and "refused" (number, why)
LENGTHS = "progress.lengths"  # of the images in their file, uint32 one after another
MEND = "(see above). Mend the source and repeat the command; or repeat it with --accept-bad, which decodes nothing again."


@files.disk_errors_named()
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

    `alexnet prepare --help` has the options (`cli.py`). Raises UserError for an unknown set, a source that is not what it
    should be (the message names the file) or not what the set was made of, or a full disk; what was done is kept.
    """
    name = kind if name is None else name
    _refuse_options(kind, name, val_fraction, source or accept_bad or None, codec or processes)
    folder, lock = prepared_set.data_dir() / name, prepared_set.data_dir() / f"{name}.lock"
    is_unsettled = any(Path(f"{folder}.{left}").exists() for left in (f"new/{prepared_set.MANIFEST}", "old"))
    if force or is_unsettled or not prepared_set.is_prepared(name):
        if files.is_locked(lock):
            print(f"Another process is preparing {name}; waiting for it.", file=sys.stderr)
        with files.locked(lock):
            prepared_set.settle(name)
            if force or not prepared_set.is_prepared(name):  # Why again: another process may have made it meanwhile
                origin = _origin(source, val_fraction)  # Why first: what changes from here on is noticed later
                found = _find(kind, source, folder.with_name(f"{name}.download"), accept_bad, val_fraction)
                _make(folder, found, origin, accept_bad, processes or available_cores(), codec)
    elif source is not None and not source.is_dir():
        print(f"{source} is not a folder. {name} is prepared, and stays as it is.", file=sys.stderr)
    elif source is not None:
        was = prepared_set.read_manifest(folder).get("origin")
        if was is not None and _origin(source, val_fraction)["sha256"] != was["sha256"]:
            what = f"{name} is prepared from {was['folder']}, and the files in {source}, or --val-fraction, are others now"
            raise UserError(f"{what}. To make the set again from there, add --force.")
    data = prepared_set.open_set(name, verify)
    if codec not in (None, data.codec):
        raise UserError(f"{name} is prepared with --codec {data.codec}. To make it again with {codec}, add --force.")
    return data


def _refuse_options(kind: str, name: str, val_fraction: float | None, of_source: Any, of_photographs: Any) -> None:
    if kind not in catalog.SETS and not prepared_set.is_prepared(kind):
        known = f"{nearest(kind, catalog.SETS)}. Known are {', '.join(catalog.SETS)}, and your own"
        raise UserError(f"There is no data set {kind!r}{known}: {catalog.command(kind)}")
    if (name != kind or val_fraction is not None) and kind != "folders":
        raise UserError("--name and --val-fraction are for class folders: alexnet prepare folders --source DIR --name NAME")
    if name != kind and (name in catalog.SETS or not re.fullmatch(prepared_set.NAME, name)):
        raise UserError(f"--name must be small letters, digits, - and _, and no known set's name, not {name!r}.")
    is_formula = catalog.SETS[kind].how == catalog.FORMULA
    if is_formula and of_source:
        raise UserError(f"{kind} is computed from a seed; leave out --source and --accept-bad.")
    if of_photographs and (is_formula or kind == "cifar10"):
        raise UserError(f"--codec and --processes are for sets of photographs, and {kind} is none: leave them out.")
    if val_fraction is not None and of_source is None:
        raise UserError("--val-fraction says how --source is split, and it is not said where that is.")
    if val_fraction is not None and not 0 < val_fraction < 1:
        raise UserError(f"--val-fraction must be more than 0 and less than 1, not {val_fraction}.")


def _origin(source: Path | None, val_fraction: float | None) -> dict[str, str]:
    digest, seen = hashlib.sha256(str(val_fraction).encode()), set()
    for where, folders, names in os.walk(source, followlinks=True) if source else ():
        real = {folder: os.path.realpath(os.path.join(where, folder)) for folder in sorted(folders)}
        folders[:] = [folder for folder in real if real[folder] not in seen]  # Why: links may lead in a circle
        seen.update(real.values())
        for file in (Path(where, name) for name in sorted(names)):
            has = file.stat() if file.exists() else file.lstat()
            digest.update(f"{file.relative_to(source)} {has.st_size} {has.st_mtime_ns}".encode(errors="surrogateescape"))
    return {"folder": str(source.resolve()) if source else "a download", "sha256": digest.hexdigest()}


def _find(kind: str, source: Path | None, download: Path, accept_bad: bool, val_fraction: float | None) -> Source:
    how = catalog.SETS[kind].how
    if kind not in catalog.SETS:
        raise UserError(f"{kind} is made again with: {catalog.command(kind)} --force")
    if source is None and how == catalog.OWN_COPY:
        raise UserError(f"{kind} is made of images on disk. Say where: alexnet prepare {kind} --source DIR")
    if source is not None and not source.is_dir():
        raise UserError(f"{source} is not a folder. Point --source at the images of {kind}.")
    if spec := synthetic.SPECS.get(kind):
        images = {split: synthetic.generate(spec, split, count) for split, count in catalog.SETS[kind].counts.items()}
        return Source(spec.classes, spec.classes, images, facts={"source": "formula", "seed": spec.seed})
    if kind == "cifar10":
        return cifar10.find(source, download, accept_bad)
    if kind in imagenet.PARTS_OF:
        return imagenet.find_imagenet20(source, kind, download)
    if kind == "folders":
        return imagenet.find_folders(source, val_fraction)
    return (imagenet.find_fall if kind.startswith("fall") else imagenet.find_ilsvrc)(source, int(kind[-4:]))


def _make(place: Path, found: Source, origin: dict[str, str], accept_bad: bool, processes: int, codec: Codec | None) -> None:
    """Make the set beside `place` and put it there when it is complete: whatever happens, one that is there is not lost."""
    folder, splits = place.with_name(f"{place.name}.new"), found.splits
    facts = {"stand_in": catalog.SETS[place.name].stand_in, "words": found.words, "origin": origin, **found.facts}
    if all(isinstance(images, ImageIndex) for images in splits.values()):
        try:
            facts |= _write_photographs(folder, place.name, found, accept_bad, processes, codec)
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            mend = f"repeat the command, which resumes there, with --processes {max(1, processes // 2)} if it happens again"
            raise UserError(f"A decoding process was killed ({error}), perhaps for want of memory: {mend}.") from error
    else:
        for split, (images, labels) in splits.items():
            prepared_set.write_split(folder / split, images, labels)
    prepared_set.finish_set(folder, found.classes, tuple(splits), **facts)
    for file in folder.glob("*/progress.*"):  # Why last: a kill before this line must not cost the decoded images
        file.unlink()
    prepared_set.settle(place.name)
    shutil.rmtree(place.with_name(f"{place.name}.download"), ignore_errors=True)


def _write_photographs(
    folder: Path, name: str, found: Source, accept_bad: bool, processes: int, codec: Codec | None
) -> dict[str, Any]:
    count = sum(map(len, found.splits.values()))
    codec = codec or catalog.default_codec(count, SIDE)
    size = f"about {catalog.bytes_of(count, SIDE, codec) / 1e9:.1f} GB with --codec {codec}"
    counts = ", ".join(f"{len(index):,} {split}" for split, index in found.splits.items())
    print(f"{name}: {counts} images in {len(found.classes):,} classes, {size}", file=sys.stderr)
    for decode in (False, True):  # Why twice: what is wrong with an index needs no hours of decoding to be seen
        report, wrong = {}, {}
        for split, index in found.splits.items():
            where, official = f"{name} {split}", found.official.get(split)
            refused = _write(folder / split, index, codec, processes, where) if decode else None
            report[split], wrong[split] = _report(where, index, official, refused, accept_bad)
        for split in filter(wrong.get, wrong):
            raise UserError(f"The split {split} has {wrong[split]}")
    return {"codec": codec, "side": SIDE, "pillow": PIL.__version__, "report": report}


def _report(
    where: str, index: ImageIndex, official: int | None, refused: list | None, accept_bad: bool
) -> tuple[dict[str, Any], str]:
    """Return what the manifest says of a split, and what is wrong. Print what was found last, in indexing or decoding."""
    undecoded = [(index.name(i), why) for i, why in refused or ()]
    listed, skipped = len(index) + len(index.refused), [*index.refused, *undecoded]
    missing, new = max(0, (official or 0) - listed), index.refused if refused is None else undecoded
    lines = [f"skipped {file}: {why}" for file, why in new[:SHOWN]]
    lines += [f"skipped {len(new) - SHOWN:,} more"] if len(new) > SHOWN else []
    lines += [f"{missing:,} of the published {official:,} are missing"] if missing and refused is None else []
    print(*(f"{where}: {line}\n" for line in lines), sep="", end="", file=sys.stderr)
    bad, whole, wrong = len(skipped) + missing, official or listed, ""
    if listed == len(skipped):
        wrong = "no image that can be read. Is --source the right folder?"
    elif listed > whole and not accept_bad:
        wrong = f"{listed:,} images where {whole:,} were published {MEND}"
    elif bad > TOLERATED * whole and not accept_bad:
        wrong = f"{bad:,} of {whole:,} images missing or unreadable, more than {TOLERATED:.1%} {MEND}"
    return {"listed": listed, "official": official, "missing": missing, "skipped": skipped}, wrong


def _write(folder: Path, index: ImageIndex, codec: Codec, processes: int, title: str) -> list:
    """Decode images into `folder`, after the shards that an earlier call finished. Return numbers of bad ones and why."""
    written = _saved(folder, index, codec)
    shards, refused = written["shards"], written["refused"]
    done, start = min(len(shards) * SHARD, len(index)), len(prepared_set.header(0, SIDE)) if codec == "raw" else 0
    with (
        (folder / IMAGE_FILES[codec]).open("ab") as images,
        (folder / LENGTHS).open("ab") as lengths,
        tqdm(total=len(index), initial=done, desc=title, unit=" images", leave=False) as bar,
    ):
        images.truncate(start + sum(length for length, _ in shards))  # of a new file, it is room for the header
        lengths.truncate(4 * (done - len(refused)))
        chunks = _decoded(index, codec, done // CHUNK, processes)
        for _ in range(done, len(index), SHARD):
            sha256, num_bytes = hashlib.sha256(), 0
            for encoded, bad in islice(chunks, SHARD // CHUNK):
                images.write(data := b"".join(encoded))
                lengths.write(np.array([len(image) for image in encoded], "<u4").tobytes())
                sha256.update(data)
                num_bytes += len(data)
                refused += bad
                bar.update(len(encoded) + len(bad))
            shards.append([num_bytes, sha256.hexdigest()])
            for stream in (images, lengths):  # first what was written, then that it counts
                stream.flush()
                os.fsync(stream.fileno())
            files.write_json(folder / PROGRESS, written)
    with (folder / IMAGE_FILES[codec]).open("r+b", buffering=0) as images:
        images.write(prepared_set.header(len(index) - len(refused), SIDE)[:start])
        os.fsync(images.fileno())
    files.write_array(folder / "labels.npy", np.delete(index.labels, [i for i, _ in refused]))
    files.write_json(folder / SHARDS, {"start": start, "shards": shards})
    if codec == "jpeg":
        ends = np.fromfile(folder / LENGTHS, "<u4").cumsum(dtype=np.int64)
        files.write_array(folder / OFFSETS, np.concatenate(([0], ends)))
    return refused


def _saved(folder: Path, index: ImageIndex, codec: Codec) -> dict[str, Any]:
    """Return how far an earlier call came that wrote the same images, if its files are there; else clear the folder."""
    key = f"{hashlib.sha256(index.rows).hexdigest()} {SIDE} {codec}"
    if (folder / PROGRESS).is_file():
        written = files.read_json(folder / PROGRESS, "Delete it and repeat the command.")
        there = sum(file.stat().st_size for file in folder.glob("images.*"))
        if written["key"] == key and there >= sum(length for length, _ in written["shards"]):
            return written
    shutil.rmtree(folder, ignore_errors=True)
    files.make_folder(folder)
    return {"key": key, "shards": [], "refused": []}


def _decoded(index: ImageIndex, codec: Codec, first: int, processes: int) -> Iterator[tuple[list[bytes], list]]:
    from torch.utils.data import DataLoader  # Why here: torch takes a second to import

    # Why fork: it shares the index of millions of names, and imports no modules again in every process.
    how = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn") if processes > 1 else None
    decode = partial(_decode_chunk, index, SIDE, codec, how.Lock() if how else None)
    options = {"worker_init_fn": partial(_end_with, os.getpid()), "multiprocessing_context": how}
    options["num_workers"] = processes if how else 0
    with warnings.catch_warnings(action="ignore"):  # Why: it warns of more processes than cores, which is the user's choice
        return iter(DataLoader(range(first, -(-len(index) // CHUNK)), batch_size=None, collate_fn=decode, **options))


def _end_with(parent: int, worker: int) -> None:  # Why: torch's watch spares a worker whose full queue nobody reads
    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _decode_chunk(index: ImageIndex, side: int, codec: Codec, turn: AbstractContextManager | None, number: int) -> tuple:
    images, refused = [], []
    for i in range(number * CHUNK, min((number + 1) * CHUNK, len(index))):
        pixels = photograph.read_or_why(partial(index.read, i), side, turn)
        if isinstance(pixels, str):
            refused.append([i, pixels])
        else:
            images.append(pixels.tobytes() if codec == "raw" else prepared_set.encode(pixels))
    return images, refused
