"""The disk that prepared sets share: it may be too small, become full, or be written by two processes at a time."""

import errno
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alexnet.config import UserError

FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def alone(file: Path) -> Iterator[None]:
    """Wait until no other process is in a block with the same lock file, and keep others waiting until this one is done."""
    try:
        import fcntl
    except ImportError:  # Why: Windows has none; there the user must not prepare a set twice at a time
        yield
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"Another process is at work on {file.with_suffix('').name}; waiting for it.", file=sys.stderr)
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield


@contextmanager
def disk_errors_named(folder: Path, bytes_needed: int) -> Iterator[None]:
    """Turn a disk that is or becomes too full for `bytes_needed` below `folder` into a UserError."""
    folder.mkdir(parents=True, exist_ok=True)
    present = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    message = (
        f"The disk of {folder} cannot hold this set: it needs {bytes_needed / 1e6:.0f} MB, {{free:.0f}} MB are free. Free "
        "some space or set ALEXNET_DATA to another disk, and repeat the command: what is done is kept."
    )
    if shutil.disk_usage(folder).free + present < bytes_needed:
        raise UserError(message.format(free=shutil.disk_usage(folder).free / 1e6))
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise UserError(message.format(free=shutil.disk_usage(folder).free / 1e6)) from error
