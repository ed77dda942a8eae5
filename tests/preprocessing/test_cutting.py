"""Crops, mirror images, coloured batches and the ten views, against slices by hand and loops in float64."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from alexnet import compiled, randomness
from alexnet.preprocessing import cutting
from alexnet.preprocessing.cutting import augment, cut, fixed_views
from alexnet.preprocessing.views import PAPER, SOURCE2012, Views, colour_axes, draw_colours, draw_views

COVARIANCE = np.array([[3000.0, 2500, 2200], [2500, 2900, 2400], [2200, 2400, 3100]])
SMALL_PAPER, SMALL_SOURCE = replace(PAPER, crop_side=24), replace(SOURCE2012, crop_side=24)


@pytest.fixture(scope="module")
def photographs():
    return np.random.default_rng(1).integers(0, 256, (50, 32, 32, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def mean():
    return np.random.default_rng(2).uniform(0, 255, (32, 32, 3)).astype(np.float32)


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


def test_a_whole_image_that_is_mirrored_takes_the_mirrored_mean_with_it(photographs, mean):
    whole, one = replace(PAPER, crop_side=32), np.zeros(1, np.int64)
    x = cut(photographs, one, Views(one, one, one == 0), mean, whole)
    expected = photographs[0].astype(np.float32) - mean
    assert np.array_equal(x[0].permute(1, 2, 0), expected[:, ::-1])


@pytest.mark.parametrize("augmentation", [SMALL_PAPER, SMALL_SOURCE, PAPER])
def test_a_mirrored_crop_of_any_size_is_mirrored_whole(augmentation):
    side = augmentation.crop_side
    pictures = np.random.default_rng(4).integers(0, 256, (1, side + 8, side + 8, 3)).astype(np.uint8)
    views = Views(*(np.array([value]) for value in (3, 5, True)))
    x = cut(pictures, np.array([0]), views, np.zeros(pictures.shape[1:], np.float32), augmentation)
    assert np.array_equal(x[0].permute(1, 2, 0), pictures[0, 3 : 3 + side, 5 : 5 + side][:, ::-1])


@pytest.mark.parametrize("augmentation", [SMALL_PAPER, SMALL_SOURCE])
def test_what_is_done_on_a_device_gives_the_same_bits(augmentation, photographs, mean):
    places = np.arange(50)
    views = draw_views(augmentation, 32, 0, 0, places)
    colours = draw_colours(colour_axes(COVARIANCE), augmentation, 0, 0, places)
    x = cutting._cut_for(torch.device("cpu"), photographs, places, views, mean, augmentation)
    assert torch.equal(x, cut(photographs, places, views, mean, augmentation))
    coloured = cutting.add_colours(x.clone(memory_format=torch.channels_last), colours, augmentation)
    assert torch.equal(coloured, cut(photographs, places, views, mean, augmentation, colours))


@pytest.mark.parametrize("augmentation", [SMALL_PAPER, SMALL_SOURCE, replace(SMALL_SOURCE, noise=0.0)])
def test_with_or_without_a_compiler_a_batch_has_the_same_bits(augmentation, photographs, mean, monkeypatch):
    arguments = (photographs, np.arange(20), mean, colour_axes(COVARIANCE), augmentation, 0, 0, np.arange(20))
    fast = augment(*arguments)
    monkeypatch.setattr(compiled, "library", lambda: (None, "no compiler"))
    assert torch.equal(augment(*arguments), fast)


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


def test_images_that_must_be_decoded_are_decoded_once_for_ten_views(photographs, mean):
    class Encoded:
        shape, decoded = photographs.shape, []

        def __getitem__(self, numbers):
            self.decoded.extend(numbers.tolist())
            return photographs[numbers]

    images, indices = Encoded(), np.array([7, 3, 7])
    views = list(fixed_views(images, indices, mean, SMALL_PAPER))
    assert all(torch.equal(*pair) for pair in zip(views, fixed_views(photographs, indices, mean, SMALL_PAPER), strict=True))
    assert images.decoded == [7, 3, 7]
