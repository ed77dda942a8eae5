"""Crops, mirror images, colour noise and the ten views, against slices by hand and loops in float64."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from alexnet import randomness
from alexnet.preprocessing.views import (
    PAPER,
    SOURCE2012,
    Views,
    add_colour_noise,
    augment,
    colour_axes,
    cut,
    draw_views,
    fixed_views,
)

# The colours of ILSVRC's training pixels as the 2014 source stores them: eigenvectors are columns.
STDEVS = np.array([19.7208, 37.0939, 121.7801])
VECTORS = np.array([[0.41796, -0.71258, -0.56351], [-0.81698, -0.02354, -0.57618], [0.39731, 0.70120, -0.59200]])
COVARIANCE = VECTORS * STDEVS**2 @ VECTORS.T
SMALL_PAPER, SMALL_SOURCE = replace(PAPER, crop_side=24), replace(SOURCE2012, crop_side=24)


@pytest.fixture(scope="module")
def photographs():
    return np.random.default_rng(1).integers(0, 256, (50, 32, 32, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def mean():
    return np.random.default_rng(2).uniform(0, 255, (32, 32, 3)).astype(np.float32)


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
    assert len(set(zip(*(part.tolist() for part in drawn), strict=True))) == PAPER.num_views() == 33 * 33 * 2 == 2178
    assert SMALL_PAPER.num_views(image_side=32) == 9 * 9 * 2
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


def test_a_crop_by_hand():
    picture = np.arange(48, dtype=np.uint8).reshape(1, 4, 4, 3)  # value 12 y + 3 x + c
    small = replace(PAPER, crop_side=2)
    views = Views(np.array([1, 1]), np.array([2, 2]), np.array([False, True]))
    ones = np.ones((4, 4, 3), np.float32)
    x = cut(picture, np.array([0, 0]), views, ones, small)
    assert x[0, 0].tolist() == [[17, 20], [29, 32]]
    assert x[1, 2].tolist() == [[22, 19], [34, 31]]


@pytest.mark.parametrize(("window", "start", "mirrored"), [("own", 5, True), ("central", 4, False)])
def test_which_part_of_the_mean_is_subtracted(window, start, mirrored, mean):
    """The paper subtracts before it cuts, so the mean is cut and mirrored alike; the 2012 source has one window for all."""
    black = np.zeros((1, 32, 32, 3), np.uint8)
    views = Views(np.array([5, 5]), np.array([5, 5]), np.array([False, True]))
    plain, flipped = cut(black, [0, 0], views, mean, replace(SMALL_PAPER, mean_window=window)).permute(0, 2, 3, 1).numpy()
    expected = -mean[start : start + 24, start : start + 24]
    assert np.array_equal(plain, expected)
    assert np.array_equal(flipped, expected[:, ::-1] if mirrored else expected)


def test_crops_of_a_memory_mapped_file_are_the_same(photographs, mean, tmp_path):
    np.save(tmp_path / "images.npy", photographs)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    views = draw_views(SMALL_PAPER, 32, 0, 0, np.arange(50))
    x = cut(mapped, torch.arange(50).flip(0), views, mean, SMALL_PAPER)
    assert torch.equal(x, cut(photographs, np.arange(50)[::-1], views, mean, SMALL_PAPER))
    assert x.shape == (50, 3, 24, 24)
    assert x.dtype == torch.float32
    assert x.is_contiguous(memory_format=torch.channels_last)


def test_wrong_sizes_are_refused(photographs, mean):
    with pytest.raises(ValueError, match=r"`crop_side` \(=224\) must not exceed the side of the images \(=32\)"):
        draw_views(PAPER, 32, 0, 0, np.arange(4))
    views = draw_views(SMALL_PAPER, 32, 0, 0, np.arange(4))
    with pytest.raises(ValueError, match="must have the shape of one image"):
        cut(photographs, np.arange(4), views, mean[:24, :24], SMALL_PAPER)


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
    x = add_colour_noise(torch.zeros(n, 3, 1, 1), axes, PAPER, 0, 0, np.arange(n))
    noise = x[:, :, 0, 0].double().numpy()
    along = noise @ colour_axes(COVARIANCE)[:, 2] / STDEVS[2]
    assert abs(along.std() / grey_levels - 1) < 4 / (2 * n) ** 0.5 + 0.005
    assert np.linalg.norm(noise.mean(0)) < 4 * grey_levels / n**0.5
    if not literal:
        np.testing.assert_allclose(np.cov(noise.T), 0.01 * COVARIANCE, atol=0.05 * 0.01 * COVARIANCE.max())


def test_grey_photographs_get_grey_noise():
    axes = colour_axes(np.full((3, 3), 2500.0))
    assert np.isfinite(axes).all()
    np.testing.assert_allclose(axes[:, 2], 50)
    x = add_colour_noise(torch.zeros(8, 2, 2, 3).permute(0, 3, 1, 2), axes, PAPER, 0, 0, np.arange(8))
    np.testing.assert_allclose(x[:, 0], x[:, 2], atol=1e-4)


def reference(photographs, indices, mean, augmentation, seed, epoch, places):
    """Compute what `augment` should give, in float64, pixel by pixel, each number looked up where it is defined to be."""
    side, result = augmentation.crop_side, []
    for index, place in zip(indices, places, strict=True):
        decision = place // augmentation.images_per_decision
        block, row = decision // 1024, decision % 1024
        top, left = randomness.generator(seed, "crop", epoch, block).integers(0, 32 - side + 1, (1024, 2))[row]
        flip = randomness.generator(seed, "flip", epoch, block).integers(0, 2, 1024)[row]
        draws = randomness.generator(seed, "colour-noise", epoch, place // 1024).standard_normal((1024, 3))[place % 1024]
        noise = augmentation.noise * colour_axes(COVARIANCE) @ draws
        image = np.zeros((3, side, side))
        for y in range(side):
            for x in range(side):
                source = left + (side - 1 - x if flip else x)
                centre = (32 - side) // 2
                at = (top + y, source) if augmentation.mean_window == "own" else (centre + y, centre + x)
                image[:, y, x] = photographs[index, top + y, source] - mean[at].astype(np.float64) + noise
        result.append(image / (1 + augmentation.noise if augmentation.divide else 1))
    return np.stack(result)


@pytest.mark.parametrize("augmentation", [SMALL_PAPER, SMALL_SOURCE, replace(SMALL_SOURCE, noise=0.0)])
def test_a_training_batch_equals_loops_in_float64(augmentation, photographs, mean):
    indices, places = np.array([3, 41, 7, 7, 0, 12, 30, 29, 5, 6]), 1020 + np.arange(10)  # two blocks, two chunks
    x = augment(photographs, indices, mean, colour_axes(COVARIANCE), augmentation, 5, 6, places)
    expected = reference(photographs, indices, mean, augmentation, 5, 6, places)
    np.testing.assert_allclose(x, expected, atol=1e-4)
    assert x.is_contiguous(memory_format=torch.channels_last)
    halves = [
        augment(photographs, indices[h], mean, colour_axes(COVARIANCE), augmentation, 5, 6, places[h])
        for h in (slice(0, 3), slice(3, 10))
    ]
    assert torch.equal(torch.cat(halves), x)  # to the bit, whatever the batch size


def test_noise_that_is_off_leaves_the_pixels_as_they_are(photographs, mean):
    off, places = replace(SMALL_SOURCE, noise=0.0), np.arange(50)
    views = draw_views(off, 32, 0, 0, places)
    x = augment(photographs, places, mean, colour_axes(COVARIANCE), off, 0, 0, places)
    assert torch.equal(x, cut(photographs, places, views, mean, off))


@pytest.mark.parametrize(("side", "crop"), [(256, 224), (32, 24)])
@pytest.mark.parametrize("preset", [PAPER, SOURCE2012])
def test_ten_views_are_corners_and_centre_and_their_mirror_images(side, crop, preset):
    pictures = np.random.default_rng(0).integers(0, 256, (3, side, side, 3)).astype(np.uint8)
    average = np.random.default_rng(1).uniform(0, 255, (side, side, 3)).astype(np.float32)
    views = list(fixed_views(pictures, np.array([2, 0]), average, replace(preset, crop_side=crop)))
    far, mid = side - crop, (side - crop) // 2
    assert (far, mid) in ((32, 16), (8, 4))
    assert len(views) == 10
    for k, (top, left) in enumerate([(0, 0), (0, far), (mid, mid), (far, 0), (far, far)]):
        pixels = pictures[[2, 0], top : top + crop, left : left + crop].astype(np.float32)
        own, central = average[top : top + crop, left : left + crop], average[mid : mid + crop, mid : mid + crop]
        plain, flipped = (x.permute(0, 2, 3, 1).numpy() for x in (views[k], views[5 + k]))
        if preset is PAPER:
            assert np.array_equal(plain, pixels - own)
            assert np.array_equal(flipped, (pixels - own)[:, :, ::-1])
        else:  # not divided by 1.1 either
            assert np.array_equal(plain, pixels - central)
            assert np.array_equal(flipped, pixels[:, :, ::-1] - central)
    one = list(fixed_views(pictures, np.array([2, 0]), average, replace(preset, crop_side=crop), ten=False))
    assert len(one) == 1
    assert torch.equal(one[0], views[2])
