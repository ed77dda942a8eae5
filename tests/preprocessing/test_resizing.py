"""Resizing against Pillow, to the bit."""

import numpy as np
import pytest
from PIL import Image

from alexnet import compiled
from alexnet.preprocessing import resizing


def drawn(width, height, seed=0):
    draws = np.random.default_rng(seed)
    noise = draws.integers(0, 256, (height, width, 3)).astype(np.uint8)
    return Image.fromarray(np.where(noise > 128, 255, 0).astype(np.uint8) if seed % 2 else noise)  # 0 and 255 are clipped


@pytest.fixture
def loops():
    if not resizing._like_pillow():
        pytest.skip(f"no compiled loops that do as Pillow does: {compiled.why_not()}")


SIZES = [(500, 375), (375, 500), (500, 333), (256, 256), (257, 300), (300, 257), (100, 80), (80, 100), (16, 16), (17, 400)]


@pytest.mark.parametrize(("width", "height"), [*SIZES, (40, 3000), (3000, 40), (511, 767), (1, 50), (50, 1)])
@pytest.mark.parametrize("side", [8, 16, 33, 256])
def test_any_part_of_any_picture_is_what_pillow_makes_of_it(loops, width, height, side):
    draws = np.random.default_rng(width * height + side)
    for seed in (0, 1):
        image = drawn(width, height, seed)
        left, upper, right, lower = draws.uniform(0, 0.4, 4) * (width, height, width, height)
        for box in ((0, 0, width, height), (left, upper, width - right, height - lower)):
            ours = resizing.resize(image, side, box)
            assert ours.dtype == np.uint8
            assert np.array_equal(ours, image.resize((side, side), Image.Resampling.BICUBIC, box=box))


def test_the_orders_of_the_two_passes_differ_so_the_choice_is_tested(loops):
    image, box = drawn(375, 500), (0, 62, 375, 437)
    across, down = resizing.taps(375, 0, 375, 256), resizing.taps(500, 62, 437, 256)
    part = np.asarray(image)[down.start : down.start + down.length]
    lower_first = resizing._narrow(resizing._lower(part, 256, down), 256, across)
    narrow_first = resizing._lower(resizing._narrow(part, 256, across), 256, down)
    assert not np.array_equal(lower_first, narrow_first)
    assert np.array_equal(resizing.resize(image, 256, box), lower_first)


def test_weights_of_halving_by_hand():
    """Centres lie between two pixels, 0.5, 1.5, 2.5 and 3.5 old pixels or 0.25 ... 1.75 new ones from them."""
    near, far = [((1.5 * x - 2.5) * x * x + 1) for x in (0.25, 0.75)], [((x - 5) * x + 8) * x - 4 for x in (1.25, 1.75)]
    row = np.array([*[-0.5 * w for w in far[::-1]], *near[::-1], *near, *[-0.5 * w for w in far]])
    how = resizing.taps(64, 0, 64, 32)
    middle = how.weights[16]
    assert how.start + how.first[16] == 2 * 16 - 3
    np.testing.assert_allclose(middle[:8] / 2**22, row / row.sum(), atol=2**-22)
    assert (middle[8:] == 0).all()
    np.testing.assert_allclose(how.weights.sum(axis=1) / 2**22, 1, atol=1e-5)


@pytest.mark.parametrize("what", ["no compiler", "a Pillow that rounds otherwise"])
def test_where_the_loops_cannot_be_used_pillow_does_it(what, monkeypatch):
    image, box = drawn(300, 200), (10.5, 0, 210.5, 200)
    expected = np.asarray(image.resize((64, 64), Image.Resampling.BICUBIC, box=box))
    if what == "no compiler":
        monkeypatch.setattr(compiled, "library", lambda: (None, what))
    else:
        monkeypatch.setattr(resizing, "_resize", lambda image, side, box: np.zeros((side, side, 3), np.uint8))
    resizing._like_pillow.cache_clear()
    try:
        assert np.array_equal(resizing.resize(image, 64, box), expected)
        assert not resizing._like_pillow()
    finally:
        resizing._like_pillow.cache_clear()
