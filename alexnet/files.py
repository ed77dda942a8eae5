"""How every room writes files: whole or not at all, by one process at a time; and reads them, with one clear error."""

import errno
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import IO, Any

import filelock
import numpy as np

from alexnet.config import UserError

PARTIAL = ".partial"  # ends the name of a file that is being written; git ignores it
FULL = errno.ENOSPC, errno.EDQUOT
REFUSED = errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.EISDIR, errno.ENOTDIR
Rows = list[dict[str, Any]]  # of a table, each by the names of its columns


@contextmanager
def replacing(file: Path) -> Iterator[IO[bytes]]:
    """Yield a binary stream whose content becomes `file` when it is whole and on the disk, or does not."""
    file = file.absolute()  # Why: "." has no name
    make_folder(file.parent)
    partial = file.with_name(file.name + PARTIAL)
    try:
        with partial.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(partial, file)
    except BaseException as error:
        if isinstance(error, OSError):
            error.filename = error.filename or str(file)  # a full disk does not say whose
        partial.unlink(missing_ok=True)
        raise
    sync_folder(file.parent)


def make_folder(folder: Path) -> None:
    """Make a folder, and those around it, so that a power cut loses neither what is in it nor the folder itself."""
    new = [f for f in (folder, *folder.parents) if not f.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for made in new:
        sync_folder(made.parent)


def sync_folder(folder: Path) -> None:
    """Have the names in a folder survive a power cut, where the system can do that."""
    with suppress(OSError):  # Why: some systems open no folders.
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_text(file: Path, text: str) -> None:
    """Write a UTF-8 text file."""
    with replacing(file) as stream:
        stream.write(text.encode())


def write_json(file: Path, value: Any) -> None:
    """Write a JSON file."""
    write_text(file, json.dumps(value, indent=1) + "\n")


def write_lines(file: Path, lines: Rows) -> None:
    """Write a JSON-lines file."""
    write_text(file, "".join(json.dumps(line) + "\n" for line in lines))


def write_array(file: Path, array: np.ndarray) -> None:
    """Write an .npy file."""
    with replacing(file) as stream:
        np.save(stream, array, allow_pickle=False)


def write_arrays(file: Path, **arrays: np.ndarray) -> None:
    """Write a compressed .npz file of named arrays, without pickles."""
    with replacing(file) as stream:
        np.savez_compressed(stream, **arrays)


def read_json(file: Path, mend: str, parse: Callable[[str], Any] = json.loads) -> Any:
    """Return what a JSON file holds. Raises UserError, which ends in `mend`, for one that is missing, cut or damaged."""
    try:
        return parse(file.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read ({getattr(error, 'strerror', None) or error}). {mend}") from error


def read_lines(file: Path, mend: str) -> Rows:
    """Return the objects of a JSON-lines file; an absent one is empty. Raises as `read_json` does."""
    lines = read_json(file, mend, lambda text: [json.loads(line) for line in text.splitlines()]) if file.is_file() else []
    if not all(isinstance(line, dict) for line in lines):
        raise UserError(f"{file} cannot be read (a line is no object). {mend}")
    return lines


def shown(name: object) -> str:
    """Return a name that others gave as it may be printed: control characters and undecodable bytes are escaped."""
    text = str(name)
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


class BusyError(UserError):
    """Another process holds the lock."""


@contextmanager
def locked(file: Path, otherwise: str | None = None) -> Iterator[None]:
    """Hold the lock `file` for a block, waiting for it, or raising BusyError with the text `otherwise` when it is held."""
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        held = filelock.FileLock(file).acquire(timeout=-1 if otherwise is None else 0)
    except filelock.Timeout:
        raise BusyError(otherwise) from None
    with held:
        yield


def is_locked(file: Path) -> bool:
    """Return whether a process holds the lock `file`."""
    try:
        with locked(file, "") if file.is_file() else nullcontext():
            return False
    except BusyError:
        return True


@contextmanager
def disk_errors_named() -> Iterator[None]:
    """Turn a full disk, a refused access, or a file for a folder into a UserError that names it and the variables."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL + REFUSED:
            raise
        where = "ALEXNET_DATA says where prepared sets are, ALEXNET_RUNS where results are"
        raise UserError(
            f"{shown(error.filename2 or error.filename or 'disk')}: {os.strerror(error.errno)}. {where}."
        ) from error
