"""Where the images of a set are: in folders, in tar files, or in tar files in a tar file, as ILSVRC's training images come.

Archives are read where they are: nothing is unpacked, so nothing can be written where it should not be. Images are in the
order of class and file name, so that folders and archives of the same files give the same set.
"""

import gzip
import os
import re
import shutil
import sys
import tarfile
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from tqdm import tqdm

from alexnet import files
from alexnet.config import UserError
from alexnet.files import shown

# Why: an image's bytes are held in memory, in every process; the largest file of ILSVRC has 15 MB.
LARGEST_FILE = 256 * 2**20
LARGEST_PART = 64 * 2**20  # bytes that are read of an archive at a time; a header may announce any number
LONGEST_NAME = 255  # bytes, as in folders; the index is as wide as its longest name
BLOCK = 512  # a tar file is made of such blocks, and ends with two of zeros

ARCHIVES = (".tar", ".tar.gz", ".tgz", ".zip")
LEFT_LYING = re.compile(r"(ILSVRC.*|images|train|val|valid|validation|test)\.tar", re.IGNORECASE)  # unpacked, not a class


class Place(NamedTuple):
    """A folder, a tar file, or the bytes `start` to `stop` of a tar file if they are a tar file themselves."""

    path: Path
    start: int = 0
    stop: int | None = None


# A file of a place: where, for people; why it is refused or ""; name; offset, 0 in a folder; length; when it changed, in ns
Listed = tuple[str, str, bytes, int, int, int]


@dataclass(frozen=True)
class ImageIndex:
    """The images of one split, in order: a row for each. Also what was refused while indexing: pairs of a name and why."""

    places: tuple[str, ...]  # folders and tar files
    rows: np.ndarray  # (N,) of place, label, name, offset, length and time of change
    refused: tuple[tuple[str, str], ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def labels(self) -> np.ndarray:
        """The class of each image, (N,) int64."""
        return self.rows["label"]

    def name(self, i: int) -> str:
        """Return where image `i` is, for people."""
        row = self.rows[i]
        where, name, offset = self.places[row["place"]], os.fsdecode(row["name"]), row["offset"]
        return shown(f"{name} in {where}" if offset else f"{where}/{name}")

    def read(self, i: int) -> bytes:
        """Return the bytes of image `i`. Raises OSError, or zlib.error, or ValueError when it is absurdly long."""
        place, _, name, offset, length, _ = self.rows[i].tolist()
        if length > LARGEST_FILE:
            raise ValueError(f"{length / 2**20:.0f} MiB, larger than any photograph")
        file = self.places[place] if offset else os.path.join(self.places[place], os.fsdecode(name))
        with open(file, "rb") as stream:
            stream.seek(offset)
            data = stream.read(length)
        is_zipped = data.startswith(b"\x1f\x8b")  # Why: some images of ILSVRC-2010's archives are compressed with gzip
        return zlib.decompressobj(wbits=31).decompress(data, LARGEST_FILE) if is_zipped else data


@dataclass(frozen=True)
class Source:
    """A set that was found or made."""

    classes: tuple[str, ...]  # in order
    words: tuple[str, ...]  # what people call them
    splits: dict[str, Any]  # an ImageIndex of each; or its images, (N, H, W, 3) uint8, and labels, if they fit into memory
    official: dict[str, int] = field(default_factory=dict)  # published number of photographs, where there is one
    facts: dict[str, Any] = field(default_factory=dict)  # further entries of the manifest


def class_places(root: Path) -> dict[str, Place]:
    """Find what holds each class: a folder or a tar file in the folder `root`, or a tar file in the tar file `root`.

    Where a class has both, the archive counts, because a folder may be half unpacked.
    """
    if root.is_file():
        inner = [(name, start, length) for _, why, name, start, length, _ in _in_tar(Place(root)) if not why]
        return {os.fsdecode(n[:-4]): Place(root, start, start + length) for n, start, length in inner if n.endswith(b".tar")}
    there = list(root.iterdir()) if root.is_dir() else []
    folders = {path.name: path for path in there if path.is_dir()}
    tars = {p.stem: p for p in there if p.suffix == ".tar" and not p.is_dir() and not LEFT_LYING.fullmatch(p.name)}
    return {name: Place(path) for name, path in (folders | tars).items() if not name.startswith(".")}


def index_classes(roots: Sequence[Path], classes: Sequence[str], others: bool = False) -> ImageIndex:
    """Index the images of `classes`, which `class_places` finds in any of `roots`, labelled in this order.

    Raises UserError, naming the class, when the roots lack one, or have another one and `others` are not allowed.
    """
    places = {name: place for root in roots for name, place in class_places(root).items()}
    surplus, missing = [] if others else sorted(places.keys() - set(classes)), sorted(set(classes) - places.keys())
    if surplus or missing:
        odd = f"{shown(places[surplus[0]].path)} should not be there" if surplus else f"{roots[0] / missing[0]} is missing"
        few = f": {shown(', '.join(classes))}" if len(classes) <= 10 else ""
        raise UserError(f"{odd}: {roots[0]} must hold the {len(classes):,} classes of the set and no others{few}.")
    # Why a bar: reading the headers of 1.3 million images in archives takes a minute, on a slow disk more.
    bar = tqdm(classes, f"indexing {roots[0].name}", unit=" classes", leave=False, delay=2)
    return index_places((places[name] for name in bar), lambda number, _: number)


def index_places(places: Iterable[Place], label_of: Callable[[int, bytes], int | None]) -> ImageIndex:
    """Index the images of folders and tar files, each by label and name, labelled by their place's number and their name.

    Those without a label are refused. As in unpacking, the later of two files of one name in a place counts.
    """
    parts, paths, refused = [_table([])], [], []
    for number, place in enumerate(places):
        rows = {}
        for where, why, name, *facts in list_files(place):
            label = label_of(number, name)
            if why or label is None:
                refused.append((where, why or "no label"))
            else:
                rows[name] = (number, label, name, *facts)
        parts.append(_table(sorted(rows.values())))
        paths.append(str(place.path))
    return ImageIndex(tuple(paths), np.concatenate(parts), tuple(refused))


def _table(rows: list[tuple]) -> np.ndarray:
    name = f"S{max((len(row[2]) for row in rows), default=1)}"
    columns = {"place": "i4", "label": "i8", "name": name, "offset": "i8", "length": "i8", "changed": "i8"}
    return np.array(rows, list(columns.items()))


def list_files(place: Place) -> Iterator[Listed]:
    """Yield the files of a folder, also those that are links but no archives left there, or of a tar file; no hidden ones.

    Raises UserError for a tar file that is cut short, damaged or compressed.
    """
    is_folder = place.path.is_dir()
    yield from () if is_folder else _in_tar(place)
    with os.scandir(place.path) if is_folder else nullcontext(()) as entries:
        for entry in entries:
            is_file, name = os.path.isfile(entry.path), os.fsencode(entry.name)
            if not entry.name.startswith(".") and not (is_file and entry.name.endswith(ARCHIVES)):
                size, when = (entry.stat().st_size, entry.stat().st_mtime_ns) if is_file else (0, 0)
                yield shown(entry.path), "" if is_file else "no file", name, 0, size, when


def _in_tar(place: Place) -> Iterator[Listed]:
    where = shown(place.path) + (f" (its part from byte {place.start:,})" if place.start else "")
    if not place.path.is_file():
        raise UserError(f"{where} is neither a folder nor a plain file, and is not opened.")
    has = place.path.stat()
    end, stop = place.start, place.stop or has.st_size
    with damage_named(f"{where} cannot be read as a tar file"), place.path.open("rb") as stream:
        stream.seek(end)
        with tarfile.open(fileobj=_Bounded(stream), mode="r:") as tar:
            # Why the offset: a damaged header may say any length.
            while (member := tar.next()) is not None and end < tar.offset <= stop:
                tar.members.clear()  # Why: tarfile remembers every member, 1 kB each
                end = tar.offset  # where the next header is
                path = PurePosixPath(member.name)
                if not member.isdir() and not path.name.startswith("."):
                    name, why = os.fsencode(path.name), ""
                    if path.is_absolute() or ".." in path.parts or len(name) > LONGEST_NAME:
                        why = "a path that leaves the archive, or is too long"
                    elif not member.isreg() or member.issparse():
                        why = "a link, or no plain file"
                    file = shown(f"{member.name} in {place.path}")
                    yield file, why, name, member.offset_data, member.size, has.st_mtime_ns
        stream.seek(end)
        if end + BLOCK > stop or any(stream.read(BLOCK)):
            raise UserError(f"{where} is cut short or damaged at byte {end:,}. Copy it again and repeat the command.")


class _Bounded:
    """A stream for `tarfile` that reads no part of absurd length."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream, self.seek, self.tell = stream, stream.seek, stream.tell

    def read(self, length: int) -> bytes:
        if not 0 <= length <= LARGEST_PART:
            raise tarfile.ReadError(f"a header announces {length:,} bytes")
        return self.stream.read(length)


@contextmanager
def damage_named(what: str, mend: str = "Unpack or copy it again, and repeat the command.") -> Iterator[None]:
    """Turn whatever damaged archives and failed downloads raise into a UserError that begins with `what`."""
    try:
        yield
    except (tarfile.TarError, OSError, EOFError, zlib.error, ValueError, RuntimeError, OverflowError, MemoryError) as error:
        if isinstance(error, UserError) or getattr(error, "errno", None) in files.FULL:
            raise
        raise UserError(f"{what} ({shown(error)}). {mend}") from error


def files_in(archive: Path, names: Collection[str]) -> dict[str, bytes]:
    """Return those plain files of a zipped tar file, by their names without folders. Raises UserError for a damaged one."""
    what, found = f"{archive} cannot be unpacked", {}
    with damage_named(what), gzip.open(archive) as stream, tarfile.open(fileobj=_Bounded(stream), mode="r:") as tar:
        for member in tar:
            if (name := PurePosixPath(member.name).name) in names and member.isreg() and member.size <= LARGEST_PART:
                found[name] = tar.extractfile(member).read()
    return found


def files_named(source: Path, names: Sequence[str], folders: Iterable[str], archives: str) -> dict[str, bytes]:
    """Return the files of these names in `folders` of `source`, patterns, the last counts; or in `archives`, zipped tars."""
    patterns = [folder + name for name in names for folder in folders]
    there = [file for pattern in patterns for file in sorted(source.glob(pattern), reverse=True) if file.is_file()]
    found = {file.name: file.read_bytes() for file in there}
    for archive in [] if names[0] in found else sorted(filter(Path.is_file, source.glob(archives))):
        found = files_in(archive, names) | found
    return found


def unzipped(archive: Path, folder: Path) -> Path:
    """Return the tar file that a .tar.gz becomes in `folder`, made once: what is zipped cannot be read from the middle."""
    tar, changed = folder / archive.name.removesuffix(".gz"), archive.stat().st_mtime_ns
    if not tar.is_file() or tar.stat().st_mtime_ns != changed:
        tqdm.write(f"unzipping {archive} to {tar}, which is deleted when the set is made", file=sys.stderr)
        with damage_named(f"{archive} cannot be unpacked"), gzip.open(archive) as stream, files.replacing(tar) as whole:
            shutil.copyfileobj(stream, whole, 2**20)
        os.utime(tar, ns=(changed, changed))
    return tar
