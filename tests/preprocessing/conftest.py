"""Photographs in class folders, small enough that preparing them takes no time."""

import numpy as np
import pytest
from PIL import Image

from alexnet.preprocessing import filling, photographs, progress, workers

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
    monkeypatch.setattr(photographs, "SIDE", SIDE)
    monkeypatch.setattr(progress, "SHARD", 4)
    monkeypatch.setattr(filling, "CHUNK", 2)
    monkeypatch.setattr(photographs, "SAMPLE", 1)
    monkeypatch.setattr(workers, "available", lambda: 1)
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
