"""Where the images of a split are: a compact table, so that 14 million images need no 14 million objects.

Images are listed by class and, within a class, by file name, so that folders and archives of the same files give the
same order.
"""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from alexnet.config import UserError

# Why: an image's bytes are held in memory, in every process; the largest file of ILSVRC has 15 MB.
LARGEST_FILE = 256 * 2**20


@dataclass(frozen=True)
class Part:
    """Images of one class in one place: a folder, or a tar file (then with the offset and length of each image in it)."""

    place: str
    label: int
    names: np.ndarray  # (n,) bytes, ascending
    offsets: np.ndarray | None = None  # (n,) int64
    lengths: np.ndarray | None = None  # (n,) int64


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


def list_class_folders(root: Path, classes: tuple[str, ...]) -> Listing:
    """List the files of `root/<class>/`. Raises UserError for a class that has no folder."""
    parts, refused = [], []
    for label, name in enumerate(classes):
        folder = root / name
        if not folder.is_dir():
            raise UserError(f"{folder} is missing: every class needs a folder with its images, {root.name}/<class>/.")
        names = sorted(os.fsencode(entry.name) for entry in _files(folder, root, refused))
        parts.append(Part(str(folder), label, np.array(names, bytes)))
    return Listing(tuple(parts), tuple(refused))


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
