"""Prepared sets made of photographs: from listings to a finished set, with a report of everything that was unusual."""

import io
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alexnet.config import UserError
from alexnet.preprocessing import filling, images, store, workers
from alexnet.preprocessing.listing import Listing

SIDE = 256
TOLERATED = 0.001  # fraction of a split's images that may be missing or unreadable without being accepted explicitly
SAMPLE = 32  # images decoded to estimate how long the others take


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
    processes: int | None = None  # None: one for each core
    accept_bad: bool = False


def prepare(folder: Path, source: Source, request: Request) -> None:
    """Make the set in `folder` from its listed images. Raises UserError for a full disk or too many bad images."""
    processes = request.processes or workers.available()
    num_bytes = sum(map(len, source.splits.values())) * SIDE * SIDE * 3
    with store.disk_errors_named(folder, num_bytes):
        _say_what_it_takes(folder.name, source, num_bytes, processes)
        filled = {s: filling.fill(folder / s, listing, SIDE, processes) for s, listing in source.splits.items()}
        report = {split: _report(listing, filled[split].state, source.official.get(split))
                  for split, listing in source.splits.items()}  # fmt: skip
        _show(folder.name, report)
        if not request.accept_bad:
            _refuse_too_many(folder.name, source, report)
        for split, listing in source.splits.items():
            filling.finish(folder / split, listing, filled[split])
        train = filled["train"]
        store.finish_set(
            folder, source.classes, tuple(source.splits), stand_in=False,
            statistics=store.statistics(train.total, train.outer, train.state.num_images),
            words=list(source.words), side=SIDE, report=report, **source.facts,
        )  # fmt: skip


def _say_what_it_takes(name: str, source: Source, num_bytes: int, processes: int) -> None:
    """Print how many images there are, and how long and how large the set will be."""
    counts = ", ".join(f"{len(listing):,} {split}" for split, listing in source.splits.items())
    longest = max(source.splits.values(), key=len)
    begin, decoded = time.perf_counter(), 0
    for i in range(0, len(longest), max(1, len(longest) // SAMPLE)):
        try:
            images.read_photograph(io.BytesIO(longest.read(i)), SIDE)
        except images.UNREADABLE:
            continue
        decoded += 1
    seconds = (time.perf_counter() - begin) / max(decoded, 1) * sum(map(len, source.splits.values())) / processes
    print(
        f"{name}: {counts} images in {len(source.classes):,} classes; {num_bytes / 1e9:.1f} GB on disk; about "
        f"{duration(seconds)} with {processes} process{'es' * (processes > 1)}.",
        file=sys.stderr,
    )


def duration(seconds: float) -> str:
    """Return a length of time in words."""
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _report(listing: Listing, state: filling.State, official: int | None) -> dict[str, Any]:
    """Return what was unusual about a split, for the manifest."""
    unreadable = [[listing.name(i), why] for i, why in state.refused]
    found = len(listing) + len(listing.refused)
    return {
        "listed": found,
        "official": official,
        "missing": max(0, (official or 0) - found),
        "skipped": [list(pair) for pair in listing.refused] + unreadable,
        "unusual": {**{kind: len(names) for kind, names in listing.remarks.items()}, **state.remarks},
        "examples": {**listing.remarks, **state.examples},
    }


def _show(name: str, report: dict[str, Any]) -> None:
    """Print the report; lists are cut short, the manifest has more."""
    for split, entries in report.items():
        for file, why in entries["skipped"][:20]:
            print(f"{name} {split}: skipped {file}: {why}", file=sys.stderr)
        if len(entries["skipped"]) > 20:
            print(f"{name} {split}: and {len(entries['skipped']) - 20:,} more, named in prepare.json", file=sys.stderr)
        for kind, count in sorted(entries["unusual"].items()):
            print(f"{name} {split}: {count:,} {kind}, for example {entries['examples'][kind][0]}", file=sys.stderr)
        if entries["missing"]:
            print(f"{name} {split}: {entries['missing']:,} of the published {entries['official']:,} images are missing",
                  file=sys.stderr)  # fmt: skip


def _refuse_too_many(name: str, source: Source, report: dict[str, Any]) -> None:
    """Raise UserError when more than 0.1 % of a split is bad or missing, or there is more than was published."""
    for split, entries in report.items():
        bad, whole = len(entries["skipped"]) + entries["missing"], entries["official"] or entries["listed"]
        surplus = entries["listed"] - whole
        if bad > TOLERATED * whole or surplus > 0:
            what = f"{surplus:,} images more than the published {whole:,}" if surplus > 0 else (
                f"{bad:,} of {whole:,} images missing or unreadable, more than {TOLERATED:.1%}")  # fmt: skip
            raise UserError(
                f"{name} {split} has {what} (listed above). Mend the source and repeat the command, which keeps what is "
                f"done, or go on without them: alexnet prepare {name} --accept-bad"
            )
