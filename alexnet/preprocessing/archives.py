"""Tar files of images, read where they are: nothing is unpacked, so nothing can be written where it should not be.

An image's place is a file, an offset and a length, also in a tar inside a tar, as the training images of ILSVRC come.
"""

import os
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from alexnet.config import UserError

BLOCK = 512  # a tar file is made of such blocks, and ends with two of zeros
SMALL = 64 * 2**20  # bytes; more is not unpacked into memory
LINKS = (tarfile.SYMTYPE, tarfile.LNKTYPE)


@dataclass(frozen=True)
class Span:
    """A tar file, or the part of one that is a tar file itself."""

    file: Path
    start: int
    stop: int

    @classmethod
    def whole(cls, file: Path) -> "Span":
        """Return a file as a span."""
        return cls(file, 0, file.stat().st_size)


@dataclass
class Contents:
    """The files of an archive by name, and what was refused or found twice."""

    places: dict[bytes, tuple[int, int]] = field(default_factory=dict)  # name -> offset, length
    refused: list[tuple[str, str]] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)


def members(span: Span) -> Iterator[tarfile.TarInfo]:
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


def contents(span: Span, folder: str | None = None) -> Contents:
    """List the files of an archive, by name without folders; with `folder`, of those directly in a folder of that name.

    As in unpacking, the later of two files of one name counts.
    """
    found = Contents()
    for member in members(span):
        path = PurePosixPath(member.name)
        if member.isdir() or path.name.startswith(".") or (folder is not None and path.parent.name != folder):
            continue
        if why := _refusal(member, path):
            found.refused.append((f"{member.name} in {span.file}", why))
            continue
        name = os.fsencode(path.name)
        if name in found.places:
            found.twice.append(f"{path.name} in {span.file}")
        found.places[name] = (member.offset_data, member.size)
    return found


def inner(span: Span) -> dict[str, Span]:
    """Return the tar files in an archive by their names without ending."""
    found = {}
    for member in members(span):
        path = PurePosixPath(member.name)
        if path.suffix == ".tar" and member.isreg():
            found[path.stem] = Span(span.file, member.offset_data, member.offset_data + member.size)
    return found


def unpacked(file: Path) -> Iterator[tuple[str, bytes]]:
    """Yield name without folders and content of the files in a small compressed archive."""
    try:
        with tarfile.open(file, "r:gz") as tar:
            for member in tar:
                if member.isreg() and member.size <= SMALL:
                    yield PurePosixPath(member.name).name, tar.extractfile(member).read()
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise UserError(f"{file} cannot be unpacked ({error}). Copy it again and repeat the command.") from error


def _refusal(member: tarfile.TarInfo, path: PurePosixPath) -> str:
    if path.is_absolute() or ".." in path.parts:
        return "a path that leaves the archive"
    if member.type in LINKS:
        return "a link, which may lead anywhere"
    return "" if member.isreg() and not member.issparse() else "no plain file"
