import numpy as np

from alexnet import randomness


def test_a_draw_depends_on_seed_purpose_and_place_and_on_nothing_else():
    first = randomness.generator(3, "flip", 5, 7).integers(0, 2**32, 4).tolist()
    randomness.generator(3, "flip", 5, 6).random(1000)
    assert randomness.generator(3, "flip", 5, 7).integers(0, 2**32, 4).tolist() == first
    others = [(4, "flip", 5, 7), (3, "crop", 5, 7), (3, "flip", 6, 7), (3, "flip", 5, 8), (3, "flip", 57)]
    for arguments in others:
        assert randomness.generator(*arguments).integers(0, 2**32, 4).tolist() != first, arguments


def test_places_do_not_run_into_each_other():
    """(1, 23) and (12, 3) would be one place if the words were joined without a mark."""
    assert randomness.generator(0, "x", 1, 23).random() != randomness.generator(0, "x", 12, 3).random()


def test_a_stream_is_pinned():
    """So that a run recorded today can be repeated after an upgrade, or the upgrade is noticed."""
    order = randomness.generator(0, "batch-order", 0).permutation(1000)
    assert order[:6].tolist() == [114, 766, 642, 317, 695, 479]


def test_normal_draws_have_mean_0_and_deviation_1():
    draws = randomness.normal(0, "weights/conv1", (200_000,))
    assert abs(draws.mean()) < 4 / np.sqrt(draws.size)
    assert abs(draws.std() - 1) < 4 / np.sqrt(2 * draws.size)
