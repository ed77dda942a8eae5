"""The compiled loops and the plain operations against loops in Python, and what happens without a compiler."""

import mmap
import os

import numpy as np
import pytest

from alexnet import compiled
from alexnet.preprocessing import pixels


@pytest.fixture(params=["compiled", "plain"])
def kind(request, monkeypatch):
    if request.param == "plain":
        monkeypatch.setattr(compiled, "library", lambda: (None, "no compiler"))
    elif compiled.library()[0] is None:
        pytest.skip(f"nothing can be compiled here: {compiled.library()[1]}")


def pictures(side, seed=0):
    draws = np.random.default_rng(seed)
    image = draws.integers(0, 256, (side + 9, side + 7, 3)).astype(np.uint8)
    mean = draws.uniform(0, 255, (side + 4, side + 5, 3)).astype(np.float32)
    return image[4 : 4 + side, 5 : 5 + side], mean[1 : 1 + side, 2 : 2 + side], draws.normal(0, 12, 3).astype(np.float32)


@pytest.mark.parametrize("side", [1, 2, 4, 5, 6, 7, 11, 16, 17, 24, 224])
@pytest.mark.parametrize("flip", [False, True])
def test_a_crop_and_a_view_pixel_by_pixel(kind, side, flip):
    image, mean, colour = pictures(side)
    copied, out = np.zeros((side, side, 3), np.uint8), np.empty((side, side, 3), np.float32)
    pixels.crop(image, flip, copied)
    for y, x in np.ndindex(side, side):
        assert (copied[y, x] == image[y, side - 1 - x if flip else x]).all()
    shown = copied.astype(np.float64)
    pixels.view(image, flip, mean, None, 1.1, out)
    np.testing.assert_allclose(out, shown - mean, atol=1e-5)
    for divisor in (1.0, 1.1):
        pixels.view(image, flip, mean, np.tile(colour, side), divisor, out)
        np.testing.assert_allclose(out, (shown - mean + colour) / divisor, atol=1e-4)


@pytest.mark.parametrize("flip", [False, True])
def test_compiled_or_plain_a_view_has_the_same_bits(flip, monkeypatch):
    image, mean, colour = pictures(224, seed=3)
    views = []
    for library in (compiled.library, lambda: (None, "")):
        monkeypatch.setattr(compiled, "library", library)
        for added, divisor in ((None, 1.0), (np.tile(colour, 224), 1.0), (np.tile(colour, 224), 1.1)):
            views.append(np.empty((224, 224, 3), np.float32))
            pixels.view(image, flip, mean, added, divisor, views[-1])
    assert all(np.array_equal(*pair) for pair in zip(views[:3], views[3:], strict=True))


@pytest.mark.parametrize("flip", [False, True])
def test_nothing_is_read_or_written_beyond_the_pixels(kind, flip, tmp_path):
    """Behind the last pixel lies a page that its file no longer has: whoever touches it is killed."""
    side, page = 8, mmap.PAGESIZE
    file = tmp_path / "pages"
    file.write_bytes(bytes(2 * page))
    image = np.memmap(file, np.uint8, "r+")[page - side * side * 3 : page].reshape(side, side, 3)
    image[:] = pictures(side)[0]
    os.truncate(file, page)
    room = np.full((side + 2, side, 3), 7, np.uint8)
    pixels.crop(image, flip, room[1:-1])
    assert np.array_equal(room[1:-1], image[:, ::-1] if flip else image)
    assert (room[[0, -1]] == 7).all()
    view = np.full((side + 2, side, 3), 7, np.float32)
    pixels.view(image, flip, np.zeros((side, side, 3), np.float32), None, 1.0, view[1:-1])
    assert np.array_equal(view, room)


@pytest.mark.parametrize("images", [np.arange(48, dtype=np.int64).reshape(4, 4, 3), pictures(8)[0][::2, ::2]])
def test_other_types_and_strides_are_taken_too(kind, images):
    out = np.empty((4, 4, 3), np.float32)
    pixels.view(images, True, np.zeros((4, 4, 3), np.float32), None, 1.0, out)
    assert np.array_equal(out, images[:, ::-1])


def test_a_window_that_leaves_the_image_is_refused(kind):
    image, out = pictures(8)[0], np.empty((9, 9, 3), np.float32)
    with pytest.raises(ValueError, match="could not broadcast"):
        pixels.view(image[:, :9], False, np.zeros((9, 9, 3), np.float32), None, 1.0, out)
    with pytest.raises(ValueError, match="could not broadcast"):
        pixels.crop(image, False, np.empty((9, 9, 3), np.uint8))


def test_crops_of_many_images_are_those_of_each(kind):
    draws = np.random.default_rng(5)
    images = draws.integers(0, 256, (6, 20, 23, 3)).astype(np.uint8)
    which, tops, lefts = draws.integers(0, 6, 9), draws.integers(0, 8, 9), draws.integers(0, 11, 9)
    flips, out = draws.random(9) < 0.5, np.zeros((9, 13, 13, 3), np.uint8)
    for held in (images, list(images), images[:, :, ::-1]):
        pixels.crops(held, which, tops, lefts, flips, out)
        for own, i, top, left, flip in zip(out, which, tops, lefts, flips, strict=True):
            expected = held[i][top : top + 13, left : left + 13]
            assert np.array_equal(own, expected[:, ::-1] if flip else expected)


@pytest.mark.parametrize(("which", "top", "left"), [(6, 0, 0), (-1, 0, 0), (0, 8, 0), (0, 0, 11), (0, -1, 0)])
def test_a_crop_beyond_the_images_is_refused(which, top, left):
    images, out = np.zeros((6, 20, 23, 3), np.uint8), np.zeros((1, 13, 13, 3), np.uint8)
    if compiled.library()[0] is None:
        pytest.skip("Python refuses some by itself")
    with pytest.raises(IndexError, match="6 images of 20x23"):
        pixels.crops(images, *(np.array([value]) for value in (which, top, left, 0)), out)
