"""Offsets, mirrorings and colours that are drawn, against their distributions and the 2012 source's own components."""

from dataclasses import replace

import numpy as np
import pytest

from alexnet.preprocessing.augment import PAPER, SOURCE2012, colour_axes, draw_colours, draw_views, num_views

# The colours of ILSVRC's training pixels as the 2014 source stores them: eigenvectors are columns.
STDEVS = np.array([19.7208, 37.0939, 121.7801])
VECTORS = np.array([[0.41796, -0.71258, -0.56351], [-0.81698, -0.02354, -0.57618], [0.39731, 0.70120, -0.59200]])
COVARIANCE = VECTORS * STDEVS**2 @ VECTORS.T
SMALL_PAPER = replace(PAPER, crop_side=24)


def test_offsets_are_uniform_from_0_to_32_and_half_the_images_are_mirrored():
    n = 66_000
    tops, lefts, flips = draw_views(PAPER, 256, seed=0, epoch=0, places=np.arange(n))
    for offsets in (tops, lefts):
        counts = np.bincount(offsets, minlength=33)
        assert len(counts) == 33
        assert ((counts - n / 33) ** 2 / (n / 33)).sum() < 62.5  # 32 degrees of freedom, p = 0.001
    assert abs(flips.mean() - 0.5) < 3.3 * 0.5 / n**0.5
    pairs = np.corrcoef(np.stack((tops, lefts, flips, np.roll(tops, 1))))
    assert abs(pairs - np.eye(4)).max() < 4 / n**0.5  # neither each other nor the next image


def test_there_are_2178_views_where_the_paper_prints_2048():
    drawn = draw_views(PAPER, 256, seed=0, epoch=0, places=np.arange(66_000))
    assert len(set(zip(*(part.tolist() for part in drawn), strict=True))) == num_views(PAPER) == 33 * 33 * 2 == 2178
    assert num_views(SMALL_PAPER, image_side=32) == 9 * 9 * 2
    assert draw_views(SMALL_PAPER, 32, 0, 0, np.arange(5000)).tops.max() == 8


@pytest.mark.parametrize("augmentation", [PAPER, SOURCE2012])
def test_a_place_s_draws_depend_on_seed_epoch_and_place_alone(augmentation):
    def drawn(places, seed=3, epoch=4):
        return np.stack(draw_views(augmentation, 256, seed, epoch, places))

    places = np.arange(3000)
    whole = drawn(places)
    for size in (1000, 128, 96):
        assert np.array_equal(np.concatenate([drawn(places[i : i + size]) for i in range(0, 3000, size)], 1), whole)
    order = np.random.default_rng(0).permutation(3000)
    assert np.array_equal(drawn(order), whole[:, order])
    assert np.array_equal(drawn(np.array([2999])), whole[:, 2999:])
    for other in (drawn(places, seed=4), drawn(places, epoch=5)):
        assert abs(np.corrcoef(other[0], whole[0])[0, 1]) < 0.4


def test_32_consecutive_images_share_a_decision_in_the_2012_source_and_none_in_the_paper():
    views = np.stack(draw_views(SOURCE2012, 256, 0, 0, np.arange(32 * 200))).reshape(3, 200, 32)
    assert (views == views[:, :, :1]).all()
    assert len({tuple(decision) for decision in views[:, :, 0].T.tolist()}) > 180  # 191 expected of 200 among 2178
    batch = np.stack(draw_views(SOURCE2012, 256, 0, 0, 128 + np.arange(128)))
    assert np.array_equal(batch, views[:, 4:8].reshape(3, 128))  # four decisions for a batch
    alone = np.stack(draw_views(PAPER, 256, 0, 0, np.arange(6400)))
    assert (alone[:, 1:] == alone[:, :-1]).all(0).mean() < 0.005


def test_the_principal_components_of_ilsvrc_are_found_again():
    axes = colour_axes(COVARIANCE)
    stdevs = np.linalg.norm(axes, axis=0)
    np.testing.assert_allclose(stdevs, STDEVS, atol=0.01)  # the vectors are printed with five digits
    vectors, signs = axes / stdevs, np.array([-1, -1, -1])  # largest component positive: all three are the other way round
    np.testing.assert_allclose(vectors, VECTORS * signs, atol=5e-5)
    np.testing.assert_allclose(axes @ axes.T, COVARIANCE, rtol=1e-9)


@pytest.mark.parametrize(("literal", "grey_levels"), [(False, 12.2), (True, 1483.0)])
def test_the_noise_on_the_main_axis(literal, grey_levels):
    """Deviations give 12 grey levels; the eigenvalues that the paper names would leave nothing of the photograph."""
    axes = colour_axes(COVARIANCE, literal)
    assert abs(0.1 * np.linalg.norm(axes[:, 2]) - grey_levels) < 0.005 * grey_levels
    n = 20_000
    noise = draw_colours(axes, PAPER, 0, 0, np.arange(n)).astype(np.float64)
    along = noise @ colour_axes(COVARIANCE)[:, 2] / STDEVS[2]
    assert abs(along.std() / grey_levels - 1) < 4 / (2 * n) ** 0.5 + 0.005
    assert np.linalg.norm(noise.mean(0)) < 4 * grey_levels / n**0.5
    if not literal:
        np.testing.assert_allclose(np.cov(noise.T), 0.01 * COVARIANCE, atol=0.05 * 0.01 * COVARIANCE.max())


def test_grey_photographs_get_grey_noise():
    axes = colour_axes(np.full((3, 3), 2500.0))
    assert np.isfinite(axes).all()
    np.testing.assert_allclose(axes[:, 2], 50)
    colours = draw_colours(axes, PAPER, 0, 0, np.arange(8))
    np.testing.assert_allclose(colours[:, 0], colours[:, 2], atol=1e-4)
