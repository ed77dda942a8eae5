"""Batches of whole images and of crops, against slices by hand and loops in float64."""

import os
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from alexnet import randomness
from alexnet.preprocessing import loader, prepared_set
from alexnet.preprocessing.augment import CIFAR_CROPS, PAPER, SOURCE2012, Views, colour_axes, draw_colours, draw_views
from alexnet.preprocessing.loader import Batches, crop

COVARIANCE = np.array([[3000.0, 2500, 2200], [2500, 2900, 2400], [2200, 2400, 3100]])
SMALL_PAPER, SMALL_SOURCE = replace(PAPER, crop_side=24), replace(SOURCE2012, crop_side=24)


@pytest.fixture(scope="module")
def pictures():
    return np.random.default_rng(1).integers(0, 256, (50, 32, 32, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def mean():
    return np.random.default_rng(2).uniform(0, 255, (32, 32, 3)).astype(np.float32)


@pytest.fixture
def photographs(tmp_path, monkeypatch):
    """130 training images of 32 pixels and 23 for validation, opened as a set."""
    rng = np.random.default_rng(3)
    monkeypatch.setenv("ALEXNET_DATA", str(tmp_path / "data"))
    for split, count in (("train", 130), ("val", 23)):
        images = rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        prepared_set.write_split(tmp_path / "data" / "photos" / split, images, np.arange(count) % 2)
    prepared_set.finish_set(tmp_path / "data" / "photos", ("a", "b"), ("train", "val"), stand_in=True)
    return prepared_set.open_set("photos")


def test_an_epoch_shows_every_image_once_minus_the_mean_and_never_scaled(photographs):
    images = torch.cat([x for x, _ in Batches(photographs, "train", None).epoch(seed=0, epoch=0, batch_size=32)])
    assert images.shape == (130, 3, 32, 32)
    centred = photographs.splits["train"].images.astype(np.float64) - photographs.mean
    np.testing.assert_allclose(np.sort(images.numpy().ravel()), np.sort(centred.ravel()), atol=1e-4)


def test_the_order_of_an_epoch_is_pinned(photographs):
    """So that a run recorded today can be repeated after an upgrade, or the upgrade is noticed."""
    (shown, _), *_ = Batches(photographs, "train", None).epoch(seed=0, epoch=0, batch_size=32)
    pixels = (shown.permute(0, 2, 3, 1).numpy() + photographs.mean).round().astype(np.uint8)
    images = photographs.splits["train"].images
    order = [int(np.flatnonzero((images == each).all((1, 2, 3)))[0]) for each in pixels[:6]]
    assert order == [75, 103, 122, 20, 99, 45]


def test_images_and_labels_stay_together_and_come_in_channels_last_layout(photographs):
    train = photographs.splits["train"]
    for x, y in Batches(photographs, "train", None).epoch(seed=5, epoch=2, batch_size=32):
        assert x.is_contiguous(memory_format=torch.channels_last)
        for image, label in zip(x, y, strict=True):
            pixels = (image.permute(1, 2, 0) + torch.from_numpy(photographs.mean)).round().to(torch.uint8).numpy()
            places = np.flatnonzero((train.images == pixels).all((1, 2, 3)))
            assert train.labels[places].tolist() == [label]


@pytest.mark.parametrize("augmentation", [None, CIFAR_CROPS, SMALL_SOURCE])
def test_a_batch_is_a_function_of_seed_epoch_and_step(photographs, augmentation):
    made = Batches(photographs, "train", augmentation)
    whole = list(made.epoch(seed=1, epoch=3, batch_size=32))
    later = list(made.epoch(seed=1, epoch=3, batch_size=32, first_step=2))
    assert len(whole) == 5
    assert len(whole[-1][1]) == 130 - 4 * 32
    for (x, y), (x_later, y_later) in zip(whole[2:], later, strict=True):
        assert torch.equal(x, x_later)
        assert torch.equal(y, y_later)
    assert not torch.equal(whole[0][1], next(made.epoch(seed=1, epoch=4, batch_size=32))[1])


@pytest.mark.parametrize("augmentation", [None, SMALL_PAPER, SMALL_SOURCE])
@pytest.mark.parametrize("parts", [2, 3])
def test_parts_of_a_batch_are_its_rows_in_order_also_where_a_part_has_none(photographs, augmentation, parts):
    """Of batches of 64, 64 and 2 images: the first of three replicas has no image of the last."""
    made = Batches(photographs, "train", augmentation)
    whole = list(made.epoch(seed=1, epoch=2, batch_size=64))
    shares = [list(made.epoch(seed=1, epoch=2, batch_size=64, part=(r, parts))) for r in range(parts)]
    for (x, y), *own in zip(whole, *shares, strict=True):
        assert torch.equal(torch.cat([images for images, _ in own]), x)
        assert torch.equal(torch.cat([labels for _, labels in own]), y)
    assert [len(share[-1][1]) for share in shares] == ([1, 1] if parts == 2 else [0, 1, 1])


def test_no_rows_have_no_draws(mean):
    none = np.arange(0)
    assert [len(column) for column in draw_views(SMALL_PAPER, 32, 0, 0, none)] == [0, 0, 0]
    assert draw_colours(colour_axes(COVARIANCE), SMALL_PAPER, 0, 0, none).shape == (0, 3)
    assert crop(iter(()), draw_views(SMALL_PAPER, 32, 0, 0, none), mean, SMALL_PAPER).shape == (0, 3, 24, 24)


def test_a_batch_that_is_held_is_not_written_over_and_one_that_is_let_go_is(photographs):
    made = Batches(photographs, "train", SMALL_PAPER)
    held = [x for x, _ in made.epoch(0, 0, 13)]
    copies = [x.clone() for x in held]
    again = [x.sum() for x, _ in made.epoch(0, 1, 13)]
    assert len(again) == 10
    assert all(torch.equal(*pair) for pair in zip(held, copies, strict=True))
    assert sum(map(len, made._free.values())) < 4


def test_random_crops_are_parts_of_the_right_images(photographs):
    """With the central mean of 2012 and no noise, an image plus the mean is a crop of its photograph, flipped or not."""
    images, labels = photographs.splits["train"].images, photographs.splits["train"].labels
    crops = {
        images[i, top : top + 24, left : left + 24][:, ::step].tobytes(): i
        for i in range(len(images))
        for top in range(9)
        for left in range(9)
        for step in (1, -1)
    }
    central, seen = photographs.mean[4:28, 4:28], []
    for x, y in Batches(photographs, "train", SMALL_SOURCE).epoch(0, 0, 32, colour_noise=False):
        pixels = (x.permute(0, 2, 3, 1).numpy() + central).round().astype(np.uint8)
        found = [crops[image.tobytes()] for image in pixels]
        assert labels[found].tolist() == y.tolist()
        seen += found
    assert sorted(seen) == list(range(130))


def test_colour_noise_is_one_colour_an_image_and_then_a_division(photographs):
    quiet, noisy = (
        torch.cat([x for x, _ in Batches(photographs, "train", SMALL_SOURCE).epoch(4, 1, 32, colour_noise=on)])
        for on in (False, True)
    )
    added = noisy * 1.1 - quiet
    assert torch.allclose(added, added[:, :, :1, :1].expand_as(added), atol=1e-3)
    assert added[:, :, 0, 0].std() > 1


def test_central_views_do_not_change_from_epoch_to_epoch(photographs):
    made = Batches(photographs, "train", replace(SMALL_PAPER, random=False, noise=0.0))
    (first, _), (second, _) = (next(made.epoch(0, epoch, batch_size=130)) for epoch in (0, 1))
    assert torch.equal(first.flatten(1).sort(0)[0], second.flatten(1).sort(0)[0])


def test_parts_of_test_images_are_whole_batches(photographs):
    made = Batches(photographs, "val", SMALL_PAPER)
    assert [len(labels) for _, labels in made.in_order(8)] == [8, 8, 7]
    shares = [labels for r in range(2) for _, labels in made.in_order(8, part=(r, 2))]
    assert [len(labels) for labels in shares] == [8, 7, 8]


@pytest.mark.parametrize("augmentation", [SMALL_PAPER, SMALL_SOURCE, CIFAR_CROPS])
def test_ten_views_and_the_grid_are_where_the_2012_source_has_them(photographs, augmentation):
    """Neither noise nor a division; the grid has no flips (convdata_cifar.py:82-88)."""
    made = Batches(photographs, "val", augmentation)
    pixels, average = photographs.splits["val"].images[8:16].astype(np.float32), photographs.mean
    ten, nine, one = (
        [v.permute(0, 2, 3, 1).numpy() for v in list(made.in_order(8, w))[1][0]] for w in ("ten", "grid", "central")
    )
    assert (len(ten), len(nine), len(one)) == (10, 9, 1)

    def shown(top, left, flip):
        image, start = pixels[:, top : top + 24, left : left + 24], (top, left)
        if augmentation.mean_crop == "central":
            return image[:, :, :: -1 if flip else 1] - average[4:28, 4:28]
        return (image - average[start[0] : start[0] + 24, start[1] : start[1] + 24])[:, :, :: -1 if flip else 1]

    for k, (top, left) in enumerate([(0, 0), (0, 8), (4, 4), (8, 0), (8, 8)]):
        assert np.array_equal(ten[k], shown(top, left, False))
        assert np.array_equal(ten[5 + k], shown(top, left, True))
    for k, view in enumerate(nine):
        assert np.array_equal(view, shown(4 * (k // 3), 4 * (k % 3), False))
    assert np.array_equal(one[0], ten[2])


@pytest.mark.parametrize(("augmentation", "views"), [(None, "ten"), (None, "central"), (SMALL_PAPER, "whole")])
def test_views_that_do_not_fit_the_augmentation_are_refused(photographs, augmentation, views):
    with pytest.raises(ValueError, match=f"`views` .*{views}.* do not fit images that the net sees"):
        next(Batches(photographs, "val", augmentation).in_order(8, views))


def test_an_image_kept_as_a_jpeg_is_decoded_once_for_all_views(photographs, tmp_path, monkeypatch):
    val = photographs.splits["val"]
    encoded = [prepared_set.encode(image) for image in val.images]
    (tmp_path / "images.jpegs").write_bytes(b"".join(encoded))
    offsets = np.cumsum([0, *map(len, encoded)])
    kept = prepared_set.JpegImages(tmp_path / "images.jpegs", offsets, 32)
    split = replace(photographs, splits={"val": prepared_set.Split(kept, val.labels)})
    decoded = replace(photographs, splits={"val": prepared_set.Split(kept[:], val.labels)})
    for (views, y), (expected, labels) in zip(
        Batches(split, "val", SMALL_PAPER).in_order(8, "ten"),
        Batches(decoded, "val", SMALL_PAPER).in_order(8, "ten"),
        strict=True,
    ):
        assert all(torch.equal(*pair) for pair in zip(views, expected, strict=True))
        assert torch.equal(y, labels)
    counted, decode = [], prepared_set.decode
    monkeypatch.setattr(prepared_set, "decode", lambda data: counted.append(1) or decode(data))
    assert len(list(Batches(split, "val", SMALL_PAPER).in_order(8, "ten"))) == 3
    assert len(counted) == 23


def test_a_crop_by_hand():
    picture = np.arange(48, dtype=np.uint8).reshape(1, 4, 4, 3)  # value 12 y + 3 x + c
    views = Views(np.array([1, 1]), np.array([2, 2]), np.array([False, True]))
    x = crop(picture[[0, 0]], views, np.ones((4, 4, 3), np.float32), replace(PAPER, crop_side=2))
    assert x[0, 0].tolist() == [[17, 20], [29, 32]]
    assert x[1, 2].tolist() == [[22, 19], [34, 31]]


@pytest.mark.parametrize(("which", "start", "flipped_too"), [("own", 5, True), ("central", 4, False)])
def test_which_part_of_the_mean_is_subtracted(which, start, flipped_too, mean):
    """The paper subtracts before it crops, so the mean is cropped and flipped alike; the 2012 source has one for all."""
    views = Views(np.array([5, 5]), np.array([5, 5]), np.array([False, True]))
    black = np.zeros((2, 32, 32, 3), np.uint8)
    plain, flipped = crop(black, views, mean, replace(SMALL_PAPER, mean_crop=which)).permute(0, 2, 3, 1).numpy()
    expected = -mean[start : start + 24, start : start + 24]
    assert np.array_equal(plain, expected)
    assert np.array_equal(flipped, expected[:, ::-1] if flipped_too else expected)


def test_crops_larger_than_the_images_are_refused(photographs):
    message = r"`crop_side` \(=224\) must not exceed the side of the images \(=32\)"
    with pytest.raises(ValueError, match=message):
        draw_views(PAPER, 32, 0, 0, np.arange(4))
    with pytest.raises(ValueError, match=message):
        Batches(photographs, "train", PAPER)


def reference(pictures, indices, mean, augmentation, seed, epoch, places):
    """Compute what the net should see, in float64, pixel by pixel, each number looked up where it is defined to be."""
    side, result = augmentation.crop_side, []
    for index, place in zip(indices, places, strict=True):
        decision = place // augmentation.images_per_decision
        block, row = decision // 1024, decision % 1024
        top, left = randomness.generator(seed, "crop", epoch, block).integers(0, 32 - side + 1, (1024, 2))[row]
        flip = randomness.generator(seed, "flip", epoch, block).integers(0, 2, 1024)[row]
        draws = randomness.generator(seed, "colour-noise", epoch, place // 1024).standard_normal((1024, 3))[place % 1024]
        colour = augmentation.noise * (colour_axes(COVARIANCE) @ draws)
        image = np.empty((side, side, 3))
        for y in range(side):
            for x in range(side):
                across = side - 1 - x if flip else x
                middle = (32 - side) // 2
                own = mean[top + y, left + across] if augmentation.mean_crop == "own" else mean[middle + y, middle + x]
                image[y, x] = pictures[index, top + y, left + across] - own.astype(np.float64) + colour
        result.append(image / (1 + augmentation.noise if augmentation.divide else 1))
    return np.stack(result)


@pytest.mark.parametrize("augmentation", [SMALL_PAPER, SMALL_SOURCE, CIFAR_CROPS, replace(SOURCE2012, crop_side=21)])
@pytest.mark.parametrize("at_once", [False, True], ids=["one by one", "at once"])
def test_training_images_agree_with_a_loop_in_float64(pictures, mean, augmentation, at_once, monkeypatch):
    monkeypatch.setattr(loader, "BAND", 10)  # so that a crop has several, the last one shorter
    indices, places = np.array([7, 3, 7, 49, 0, 12]), np.array([1000, 1023, 1024, 40_000, 40_001, 31])
    views = draw_views(augmentation, 32, 5, 2, places)
    colours = draw_colours(colour_axes(COVARIANCE), augmentation, 5, 2, places)
    pixels = torch.from_numpy(pictures[indices]) if at_once else pictures[indices]
    x = crop(pixels, views, mean, augmentation, colours)
    expected = reference(pictures, indices, mean, augmentation, 5, 2, places)
    np.testing.assert_allclose(x.permute(0, 2, 3, 1), expected, atol=1e-4)


@pytest.mark.parametrize("augmentation", [SMALL_PAPER, SMALL_SOURCE, CIFAR_CROPS])
def test_what_a_device_crops_at_once_is_bit_for_bit_what_a_cpu_crops_one_by_one(pictures, mean, augmentation):
    places = np.arange(50)
    views, colours = (
        draw_views(augmentation, 32, 1, 1, places),
        draw_colours(colour_axes(COVARIANCE), augmentation, 1, 1, places),
    )
    one_by_one = crop(pictures, views, mean, augmentation, colours)
    at_once = crop(torch.from_numpy(pictures), views, mean, augmentation, colours)
    assert torch.equal(one_by_one, at_once)
    assert at_once.is_contiguous(memory_format=torch.channels_last)
    sizes = [crop(pictures[i : i + 7], Views(*(v[i : i + 7] for v in views)), mean, augmentation,
                  None if colours is None else colours[i : i + 7]) for i in range(0, 50, 7)]  # fmt: skip
    assert torch.equal(torch.cat(sizes), one_by_one)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a thread has no priority of its own")
def test_the_thread_that_makes_batches_gives_way_and_no_other_does(photographs, monkeypatch):
    made, seen, before = Batches(photographs, "train", SMALL_PAPER), [], os.getpriority(os.PRIO_PROCESS, 0)
    shown = made.shown
    monkeypatch.setattr(made, "shown", lambda *about: seen.append(os.getpriority(os.PRIO_PROCESS, 0)) or shown(*about))
    assert len(list(made.epoch(0, 0, 64))) == len(seen) == 3
    assert set(seen) == {19}
    assert os.getpriority(os.PRIO_PROCESS, 0) == before


def test_an_error_in_the_background_reaches_the_training(photographs, monkeypatch):
    made = Batches(photographs, "train", SMALL_PAPER)
    monkeypatch.setattr(loader, "crop", lambda *args, **options: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        next(made.epoch(0, 0, 32))


def test_a_training_without_crops_keeps_its_colour_noise(photographs):
    """So that the arm of section 4.1 differs in its crops and flips alone."""
    shown = [
        next(Batches(photographs, "train", replace(SMALL_PAPER, random=False, noise=noise)).epoch(0, 0, batch_size=130))[0]
        for noise in (0.1, 0.0)
    ]
    added = (shown[0] - shown[1]).flatten(2)
    assert added.abs().max() > 1
    assert torch.allclose(added, added[:, :, :1].expand_as(added), atol=1e-3), "one colour for all pixels of an image"
