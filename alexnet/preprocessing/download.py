"""Fetch a published archive: checked against its published checksum, gone on with where an earlier call stopped.

torchvision's own download begins anew after every interruption.
"""

import hashlib
import tarfile
import urllib.error
import urllib.request
import zlib
from http.client import HTTPException
from pathlib import Path

from tqdm import tqdm

from alexnet.config import UserError

TRIES = 5  # connections that may break, one after another
TIMEOUT = 60  # seconds without a byte
BLOCK = 2**20


def fetch(url: str, file: Path, md5: str) -> Path:
    """Download `url` to `file` unless it is there. Raises UserError without a network, or when its MD5 sum is another."""
    if file.is_file():
        return file
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f"{file.name}.partial")
    problem: Exception | None = None
    for _ in range(TRIES):
        try:
            _receive(url, partial)
            break
        except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError) as error:
            problem = error
    else:
        raise UserError(
            f"{url} could not be downloaded ({problem}). Repeat the command, which goes on from there, or without a network "
            "give a copy with --source DIR."
        ) from problem
    with partial.open("rb") as stream:
        found = hashlib.file_digest(stream, "md5").hexdigest()
    if found != md5:
        partial.unlink()
        raise UserError(
            f"{url} is not the published file: its MD5 sum is {found}, not {md5}. Repeat the command to try again."
        )
    return partial.replace(file)


def _receive(url: str, partial: Path) -> None:
    """Append to `partial` what is missing of `url`. Raises ConnectionError when the connection ends too soon."""
    have = partial.stat().st_size if partial.is_file() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and have:  # Why: so a server says that nothing is left to send
            return
        raise
    with response, partial.open("ab" if response.status == 206 else "wb") as stream:
        left = int(response.headers.get("Content-Length", 0))
        total = stream.tell() + left
        with tqdm(total=total, initial=stream.tell(), desc=partial.stem, unit="B", unit_scale=True, leave=False) as bar:
            while block := response.read(min(BLOCK, left) if left else BLOCK):
                stream.write(block)
                bar.update(len(block))
                left -= len(block)
                if left == 0:
                    return
    if left > 0:
        raise ConnectionError(f"the connection ended {left:,} bytes too soon")


def unpack(archive: Path, folder: Path) -> Path:
    """Unpack a compressed archive into `folder`, whole or not at all; what would land elsewhere is refused."""
    if folder.is_dir():
        return folder
    partial = folder.with_name(f"{folder.name}.partial")
    try:
        with tarfile.open(archive, "r:gz") as tar:
            tar.extractall(partial, filter="data")  # refuses paths and links that lead out of the folder, and devices
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise UserError(f"{archive} cannot be unpacked ({error}). Delete it and repeat the command.") from error
    return partial.replace(folder)
