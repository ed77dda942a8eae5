"""Whether a prepared set's files are still what its manifest says."""

import hashlib
import json
from pathlib import Path
from typing import Any

from tqdm import tqdm

from alexnet.config import UserError
from alexnet.preprocessing import codec

SHARDS = "shards.json"  # of a split that was written in shards: where they start, the length and sha256 of each
HASHED_UP_TO = 2 * 10**9  # bytes of images that opening a set reads in full, to compare their sha256


def check_files(folder: Path, manifest: dict[str, Any], verify: bool | None) -> None:
    """Raise UserError, naming the file, unless the set's files are as its manifest says.

    Lengths are compared always; the sha256 of files unless `verify` is False, of the images of large sets if it is True.
    """
    lengths = manifest.get("bytes", {})
    for path, length in {**dict.fromkeys(manifest["sha256"]), **lengths}.items():
        file = folder / path
        if not file.is_file():
            raise _no_longer(folder, path, "missing")
        if length is not None and file.stat().st_size != length:
            what = f"changed since it was prepared: it has {file.stat().st_size:,} bytes, not {length:,}"
            raise _no_longer(folder, path, what)
    if verify is False:
        return
    for path, digest in manifest["sha256"].items():
        if sha256(folder / path) != digest:
            raise _no_longer(folder, path, "changed since it was prepared")
    sharded = [path for path in lengths if path not in manifest["sha256"]]
    hashed = verify or sum(lengths[path] for path in sharded) <= HASHED_UP_TO
    for path in sharded:
        _check_header(folder, path, manifest)
        if hashed:
            _check_shards(folder, path)


def _no_longer(folder: Path, path: str, what: str) -> UserError:
    return UserError(f"{folder / path} is {what}. Make the set again with: alexnet prepare {folder.name} --force")


def _check_header(folder: Path, path: str, manifest: dict[str, Any]) -> None:
    if path.endswith(codec.FILES["raw"]):
        header = codec.header(sum(manifest["counts"][path.split("/")[0]].values()), manifest["side"])
        with (folder / path).open("rb") as stream:
            if stream.read(len(header)) != header:
                raise _no_longer(folder, path, "changed since it was prepared, in its first bytes")


def _check_shards(folder: Path, path: str) -> None:
    """Raise UserError unless each shard of a split's images has its sha256."""
    record = json.loads((folder / path).with_name(SHARDS).read_text())
    total, label = sum(length for length, _ in record["shards"]), f"verifying {path}"
    with (folder / path).open("rb") as stream, tqdm(total=total, desc=label, unit="B", unit_scale=True, leave=False) as bar:
        stream.seek(record["start"])
        for number, (length, digest) in enumerate(record["shards"]):
            found, left = hashlib.sha256(), length
            while left and (block := stream.read(min(left, 2**20))):
                found.update(block)
                left -= len(block)
            if found.hexdigest() != digest:
                raise _no_longer(folder, path, f"changed since it was prepared, in its shard {number}")
            bar.update(length)


def sha256(file: Path) -> str:
    """Return the sha256 of a file's bytes, hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
