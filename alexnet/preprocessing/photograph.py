"""Section 2: from a photograph of any kind and size to a square of 256 pixels, RGB, one byte each."""

import io
import struct
import warnings
import zlib
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageOps

# Why: Pillow knows some forty formats, some of which call other programs; no data set needs more than these.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
APPLE = (b"ftypheic", b"ftypheix", b"ftyphevc", b"ftypmif1", b"ftypmsf1", b"ftypavif")  # what telephones write
# Why: the paper does not name its filter. Pillow's bicubic widens with the reduction, so it does not alias.
RESAMPLING = Image.Resampling.BICUBIC
LARGE = 40 * 10**6  # pixels, more than most telephones have; decoded, each takes 4 bytes, and twice that when converted
UNREADABLE = (OSError, SyntaxError, ValueError, TypeError, KeyError, EOFError, struct.error, zlib.error, MemoryError)
UNREADABLE += (Image.DecompressionBombError, Image.DecompressionBombWarning)


def read(stream: BinaryIO, side: int = 256, turn: AbstractContextManager | None = None, only: str = "") -> np.ndarray:
    """Read a photograph as (side, side, 3) uint8: turned upright, made RGB, shorter side scaled to `side`, centre cropped.

    Raises what is in UNREADABLE, also for more than 89 million pixels (Pillow's limit), a decompression bomb. Paper 2.
    Processes that share the lock `turn` hold photographs of more than LARGE pixels one at a time. A format `only` is read
    only where the size is right already.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning)  # Why: several photographs of ILSVRC have damaged EXIF
        warnings.filterwarnings("error", category=Image.DecompressionBombWarning)
        image = Image.open(stream, formats=(only,) if only else FORMATS)
        if only and image.size != (side, side):
            raise ValueError(f"{image.width}x{image.height} pixels where {side}x{side} are needed")
        is_alone = turn if turn and image.width * image.height > LARGE else nullcontext()
        with image, is_alone:
            return square(to_rgb(image), side)


def read_or_why(get: Callable[[], bytes], side: int, turn: AbstractContextManager | None = None, only: str = "") -> Any:
    """Return what `read` makes of the bytes that `get` returns, or a text that says why they cannot be read."""
    data = b""
    try:
        data = get()
        return read(io.BytesIO(data), side, turn, only)
    except UNREADABLE as error:
        return why_not(error, data)


def why_not(error: BaseException, data: bytes) -> str:
    """Return why an image with these first bytes cannot be read, given one of the errors in UNREADABLE."""
    if data[4:12] in APPLE:
        return "a HEIC or AVIF image: convert it to JPEG or PNG"
    said = str(error) or type(error).__name__
    return "not an image" if "cannot identify image file" in said else said


def to_rgb(image: Image.Image) -> Image.Image:
    """Turn an image upright, as its EXIF orientation says (the paper is silent), and convert it from any mode to 8-bit RGB.

    16-bit grey is scaled from 0-65535; what is transparent shows a white ground, as the colours under it are arbitrary.
    Raises ValueError where no range is defined (mode F, or I beyond 16 bits) and for modes that Pillow cannot convert.
    """
    image.load()  # Why first: a PNG may have its EXIF behind its pixels, and damaged pixels are no matter of EXIF
    with suppress(*UNREADABLE):
        ImageOps.exif_transpose(image, in_place=True)
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers of unknown range")
    if image.mode.startswith("I"):
        pixels = np.asarray(image)
        if pixels.min() < 0 or pixels.max() > 65535:
            raise ValueError("its pixels have more than 16 bits")
        image = Image.fromarray(np.round(pixels / 257.0).astype(np.uint8))
    if image.has_transparency_data:
        front = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), front).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def square(image: Image.Image, side: int = 256) -> np.ndarray:
    """Scale an RGB image until its shorter side is `side`, and return the central (side, side, 3) uint8. Paper 2.

    The longer side is rounded. An odd margin leaves its extra pixel right or below, as in cuda-convnet2's make-data.
    """
    scaled = [round(length * side / min(image.size)) for length in image.size]
    starts = [(length - side) // 2 for length in scaled]
    # Why: resizing only what is kept takes less time, and a strip of 1 by 60000 pixels does not grow to gigabytes. Pillow
    # clips between its two passes and picks their order by size, so the edges of pictures that stand upright may come out
    # some grey levels apart from those of the whole, resized.
    low = [start * length / s for start, length, s in zip(starts, image.size, scaled, strict=True)]
    high = [min((start + side) * length / s, length) for start, length, s in zip(starts, image.size, scaled, strict=True)]
    return np.array(image.resize((side, side), RESAMPLING, box=(*low, *high)))
