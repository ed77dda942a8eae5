"""Images as they are or as JPEGs: which is chosen, and that reading them is the same."""

import io
import shutil

import numpy as np
import pytest
from PIL import Image

from alexnet.config import UserError
from alexnet.preprocessing import catalog, prepared_set, synthetic
from alexnet.preprocessing.prepare import prepare


def test_a_form_is_chosen_by_size_and_said_and_kept_when_a_call_is_repeated(source, monkeypatch, capsys):
    assert prepare("folders", source).codec == "raw"
    assert "14 train, 6 test images in 2 classes, about 0.0 GB with --codec raw" in capsys.readouterr().err
    monkeypatch.setattr(catalog, "RAW_UP_TO", 1)
    assert prepare("folders", source, force=True).codec == "jpeg"
    assert "with --codec jpeg" in capsys.readouterr().err
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


def test_images_kept_as_jpegs_are_indexed_as_an_array_is(source, monkeypatch):
    images = prepare("folders", source, codec="jpeg").splits["train"].images
    whole = images[:]
    assert (images.shape, len(images)) == (whole.shape, 14)
    original = prepare("folders", source, force=True).splits["train"].images
    assert abs(whole.astype(int) - original).mean() < 3
    folder = prepared_set.data_dir() / "folders"
    shutil.rmtree(folder)
    images = prepare("folders", source, codec="jpeg").splits["train"].images
    mask = whole[:, 0, 0, 0] > whole[:, 0, 0, 0].mean()
    for key in (3, -1, np.int64(2), slice(2, 9, 3), slice(None, None, -1), [5, 5, 0], mask, slice(3, 3)):
        assert images[key].shape == whole[key].shape
        assert (images[key] == whole[key]).all()
    for beyond in (14, -15):
        with pytest.raises(IndexError, match="out of range"):
            images[beyond]
    monkeypatch.setattr(np, "arange", lambda *_: pytest.fail("one image costs as much as there are images"))
    assert (images[np.int64(3)] == images[3:4][0]).all()


def test_a_split_of_grey_jpegs_is_kept_in_three_colours(source):
    for file in source.glob("*/*/*"):
        Image.new("L", (20, 20), 77).save(file)
    images = prepare("folders", source, codec="jpeg").splits["train"].images
    assert (images[:] == 77).all()


def test_the_fast_decoder_gives_pillow_s_pixels_bit_for_bit():
    draws = np.random.default_rng(0)
    pictures = [*synthetic.generate(synthetic.LARGE, "train", 4)[0], draws.integers(0, 256, (256, 256, 3)).astype(np.uint8)]
    pictures += [np.full((8, 24, 3), 255, np.uint8), draws.integers(0, 256, (33, 17, 3)).astype(np.uint8)]
    for pixels in pictures:
        data = prepared_set.encode(pixels)
        decoded = prepared_set.decode(data)
        with Image.open(io.BytesIO(data)) as image:
            assert np.array_equal(decoded, np.asarray(image))
