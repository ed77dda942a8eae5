"""Photographs in class folders, small enough that preparing them takes no time."""

import importlib
import io

import numpy as np
import pytest
from experiments import rehearsal
from PIL import Image

SIDE = 16


def _picture(*key, height=20, width=27):
    coarse = np.random.default_rng(key).integers(0, 256, (3, 3, 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


@pytest.fixture
def picture():
    """A function of some numbers that returns an image of their own, smooth enough to survive a JPEG."""
    return _picture


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Prepared sets in a temporary folder, of 16x16, in shards of four images."""
    monkeypatch.setenv("ALEXNET_DATA", str(tmp_path / "data"))
    module = importlib.import_module("alexnet.preprocessing.prepare")  # its name in the room is the function's
    monkeypatch.setattr(module, "SIDE", SIDE)
    monkeypatch.setattr(module, "available_cores", lambda: 1)
    monkeypatch.setattr(module, "SHARD", 4)
    monkeypatch.setattr(module, "CHUNK", 2)
    return tmp_path


@pytest.fixture
def source(small):
    """Two classes, seven training and three test photographs of each, lossless, in `source/{train,test}/<class>/`."""
    for s, (split, count) in enumerate((("train", 7), ("test", 3))):
        for k, name in enumerate(("cat", "dog")):
            folder = small / "source" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                Image.fromarray(_picture(s, k, i)).save(folder / f"{name}_{i}.png")
    return small / "source"


def _jpeg(pixels):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=95)
    return stream.getvalue()


@pytest.fixture
def jpeg():
    """A function that returns the bytes of pixels as a JPEG."""
    return _jpeg


@pytest.fixture
def tar_of():
    """A function that writes a tar file of {name: bytes}, or returns its bytes where the file is None."""
    return lambda file, members, mode="w": rehearsal.tar_of(members, file, mode)


@pytest.fixture
def classes(picture):
    """Five JPEGs of each of three classes, {class: {name: bytes}}, named so that names and numbers sort differently."""
    found = {}
    for k, wnid in enumerate(("n01440764", "n02510455", "n03000684")):
        names = [f"{wnid}_{i}.JPEG" for i in (10026, 7, 300, 41, 5)]
        found[wnid] = {name: _jpeg(picture(k, i)) for i, name in enumerate(names)}
    return found


@pytest.fixture
def write_folder():
    """A function that writes {name: bytes} into a new folder."""

    def write(folder, members):
        folder.mkdir(parents=True)
        for name, data in members.items():
            (folder / name).write_bytes(data)

    return write
