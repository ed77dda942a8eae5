"""Prepared sets made of photographs: from listings to a finished set, with a report of everything that was unusual."""

import shlex
import shutil
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import PIL

from alexnet import compiled
from alexnet.config import UserError
from alexnet.preprocessing import codec, decoding, disk, filling, progress, store, workers
from alexnet.preprocessing.codec import Codec
from alexnet.preprocessing.listing import Listing

SIDE = 256
TOLERATED = 0.001  # fraction of a split's images that may be missing or unreadable without being accepted explicitly
SHOWN = 20  # names on the screen; prepare.json has all
SAMPLE = 32  # images decoded to estimate how long the others take
RAW_UP_TO = 300 * 10**9  # bytes of a raw set; larger ones are kept as JPEGs by default. ILSVRC-2012 has 262


@dataclass(frozen=True)
class Source:
    """A data set found on disk: its classes in order, what people call them, and where the images of each split are."""

    classes: tuple[str, ...]
    words: tuple[str, ...]
    splits: dict[str, Listing]
    official: dict[str, int] = field(default_factory=dict)  # published number of images, where there is one
    facts: dict[str, Any] = field(default_factory=dict)  # further entries of the manifest


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


def prepare(folder: Path, source: Source, request: Request) -> None:
    """Make the set in `folder` from its listed images. Raises UserError for a full disk or too many bad images."""
    request.clear(folder)
    processes = request.processes or workers.available()
    begun = [found for split in source.splits if (found := progress.begun(folder / split))]
    form = request.codec or (begun[0][0] if begun else _default_codec(source))
    num_bytes, seconds = _estimate(source, form)
    count, done = sum(map(len, source.splits.values())), sum(number for kept, number in begun if kept == form)
    _say_what_it_takes(folder.name, source, form, done, num_bytes * count, seconds * (count - done) / processes)
    with disk.disk_errors_named(folder, round(num_bytes * count)):
        filled = {s: filling.fill(folder / s, found, SIDE, form, processes) for s, found in source.splits.items()}
        report = {s: _report(found, filled[s], source.official.get(s)) for s, found in source.splits.items()}
        _show(folder.name, report)
        _refuse_empty(report)
        if not request.accept_bad:
            _refuse_bad(f"alexnet prepare {folder.name} --source {shlex.quote(str(request.source))} --accept-bad", report)
        for split, listing in source.splits.items():
            filling.finish(folder / split, listing, filled[split])
        train = filled["train"]
        statistics = store.statistics(train.total, train.outer, train.num_images)
        facts = {"stand_in": False, "words": list(source.words), "side": SIDE, "codec": form, "pillow": PIL.__version__}
        store.finish_set(folder, source.classes, tuple(filled), statistics, **facts, **source.facts, report=report)


def _default_codec(source: Source) -> Codec:
    return "raw" if sum(map(len, source.splits.values())) * SIDE * SIDE * 3 <= RAW_UP_TO else "jpeg"


def _estimate(source: Source, form: Codec) -> tuple[float, float]:
    """Return about how many bytes an image will take, and how many seconds of one process, from a sample of them."""
    longest = max(source.splits.values(), key=len)
    job, chunks = decoding.Job(longest, SIDE, form), []
    compiled.why_not()  # Why: the first image may wait seconds for the compiler
    begin = time.perf_counter()
    for i in range(0, len(longest), max(1, len(longest) // SAMPLE)):
        chunks.append(decoding.decode(job, (i, i + 1)))
    sizes = [length for chunk in chunks for length in chunk.lengths] or [0]
    return sum(sizes) / len(sizes), (time.perf_counter() - begin) / max(len(chunks), 1)


def _say_what_it_takes(name: str, source: Source, form: Codec, done: int, num_bytes: float, seconds: float) -> None:
    counts = ", ".join(f"{len(listing):,} {split}" for split, listing in source.splits.items())
    kept = "as they are" if form == "raw" else f"as JPEGs of quality {codec.QUALITY}"
    rest = f"{done:,} are done; decoding the others" if done else "decoding them"
    print(
        f"{name}: {counts} images in {len(source.classes):,} classes. Kept {kept} (--codec {form}) they take about "
        f"{num_bytes / 1e9:.1f} GB; {rest}, about {duration(seconds)}.",
        file=sys.stderr,
    )
    if (why := compiled.why_not()) is not None:
        print(f"not compiled, so the slower plain path is used: {why}", file=sys.stderr)


def duration(seconds: float) -> str:
    """Return a length of time in words."""
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _report(listing: Listing, filled: progress.Filled, official: int | None) -> dict[str, Any]:
    """Return what was unusual about a split, for the manifest."""
    found = len(listing) + len(listing.refused)
    unusual = {kind: len(names) for kind, names in listing.remarks.items()} | filled.remarks()
    examples = {kind: names[: filling.EXAMPLES] for kind, names in listing.remarks.items()}
    examples |= {kind: [listing.name(i) for i in numbers] for kind, numbers in filled.examples.items()}
    return {
        "listed": found,
        "official": official,
        "missing": max(0, (official or 0) - found),
        "skipped": [*map(list, listing.refused), *([listing.name(i), why] for i, why in filled.refused)],
        "unusual": unusual,
        "examples": examples,
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
            f"or go on with what there is: {command}"
        )
