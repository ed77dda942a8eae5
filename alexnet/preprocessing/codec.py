"""The two forms in which a prepared set keeps its images; reading them is the same.

raw    images.npy, (N, H, W, 3) uint8, memory-mapped: 197 kB for an image of 256x256
jpeg   images.jpegs, JPEGs of quality 95 one after another, and offsets.npy, (N + 1,) int64, where each begins; a sixth of
       the bytes, decoded whenever an image is read
"""

import functools
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

Codec = Literal["raw", "jpeg"]
FILES: dict[Codec, str] = {"raw": "images.npy", "jpeg": "images.jpegs"}
OFFSETS = "offsets.npy"
QUALITY = 95  # cuda-convnet2's make-data has it too


def encode(pixels: np.ndarray) -> bytes:
    """Return an image (H, W, 3) uint8 as a JPEG."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=QUALITY)
    return stream.getvalue()


def decode(data: bytes) -> np.ndarray:
    """Return the pixels (H, W, 3) uint8 of a JPEG that `encode` made."""
    with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
        return np.asarray(image)


@functools.cache
def loader_decoder() -> Callable[[np.ndarray], np.ndarray]:
    """Return what decodes the bytes of a JPEG that `encode` made, (N,) uint8, to the same pixels as `decode`, but faster.

    That is torchvision's decoder, in two thirds of Pillow's time; where it cannot be used it is `decode`.
    """
    try:
        # Why here: importing torchvision takes a second, which those who read no JPEGs need not wait.
        import torch
        import torchvision.io  # noqa: F401  # registers the operation

        # Why not `torchvision.io.decode_jpeg`, which calls this: it warns, each time, that TorchCodec will follow it.
        decode_jpeg, rgb = torch.ops.image.decode_jpeg, 3

        def decoder(data: np.ndarray) -> np.ndarray:
            return decode_jpeg(torch.from_numpy(np.array(data)), rgb, False).permute(1, 2, 0).numpy()

        probe = np.frombuffer(encode(np.arange(768, dtype=np.uint8).reshape(16, 16, 3)), np.uint8)
        if np.array_equal(decoder(probe), decode(probe.tobytes())):
            return decoder
    except (ImportError, AttributeError, RuntimeError, TypeError, OSError):
        pass  # Why so many: a build without JPEG, or without this operation, fails in ways of its own
    return lambda data: decode(data.tobytes())


def header(num_images: int, side: int) -> bytes:
    """Return the first bytes of an .npy file of images, as many for any number of them."""
    stream = io.BytesIO()
    shape = (num_images, side, side, 3)
    np.lib.format.write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return stream.getvalue()


class JpegImages:
    """Images (N, H, W, 3) uint8 that are decoded when they are indexed, as those of an .npy file are read."""

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(self, file: Path, offsets: np.ndarray, side: int) -> None:
        self.file, self.offsets = file, offsets
        self.shape = (len(offsets) - 1, side, side, 3)
        self._data = np.memmap(file, np.uint8, "r") if self.shape[0] else np.empty(0, np.uint8)

    def __reduce__(self) -> tuple[Any, ...]:
        return JpegImages, (self.file, np.asarray(self.offsets), self.shape[1])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> np.ndarray:
        """Return images, or parts of them: `images[i]`, `images[3:7]`, `images[numbers]`, `images[i, 16:240, :224]`."""
        first, *rest = key if isinstance(key, tuple) else (key,)
        if isinstance(first, int | np.integer):
            return self._decode(int(first))[tuple(rest)]
        numbers = range(*first.indices(len(self))) if isinstance(first, slice) else np.asarray(first)
        if isinstance(numbers, np.ndarray) and numbers.dtype == bool:
            numbers = np.flatnonzero(numbers)
        window = tuple(rest)
        found = [self._decode(int(i))[window] for i in numbers]
        return np.stack(found) if found else np.empty((0, *self.shape[1:]), np.uint8)[(slice(None), *window)]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype)

    def encoded(self, i: int) -> np.ndarray:
        """Return the bytes of image `i` as they are in the file, for a decoder of the caller's own."""
        if not -len(self) <= i < len(self):
            raise IndexError(f"image {i} of {len(self)}")
        i %= len(self)
        return self._data[self.offsets[i] : self.offsets[i + 1]]

    def _decode(self, i: int) -> np.ndarray:
        return loader_decoder()(self.encoded(i))


def open_images(folder: Path, codec: Codec, side: int) -> np.ndarray | JpegImages:
    """Open the images of a finished split."""
    if codec == "raw":
        return np.load(folder / FILES["raw"], mmap_mode="r")
    return JpegImages(folder / FILES["jpeg"], np.load(folder / OFFSETS, mmap_mode="r"), side)
