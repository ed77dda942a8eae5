"""Where the images of a set are: in folders, in tar files, or in tar files in a tar file, as ILSVRC's training images come.

Archives are read where they are: nothing is unpacked, so nothing can be written where it should not be. An image is indexed
by class and, within a class, by file name, so that folders and archives of the same files give the same order; the index is
a compact table, so that 14 million images need no 14 million objects.
"""

import hashlib
import os
import tarfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from tqdm import tqdm

from alexnet.config import UserError

# Why: an image's bytes are held in memory, in every process; the largest file of ILSVRC has 15 MB.
LARGEST_FILE = 256 * 2**20
LARGEST_KIT_FILE = 64 * 2**20  # bytes; more is not unpacked into memory
BLOCK = 512  # a tar file is made of such blocks, and ends with two of zeros
LINKS = (tarfile.SYMTYPE, tarfile.LNKTYPE)
DUPLICATES = "duplicates of a name, of which the later counts"

Refusals = list[tuple[str, str]]  # name, why


@dataclass(frozen=True)
class TarSpan:
    """A tar file, or the part of one that is a tar file itself."""

    file: Path
    start: int
    stop: int

    @classmethod
    def whole(cls, file: Path) -> "TarSpan":
        """Return a file as a span."""
        return cls(file, 0, file.stat().st_size)


Place = Path | TarSpan  # a folder or a tar file


@dataclass
class Contents:
    """The files of a folder or archive by name, and what was refused or found more than once."""

    spans: dict[bytes, tuple[int, int]] = field(default_factory=dict)  # name -> offset, length; zeros in a folder
    refused: Refusals = field(default_factory=list)
    duplicates: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Group:
    """Images of one class in one place: a folder, or a tar file (then with the offset and length of each image in it)."""

    place: str
    label: int
    names: np.ndarray  # (n,) bytes, ascending
    offsets: np.ndarray | None = None  # (n,) int64
    lengths: np.ndarray | None = None  # (n,) int64

    def take(self, chosen: np.ndarray) -> "Group":
        """Return the images at `chosen`, numbers or a mask."""
        columns = (self.names, self.offsets, self.lengths)
        return Group(self.place, self.label, *(None if column is None else column[chosen] for column in columns))


@dataclass(frozen=True)
class ImageIndex:
    """The images of one split, in order, and what was refused while indexing: pairs of a name and why."""

    groups: tuple[Group, ...]
    refused: tuple[tuple[str, str], ...] = ()
    remarks: dict[str, list[str]] = field(default_factory=dict)  # what is unusual but usable -> names

    @cached_property
    def starts(self) -> np.ndarray:
        """Number of the first image of each group, and the number of images (groups + 1,)."""
        return np.cumsum([0, *(len(group.names) for group in self.groups)])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def labels(self) -> np.ndarray:
        """Return the class of each image, (N,) int64."""
        return np.repeat(np.array([group.label for group in self.groups], np.int64), np.diff(self.starts))

    def digest(self, start: int, stop: int) -> str:
        """Return a sha256 of names and labels of images `start` to `stop`: while it is the same, they are not read again."""
        found = hashlib.sha256()
        while start < stop:
            group, k = self.locate(start)
            names = group.names[k : k + stop - start].tolist()
            found.update(b"\0".join([str(group.label).encode(), *names, b""]))
            start += len(names)
        return found.hexdigest()

    def locate(self, i: int) -> tuple[Group, int]:
        """Return the group of image `i` and its number there."""
        number = int(np.searchsorted(self.starts, i, side="right")) - 1
        return self.groups[number], i - int(self.starts[number])

    def name(self, i: int) -> str:
        """Return where image `i` is, for people."""
        group, k = self.locate(i)
        name = os.fsdecode(group.names[k])
        return f"{group.place}/{name}" if group.offsets is None else f"{name} in {group.place}"

    def read(self, i: int) -> bytes:
        """Return the bytes of image `i`. Raises OSError when it cannot be read, ValueError when it is absurdly long."""
        group, k = self.locate(i)
        if group.offsets is None:
            file = os.path.join(group.place, os.fsdecode(group.names[k]))
            start, length = 0, os.stat(file).st_size
        else:
            file, start, length = group.place, int(group.offsets[k]), int(group.lengths[k])
        if length > LARGEST_FILE:
            raise ValueError(f"{length / 2**20:.0f} MiB, larger than any photograph")
        with open(file, "rb") as stream:
            stream.seek(start)
            return stream.read(length)


@dataclass(frozen=True)
class Source:
    """Photographs found on disk: the classes in order, what people call them, where the images of each split are."""

    classes: tuple[str, ...]
    words: tuple[str, ...]
    splits: dict[str, ImageIndex]
    official: dict[str, int] = field(default_factory=dict)  # published number of images, where there is one
    facts: dict[str, Any] = field(default_factory=dict)  # further entries of the manifest


def class_places(root: Path) -> dict[str, Place]:
    """Find what holds each class: a folder or a tar file in the folder `root`, or a tar file in the tar file `root`.

    Where a class has both, the archive counts, because a folder may be half unpacked.
    """
    if not root.is_dir():
        return dict(_inner_tars(TarSpan.whole(root)))
    with os.scandir(root) as entries:
        folders = {entry.name: Path(entry.path) for entry in entries if entry.is_dir() and not entry.name.startswith(".")}
    return folders | {path.stem: TarSpan.whole(path) for path in root.glob("*.tar")}


def index_classes(roots: Sequence[Path], classes: Sequence[str], others: bool = False) -> ImageIndex:
    """Index the images of `classes`, which `class_places` finds in any of `roots`, labelled in this order.

    Raises UserError, naming the class, when the roots lack one, or have another one and `others` are not allowed.
    """
    places = {name: (root, place) for root in roots for name, place in class_places(root).items()}
    surplus = [] if others else sorted(places.keys() - set(classes))
    if odd := surplus or sorted(set(classes) - places.keys()):
        root = places[odd[0]][0] if surplus else roots[0]
        what = "should not be there" if surplus else "is missing"
        raise UserError(f"{root / odd[0]} {what}: {root} must hold the {len(classes):,} classes of the set and no others.")
    groups, refused, duplicates = [], [], []
    # Why a bar: reading the headers of 1.3 million images in archives takes a minute, on a slow disk more.
    for label, name in enumerate(tqdm(classes, f"indexing {roots[0].name}", unit=" classes", leave=False, delay=2)):
        root, place = places[name]
        found = _contents(place, root)
        refused += found.refused
        duplicates += found.duplicates
        groups.append(_group(place, label, found.spans))
    return ImageIndex(tuple(groups), tuple(refused), {DUPLICATES: duplicates} if duplicates else {})


def index_flat(root: Path, label_of: Callable[[str], int | None]) -> ImageIndex:
    """Index the images of a folder or tar file without classes, by label and name; those without a label are refused."""
    place = root if root.is_dir() else TarSpan.whole(root)
    found = _contents(place, root)
    by_label: dict[int, dict[bytes, tuple[int, int]]] = {}
    for name, span in found.spans.items():
        label = label_of(os.fsdecode(name))
        if label is None:
            found.refused.append((f"{os.fsdecode(name)} in {root}", "no label"))
        else:
            by_label.setdefault(label, {})[name] = span
    groups = tuple(_group(place, label, by_label[label]) for label in sorted(by_label))
    return ImageIndex(groups, tuple(found.refused), {DUPLICATES: found.duplicates} if found.duplicates else {})


def patched(index: ImageIndex, patches: Path, split: str) -> ImageIndex:
    """Replace the images of which the archive `patches` has another version in its folder `split`, last in their class."""
    place = TarSpan.whole(patches)
    new, groups = tar_contents(place, folder=split).spans, []
    for group in index.groups:
        old = np.isin(group.names, np.array(sorted(new), bytes))
        if not old.any():
            groups.append(group)
            continue
        groups.append(group.take(~old))
        groups.append(_group(place, group.label, {name: new[name] for name in group.names[old].tolist()}))
    return replace(index, groups=tuple(groups))


def _group(place: Place, label: int, spans: dict[bytes, tuple[int, int]]) -> Group:
    names = sorted(spans)
    if isinstance(place, Path):
        return Group(str(place), label, np.array(names, bytes))
    where = np.array([spans[name] for name in names], np.int64).reshape(-1, 2)
    return Group(str(place.file), label, np.array(names, bytes), where[:, 0], where[:, 1])


def _contents(place: Place, root: Path) -> Contents:
    """List the files of a folder or archive, but no hidden ones, and no links that lead out of `root`."""
    if isinstance(place, TarSpan):
        return tar_contents(place)
    found = Contents()
    with os.scandir(place) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_symlink() and not Path(entry.path).resolve().is_relative_to(root.resolve()):
                found.refused.append((entry.path, "a link that leads out of the data set's folder"))
            elif entry.is_file():
                found.spans[os.fsencode(entry.name)] = (0, 0)
            else:
                found.refused.append((entry.path, "no file"))
    return found


def tar_contents(span: TarSpan, folder: str | None = None) -> Contents:
    """List the files of an archive, by name without folders; with `folder`, of those directly in a folder of that name.

    As in unpacking, the later of two files of one name counts.
    """
    found = Contents()
    for member in _members(span):
        path = PurePosixPath(member.name)
        if member.isdir() or path.name.startswith(".") or (folder is not None and path.parent.name != folder):
            continue
        if why := _refusal(member, path):
            found.refused.append((f"{member.name} in {span.file}", why))
            continue
        name = os.fsencode(path.name)
        if name in found.spans:
            found.duplicates.append(f"{path.name} in {span.file}")
        found.spans[name] = (member.offset_data, member.size)
    return found


def _refusal(member: tarfile.TarInfo, path: PurePosixPath) -> str:
    if path.is_absolute() or ".." in path.parts:
        return "a path that leaves the archive"
    if member.type in LINKS:
        return "a link, which may lead anywhere"
    return "" if member.isreg() and not member.issparse() else "no plain file"


def _inner_tars(span: TarSpan) -> dict[str, TarSpan]:
    """Return the tar files in an archive by their names without ending."""
    found = {}
    for member in _members(span):
        path = PurePosixPath(member.name)
        if path.suffix == ".tar" and member.isreg():
            found[path.stem] = TarSpan(span.file, member.offset_data, member.offset_data + member.size)
    return found


def _members(span: TarSpan) -> Iterator[tarfile.TarInfo]:
    """Yield the members of an archive. Raises UserError when it is cut short, damaged or compressed."""
    where = f"{span.file}" + (f" (its part from byte {span.start:,})" if span.start else "")
    try:
        with span.file.open("rb") as stream:
            stream.seek(span.start)
            with tarfile.open(fileobj=stream, mode="r:") as tar:
                end = span.start
                while (member := tar.next()) is not None:
                    tar.members.clear()  # Why: tarfile remembers every member, 1 kB each
                    end = member.offset_data + -(-member.size // BLOCK) * BLOCK
                    if end > span.stop:
                        break
                    yield member
            stream.seek(end)
            if end + BLOCK > span.stop or any(stream.read(BLOCK)):
                raise UserError(f"{where} is cut short or damaged at byte {end:,}. Copy it again and repeat the command.")
    except (tarfile.TarError, OSError) as error:
        raise UserError(
            f"{where} cannot be read as a tar file ({error}). If it is compressed, unpack it; else copy it again."
        ) from error


def unpacked(file: Path) -> Iterator[tuple[str, bytes]]:
    """Yield name without folders and content of the files in a small compressed archive, such as a development kit."""
    try:
        with tarfile.open(file, "r:gz") as tar:
            for member in tar:
                if member.isreg() and member.size <= LARGEST_KIT_FILE:
                    yield PurePosixPath(member.name).name, tar.extractfile(member).read()
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise UserError(f"{file} cannot be unpacked ({error}). Copy it again and repeat the command.") from error
