"""Make a prepared set: find its images, write them, report everything that was unusual.

CIFAR-10 and the sets made by formula fit into memory and are written whole. Photographs are written shard by shard
(`shards.py`), so that a call resumes where an earlier one stopped.
"""

import shlex
import shutil
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import PIL

from alexnet import files
from alexnet.config import UserError
from alexnet.machine import available_cores
from alexnet.preprocessing import catalog, cifar10, imagenet, prepared_set, shards, synthetic
from alexnet.preprocessing.image_index import ImageIndex, Source
from alexnet.preprocessing.prepared_set import Codec, PreparedSet

SIDE = 256
TOLERATED = 0.001  # fraction of a split's images that may be missing or unreadable without being accepted explicitly
SHOWN = 20  # names on the screen; prepare.json has all
EXAMPLES = 100  # names kept of each kind of unusual image
WAIT = 1.0  # seconds between two looks whether another process is done


@dataclass(frozen=True)
class Request:
    """What the user asked for besides the name of the set."""

    source: Path | None = None
    force: bool = False  # to start again
    processes: int | None = None  # None: one for each core
    codec: Codec | None = None  # None: raw for a set that is not too large
    accept_bad: bool = False

    def clear(self, folder: Path) -> None:
        """Remove what is in `folder` if that was asked for; to be called when the source was found to be good."""
        if self.force:
            shutil.rmtree(folder, ignore_errors=True)


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
    default one on each core, and kept in the form `codec`, by default chosen by size; `accept_bad` accepts that some are
    missing or unreadable even if they are more than 0.1 %. `verify` compares every byte with the checksums. Raises UserError
    for an unknown set, a source that is not what it should be (the message names the file), or a full disk; what was done
    is kept.
    """
    catalog.info(name)
    folder = prepared_set.data_dir() / name
    if force or not prepared_set.is_prepared(name):
        with files.disk_errors_named(folder.parent, "ALEXNET_DATA"):
            lock = folder.parent / f"{name}.lock"
            _wait_for(lock, name)
            with files.locked(lock, f"Another process is preparing {name}. Repeat the command when it is done."):
                if force or not prepared_set.is_prepared(name):  # Why again: another process may have made it meanwhile
                    _make(name, folder, Request(source, force, processes, codec, accept_bad))
    data = prepared_set.open_set(name, verify)
    if codec not in (None, data.codec):
        raise UserError(f"{name} is prepared with --codec {data.codec}. To make it again with {codec}, add --force.")
    return data


def _wait_for(lock: Path, name: str) -> None:
    if files.is_locked(lock):
        print(f"Another process is preparing {name}; waiting for it.", file=sys.stderr)
    while files.is_locked(lock):
        time.sleep(WAIT)


def _make(name: str, folder: Path, request: Request) -> None:
    if name == "cifar10":
        _make_cifar10(folder, request)
    elif name in synthetic.SPECS:
        _make_by_formula(synthetic.SPECS[name], folder, request)
    else:
        _make_of_photographs(name, folder, request)


def _make_cifar10(folder: Path, request: Request) -> None:
    download = folder.with_name(f"{folder.name}.download")
    splits = cifar10.read(request.source, download, request.accept_bad)
    request.clear(folder)
    for split, (images, labels) in splits.items():
        prepared_set.write_split(folder / split, images, labels)
    source = "class folders" if request.source and cifar10.has_class_folders(request.source) else "torchvision"
    prepared_set.finish_set(folder, cifar10.CLASSES, tuple(splits), stand_in=False, source=source)
    shutil.rmtree(download, ignore_errors=True)


def _make_by_formula(spec: synthetic.Spec, folder: Path, request: Request) -> None:
    if request.source is not None:
        raise UserError(f"{spec.name} is computed from a seed; leave out --source.")
    request.clear(folder)
    for split, count in spec.counts.items():
        prepared_set.write_split(folder / split, *synthetic.generate(spec, split, count))
    prepared_set.finish_set(folder, spec.classes, tuple(spec.counts), stand_in=True, source="formula", seed=spec.seed)


def _make_of_photographs(name: str, folder: Path, request: Request) -> None:
    source, download = request.source, folder.with_name(f"{name}.download")
    if source is None and name in imagenet.PARTS_OF:
        source = imagenet.download_imagenet20(download, name)
    if source is None:
        raise UserError(f"{name} is made of images on disk. Say where: alexnet prepare {name} --source DIR")
    if not source.is_dir():
        raise UserError(f"{source} is not a folder. Point --source at the images of {name}.")
    found = imagenet.FINDERS[name](source)
    request.clear(folder)
    write_photographs(folder, found, replace(request, source=source))
    shutil.rmtree(download, ignore_errors=True)


def write_photographs(folder: Path, source: Source, request: Request) -> None:
    """Make the set in `folder` from its indexed images. Raises UserError for a full disk or too many bad images."""
    processes = request.processes or available_cores()
    begun = [found.codec for split in source.splits if (found := shards.saved(folder / split))]
    count = sum(map(len, source.splits.values()))
    codec: Codec = request.codec or (begun[0] if begun else catalog.default_codec(count, SIDE))
    counts = ", ".join(f"{len(index):,} {split}" for split, index in source.splits.items())
    size = f"about {catalog.bytes_of(count, SIDE, codec) / 1e9:.1f} GB with --codec {codec}"
    print(f"{folder.name}: {counts} images in {len(source.classes):,} classes, {size}", file=sys.stderr)
    written = {s: shards.write(folder / s, index, SIDE, codec, processes) for s, index in source.splits.items()}
    report = {s: _report(index, written[s], source.official.get(s)) for s, index in source.splits.items()}
    _show(folder.name, report)
    _refuse_empty(report)
    if not request.accept_bad:
        _refuse_bad(f"alexnet prepare {folder.name} --source {shlex.quote(str(request.source))} --accept-bad", report)
    for split, index in source.splits.items():
        shards.finish(folder / split, index, written[split])
    train = written["train"]
    statistics = prepared_set.statistics_of(train.total, train.outer, train.num_images)
    facts = {"stand_in": False, "words": list(source.words), "codec": codec, "pillow": PIL.__version__}
    prepared_set.finish_set(folder, source.classes, tuple(written), statistics, **facts, **source.facts, report=report)
    for split in written:  # Why last: a kill before this line must not cost the decoded images
        for file in (folder / split).glob("progress.*"):
            file.unlink()


def _report(index: ImageIndex, written: shards.Written, official: int | None) -> dict[str, Any]:
    """Return what was unusual about a split, for the manifest."""
    found = len(index) + len(index.refused)
    unusual = index.remarks | {kind: [index.name(i) for i in numbers] for kind, numbers in written.remarks.items()}
    return {
        "listed": found,
        "official": official,
        "missing": max(0, (official or 0) - found),
        "skipped": [*map(list, index.refused), *([index.name(i), why] for i, why in written.refused)],
        "unusual": {kind: len(names) for kind, names in unusual.items()},
        "examples": {kind: names[:EXAMPLES] for kind, names in unusual.items()},
    }


def _show(name: str, report: dict[str, Any]) -> None:
    """Print the report, its lists cut short."""
    lines = []
    for split, entries in report.items():
        skipped = entries["skipped"]
        lines += [f"{name} {split}: skipped {file}: {why}" for file, why in skipped[:SHOWN]]
        if len(skipped) > SHOWN:
            lines.append(f"{name} {split}: skipped {len(skipped) - SHOWN:,} more")
        for kind, count in sorted(entries["unusual"].items()):
            lines.append(f"{name} {split}: {count:,} {kind}, for example {entries['examples'][kind][0]}")
        if entries["missing"]:
            lines.append(f"{name} {split}: {entries['missing']:,} of the published {entries['official']:,} are missing")
    print(*lines, sep="\n", end="\n" if lines else "", file=sys.stderr)


def _refuse_empty(report: dict[str, Any]) -> None:
    for split, entries in report.items():
        if entries["listed"] == len(entries["skipped"]):
            raise UserError(f"The split {split} has no image that can be read. Is --source the right folder?")


def _refuse_bad(command: str, report: dict[str, Any]) -> None:
    """Raise UserError for a split with more than 0.1 % bad images or a surplus; `command` accepts them."""
    for split, entries in report.items():
        bad, whole = len(entries["skipped"]) + entries["missing"], entries["official"] or entries["listed"]
        if bad <= TOLERATED * whole and entries["listed"] <= whole:
            continue
        what = f"{bad:,} of {whole:,} images missing or unreadable, more than {TOLERATED:.1%}"
        if entries["listed"] > whole:
            what = f"{entries['listed']:,} images where {whole:,} were published"
        raise UserError(
            f"The split {split} has {what} (see above). Mend the source and repeat the command, which keeps what is done, "
            f"or accept what there is: {command}"
        )
