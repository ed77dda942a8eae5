"""Images as they are or as JPEGs: which is chosen, and that reading them is the same."""

import io
import pickle
import shutil
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from alexnet.config import UserError
from alexnet.preprocessing import codec, formula, photographs, store
from alexnet.preprocessing.datasets import prepare


def test_a_form_is_chosen_by_size_and_said_and_kept_when_a_call_is_repeated(source, monkeypatch, capsys):
    assert prepare("folders", source).codec == "raw"
    assert "images in 2 classes. Kept as they are (--codec raw) they take about 0.0 GB" in capsys.readouterr().err
    monkeypatch.setattr(photographs, "RAW_UP_TO", 1)
    assert prepare("folders", source, force=True).codec == "jpeg"
    assert "Kept as JPEGs of quality 95 (--codec jpeg)" in capsys.readouterr().err
    assert prepare("folders").codec == "jpeg"
    with pytest.raises(UserError, match=r"folders is prepared with --codec jpeg. To make it again with raw, add --force"):
        prepare("folders", source, codec="raw")


def test_a_set_begun_in_one_form_is_made_anew_in_another(source):
    expected = prepare("folders", source, codec="jpeg").fingerprint
    (source / "test" / "dog" / "dog_1.png").rename(source / "kept.png")
    (source / "test" / "dog" / "dog_1.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"--accept-bad"):
        prepare("folders", source, force=True, codec="raw")
    (source / "kept.png").rename(source / "test" / "dog" / "dog_1.png")
    data = prepare("folders", source, codec="jpeg")
    assert data.fingerprint == expected
    assert not list(data.folder.rglob("images.npy"))


def test_images_kept_as_jpegs_are_indexed_as_an_array_is(source):
    images = prepare("folders", source, codec="jpeg").splits["train"].images
    whole = images[:]
    assert (images.shape, images.dtype, images.ndim, len(images)) == (whole.shape, whole.dtype, 4, 14)
    original = prepare("folders", source, force=True).splits["train"].images
    assert abs(whole.astype(int) - original).mean() < 3
    folder = store.data_dir() / "folders"
    shutil.rmtree(folder)
    images = prepare("folders", source, codec="jpeg").splits["train"].images
    mask = whole[:, 0, 0, 0] > whole[:, 0, 0, 0].mean()
    for key in (3, -1, slice(2, 9, 3), slice(None, None, -1), [5, 5, 0], whole[:, 0, 0, 0].argsort(), mask, slice(3, 3),
                (4, slice(2, 9)), (slice(0, 2), slice(1, 3), slice(5)), ([7, 1], slice(None), 3), (2, 1, 1, 0)):  # fmt: skip
        assert images[key].shape == whole[key].shape
        assert (images[key] == whole[key]).all()
    assert (pickle.loads(pickle.dumps(images))[2] == whole[2]).all()
    assert (images.__array__() == whole).all()
    with Image.open(io.BytesIO(images.encoded(-1).tobytes())) as last:
        assert (np.asarray(last) == whole[13]).all()
    for beyond in (14, -15):
        with pytest.raises(IndexError, match="of 14"):
            images[beyond]


def test_a_split_of_grey_jpegs_is_kept_in_three_colours(source):
    for file in source.glob("*/*/*"):
        Image.new("L", (20, 20), 77).save(file)
    images = prepare("folders", source, codec="jpeg").splits["train"].images
    assert (images[:] == 77).all()


@pytest.fixture
def fresh_decoder():
    """No decoder is remembered before and after."""
    codec.loader_decoder.cache_clear()
    yield
    codec.loader_decoder.cache_clear()


def test_the_loader_s_decoder_gives_pillow_s_pixels_to_the_bit(fresh_decoder):
    draws = np.random.default_rng(0)
    pictures = [*formula.generate(formula.LARGE, "train", 4)[0], draws.integers(0, 256, (256, 256, 3)).astype(np.uint8)]
    pictures += [np.full((8, 24, 3), 255, np.uint8), draws.integers(0, 256, (33, 17, 3)).astype(np.uint8)]
    for pixels in pictures:
        data = codec.encode(pixels)
        with Image.open(io.BytesIO(data)) as image:
            assert np.array_equal(codec.loader_decoder()(np.frombuffer(data, np.uint8)), np.asarray(image))


@pytest.mark.parametrize("fault", ["missing", "without JPEG", "other pixels"])
def test_a_torchvision_that_cannot_decode_leaves_it_to_pillow(fault, fresh_decoder, monkeypatch):
    if fault == "missing":
        monkeypatch.setitem(sys.modules, "torchvision.io", None)
    else:

        def decode_jpeg(data, mode, apply_orientation):
            if fault == "without JPEG":
                raise RuntimeError("decode_jpeg: torchvision not compiled with libjpeg support")
            return data.new_zeros(3, 16, 16)

        import torchvision.io  # noqa: F401

        monkeypatch.setattr(torch.ops.image, "decode_jpeg", decode_jpeg)
    pixels = formula.generate(formula.LARGE, "train", 1)[0][0]
    data = codec.encode(pixels)
    decoded = codec.loader_decoder()(np.frombuffer(data, np.uint8))
    assert np.array_equal(decoded, codec.decode(data))
    assert decoded.std() > 1
