"""What one process does for a prepared set: read a few listed images, and say what it could not read or found unusual."""

import io
import zlib
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np

from alexnet.preprocessing import codec, images
from alexnet.preprocessing.codec import Codec
from alexnet.preprocessing.listing import LARGEST_FILE, Listing

UNREADABLE = (*images.UNREADABLE, zlib.error, MemoryError)


@dataclass(frozen=True)
class Job:
    """What every process knows: which images, and what is made of them."""

    listing: Listing
    side: int
    form: Codec
    turn: AbstractContextManager | None = None  # a lock, so that one process at a time holds a very large photograph


@dataclass
class Chunk:
    """Images `start` to `stop` of the listing, less those that could not be read, as they are written to disk."""

    start: int
    stop: int
    data: bytes
    lengths: list[int]  # bytes of each image
    total: np.ndarray  # (H, W, 3) uint16, sum of the images
    outer: np.ndarray  # (3, 3) int64, sum over the pixels of the products of two colours
    refused: list[tuple[int, str]]  # number in the listing, why
    remarks: list[tuple[str, int]]  # what is unusual, number in the listing


def decode(job: Job, span: tuple[int, int]) -> Chunk:
    """Decode the images of the listing from `span[0]` up to `span[1]`."""
    data, refused, remarks = [], [], []
    total, outer = np.zeros((job.side, job.side, 3), np.uint16), np.zeros((3, 3), np.int64)
    for i in range(*span):
        try:
            pixels, notes = read(job.listing, i, job.side, job.turn)
        except UNREADABLE as error:
            refused.append((i, _why(error)))
            continue
        data.append(pixels.tobytes() if job.form == "raw" else codec.encode(pixels))
        # Why: the mean image and the colours' covariance are those of what will be read, not of what was encoded.
        seen = pixels if job.form == "raw" else codec.decode(data[-1])
        total += seen
        outer += sums(seen)[1]
        remarks += [(note, i) for note in notes]
    return Chunk(*span, b"".join(data), [len(image) for image in data], total, outer, refused, remarks)


def sums(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return what an image (H, W, 3) adds to the sums over a split: itself and its colours' products (3, 3) int64."""
    # Why: a row of 256 products is below 2^24, so float32 sums it exactly, in a third of the time of float64.
    exact = np.float32 if image.shape[1] <= 256 else np.float64
    planes = [np.ascontiguousarray(image[..., colour]).astype(exact) for colour in range(3)]
    outer = np.zeros((3, 3), np.int64)
    for i, j in ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)):
        outer[i, j] = outer[j, i] = np.einsum("hw,hw->h", planes[i], planes[j]).astype(np.int64).sum()
    return image, outer


def read(listing: Listing, i: int, side: int, turn: AbstractContextManager | None = None) -> tuple[np.ndarray, list[str]]:
    """Read image `i` as (side, side, 3) uint8, and say what is unusual about it. Raises what is in UNREADABLE."""
    data, zipped = listing.read(i), []
    if not data:
        raise ValueError("an empty file")
    if data.startswith(b"\x1f\x8b"):  # Why: some images of ILSVRC-2010's archives are compressed with gzip
        unzip = zlib.decompressobj(wbits=31)
        data, zipped = unzip.decompress(data, LARGEST_FILE), ["compressed with gzip"]
    pixels, notes = images.read_photograph(io.BytesIO(data), side, turn)
    name = listing.name(i).split(" in ")[0].lower()
    kind, *others = notes
    if name.endswith((".jpg", ".jpeg")) and kind not in ("JPEG", "MPO"):
        others = [f"{kind} named as JPEG", *others]
    return pixels, zipped + others


def readable(listing: Listing, i: int) -> bool:
    """Return whether image `i`, which could not be read, can be read now."""
    try:
        read(listing, i, side=8)
    except UNREADABLE:
        return False
    return True


def _why(error: BaseException) -> str:
    text = str(error) or type(error).__name__
    return "not an image" if "cannot identify image file" in text else text
