"""Where the images of a split are: a compact table, so that 14 million images need no 14 million objects.

Images are listed by class and, within a class, by file name, so that folders and archives of the same files give the
same order.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from tqdm import tqdm

from alexnet.config import UserError
from alexnet.preprocessing import archives
from alexnet.preprocessing.archives import Contents, Span

# Why: an image's bytes are held in memory, in every process; the largest file of ILSVRC has 15 MB.
LARGEST_FILE = 256 * 2**20
TWICE = "a name found twice, of which the later counts"


@dataclass(frozen=True)
class Part:
    """Images of one class in one place: a folder, or a tar file (then with the offset and length of each image in it)."""

    place: str
    label: int
    names: np.ndarray  # (n,) bytes, ascending
    offsets: np.ndarray | None = None  # (n,) int64
    lengths: np.ndarray | None = None  # (n,) int64

    def take(self, chosen: np.ndarray) -> "Part":
        """Return the images at `chosen`, numbers or a mask."""
        columns = (self.names, self.offsets, self.lengths)
        return Part(self.place, self.label, *(None if column is None else column[chosen] for column in columns))


@dataclass(frozen=True)
class Listing:
    """The images of one split, in order, and what was refused while listing: pairs of a name and why."""

    parts: tuple[Part, ...]
    refused: tuple[tuple[str, str], ...] = ()
    remarks: dict[str, list[str]] = field(default_factory=dict)  # what is unusual but usable -> names

    @cached_property
    def starts(self) -> np.ndarray:
        """Number of the first image of each part, and the number of images (parts + 1,)."""
        return np.cumsum([0, *(len(part.names) for part in self.parts)])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def labels(self) -> np.ndarray:
        """Return the class of each image, (N,) int64."""
        return np.repeat(np.array([part.label for part in self.parts], np.int64), [len(part.names) for part in self.parts])

    def digest(self, start: int, stop: int) -> str:
        """Return a sha256 of the names and labels of images `start` to `stop`: a later call goes on where it is the same."""
        found = hashlib.sha256()
        while start < stop:
            part, k = self.place(start)
            names = part.names[k : k + stop - start].tolist()
            found.update(b"\0".join([str(part.label).encode(), *names, b""]))
            start += len(names)
        return found.hexdigest()

    def place(self, i: int) -> tuple[Part, int]:
        """Return the part of image `i` and its number there."""
        number = int(np.searchsorted(self.starts, i, side="right")) - 1
        return self.parts[number], i - int(self.starts[number])

    def name(self, i: int) -> str:
        """Return where image `i` is, for people."""
        part, k = self.place(i)
        name = os.fsdecode(part.names[k])
        return f"{part.place}/{name}" if part.offsets is None else f"{name} in {part.place}"

    def read(self, i: int) -> bytes:
        """Return the bytes of image `i`. Raises OSError when it cannot be read, ValueError when it is absurdly long."""
        part, k = self.place(i)
        if part.offsets is None:
            file = os.path.join(part.place, os.fsdecode(part.names[k]))
            start, length = 0, os.stat(file).st_size
        else:
            file, start, length = part.place, int(part.offsets[k]), int(part.lengths[k])
        if length > LARGEST_FILE:
            raise ValueError(f"{length / 2**20:.0f} MiB, larger than any photograph")
        with open(file, "rb") as stream:
            stream.seek(start)
            return stream.read(length)


def class_places(root: Path) -> tuple[dict[str, Path | Span], dict[str, list[str]]]:
    """Find what holds each class: a folder or a tar file in the folder `root`, or a tar file in the tar file `root`.

    Returns class -> place, and remarks. Where a class has both, the archive counts, because a folder may be half unpacked.
    """
    if not root.is_dir():
        return dict(archives.inner(Span.whole(root))), {}
    places: dict[str, Path | Span] = {}
    tars = {path.stem: Span.whole(path) for path in root.glob("*.tar")}
    with os.scandir(root) as entries:
        places |= {entry.name: Path(entry.path) for entry in entries if entry.is_dir() and not entry.name.startswith(".")}
    both = sorted(tars.keys() & places.keys())
    return places | tars, {"a folder beside its archive, which counts": both} if both else {}


def list_classes(root: Path, classes: Sequence[str], first_label: int = 0) -> Listing:
    """List the images of `classes`, which `class_places` finds in `root`, labelled from `first_label` on.

    Raises UserError, naming the class, when `root` has another one, or lacks one.
    """
    places, remarks = class_places(root)
    if odd := sorted(places.keys() - set(classes)) or sorted(set(classes) - places.keys()):
        what = "should not be there" if odd[0] in places else "is missing"
        raise UserError(f"{root / odd[0]} {what}: {root} must hold the {len(classes):,} classes of the set and no others.")
    parts, refused = [], []
    # Why a bar: reading the headers of 1.3 million images in archives takes a minute, on a slow disk more.
    for label, name in enumerate(tqdm(classes, f"listing {root.name}", unit=" classes", leave=False, delay=2), first_label):
        found = _contents(places[name], root)
        refused += found.refused
        if found.twice:
            remarks.setdefault(TWICE, []).extend(found.twice)
        parts.append(_part(places[name], label, found.places))
    return Listing(tuple(parts), tuple(refused), remarks)


def list_flat(root: Path, label_of: Callable[[str], int | None]) -> Listing:
    """List the images of a folder or tar file without classes, by label and name; those without a label are refused."""
    place = root if root.is_dir() else Span.whole(root)
    found = _contents(place, root)
    by_label: dict[int, dict[bytes, tuple[int, int]]] = {}
    for name, where in found.places.items():
        label = label_of(os.fsdecode(name))
        if label is None:
            found.refused.append((f"{os.fsdecode(name)} in {root}", "no label"))
        else:
            by_label.setdefault(label, {})[name] = where
    parts = tuple(_part(place, label, by_label[label]) for label in sorted(by_label))
    return Listing(parts, tuple(found.refused), {TWICE: found.twice} if found.twice else {})


def joined(*listings: Listing) -> Listing:
    """Return the images of several listings, one after another."""
    remarks: dict[str, list[str]] = {}
    for listing in listings:
        for kind, names in listing.remarks.items():
            remarks[kind] = remarks.get(kind, []) + names
    parts, refused = (tuple(x for listing in listings for x in getattr(listing, name)) for name in ("parts", "refused"))
    return Listing(parts, refused, remarks)


def patched(listing: Listing, patches: Span, split: str) -> Listing:
    """Replace the images of which the archive `patches` has another version in its folder `split`, last in their class."""
    new, parts = archives.contents(patches, folder=split).places, []
    for part in listing.parts:
        old = np.isin(part.names, np.array(sorted(new), bytes))
        if not old.any():
            parts.append(part)
            continue
        parts.append(part.take(~old))
        parts.append(_part(patches, part.label, {name: new[name] for name in part.names[old].tolist()}))
    return replace(listing, parts=tuple(parts))


def _contents(place: Path | Span, root: Path) -> Contents:
    if isinstance(place, Span):
        return archives.contents(place)
    found = Contents()
    found.places |= dict.fromkeys((os.fsencode(entry.name) for entry in _files(place, root, found.refused)), (0, 0))
    return found


def _part(place: Path | Span, label: int, places: dict[bytes, tuple[int, int]]) -> Part:
    names = sorted(places)
    if isinstance(place, Path):
        return Part(str(place), label, np.array(names, bytes))
    where = np.array([places[name] for name in names], np.int64).reshape(-1, 2)
    return Part(str(place.file), label, np.array(names, bytes), where[:, 0], where[:, 1])


def _files(folder: Path, root: Path, refused: list[tuple[str, str]]) -> Iterator[os.DirEntry]:
    """Yield the files of a folder, but no hidden ones, and no links that lead out of `root`."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_symlink() and not Path(entry.path).resolve().is_relative_to(root.resolve()):
                refused.append((entry.path, "a link that leads out of the data set's folder"))
            elif entry.is_file():
                yield entry
            else:
                refused.append((entry.path, "no file"))
