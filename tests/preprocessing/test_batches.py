import numpy as np
import pytest
import torch

from alexnet import randomness
from alexnet.preprocessing import cutting, store
from alexnet.preprocessing.batches import Batches, CroppedBatches


def test_an_epoch_shows_every_image_once_minus_the_mean_and_never_scaled(tiny):
    batches = Batches(tiny, "train")
    images = torch.cat([x for x, _ in batches.epoch(seed=0, epoch=0, batch_size=32)])
    assert images.shape == (300, 3, 32, 32)
    centred = tiny.splits["train"].images.astype(np.float64) - tiny.mean
    np.testing.assert_allclose(np.sort(images.numpy().ravel()), np.sort(centred.ravel()), atol=1e-4)


def test_images_and_labels_stay_together(tiny):
    batches = Batches(tiny, "train")
    for x, y in batches.epoch(seed=5, epoch=2, batch_size=32):
        for image, label in zip(x, y, strict=True):
            pixels = (image.permute(1, 2, 0) + torch.from_numpy(tiny.mean)).round().to(torch.uint8).numpy()
            places = np.flatnonzero((tiny.splits["train"].images == pixels).all((1, 2, 3)))
            assert tiny.splits["train"].labels[places].tolist() == [label]


def test_a_batch_is_a_function_of_seed_epoch_and_step(tiny):
    batches = Batches(tiny, "train")
    whole = list(batches.epoch(seed=1, epoch=3, batch_size=32))
    later = list(batches.epoch(seed=1, epoch=3, batch_size=32, first_step=4))
    assert len(whole) == batches.steps_per_epoch(32) == 10
    assert len(whole[-1][1]) == 300 - 9 * 32
    for (x, y), (x_later, y_later) in zip(whole[4:], later, strict=True):
        assert torch.equal(x, x_later)
        assert torch.equal(y, y_later)
    assert not torch.equal(whole[0][1], next(batches.epoch(seed=1, epoch=4, batch_size=32))[1])


def test_images_come_in_channels_last_layout(tiny):
    x, _ = Batches(tiny, "test").take(slice(0, 8))
    assert x.is_contiguous(memory_format=torch.channels_last)


@pytest.fixture
def photographs(tmp_path):
    """70 training images of 40 pixels and 23 for validation, opened as a set."""
    rng = np.random.default_rng(3)
    for split, count in (("train", 70), ("val", 23)):
        images = rng.integers(0, 256, (count, 40, 40, 3), dtype=np.uint8)
        store.fill_split(tmp_path / "data" / "photos" / split, np.arange(count) % 2, 40, lambda i, images=images: images[i])
    store.finish_set(tmp_path / "data" / "photos", ("a", "b"), ("train", "val"), stand_in=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALEXNET_DATA", str(tmp_path / "data"))
        return store.open_set("photos")


def test_parts_of_a_batch_are_its_rows_in_order(photographs):
    """Of batches of 32, 32 and 6 images, for two and three replicas."""
    batches = CroppedBatches(photographs, "train", "source2012", crop_side=32)
    whole = list(batches.epoch(seed=1, epoch=2, batch_size=32))
    for parts in (2, 3):
        shares = [list(batches.epoch(seed=1, epoch=2, batch_size=32, part=(r, parts))) for r in range(parts)]
        for (x, y), *own in zip(whole, *shares, strict=True):
            assert torch.equal(torch.cat([images for images, _ in own]), x)
            assert torch.equal(torch.cat([labels for _, labels in own]), y)


def test_cropped_batches_are_windows_of_the_right_images(photographs):
    """With the central mean of 2012 and no noise, an image plus the mean is a window of its photograph, mirrored or not."""
    images, labels = photographs.splits["train"].images, photographs.splits["train"].labels
    windows = {
        images[i, top : top + 32, left : left + 32][:, ::step].tobytes(): i
        for i in range(len(images))
        for top in range(9)
        for left in range(9)
        for step in (1, -1)
    }
    central, seen = photographs.mean[4:36, 4:36], []
    for x, y in CroppedBatches(photographs, "train", "source2012", 32).epoch(0, 0, 32, colour_noise=False):
        pixels = (x.permute(0, 2, 3, 1).numpy() + central).round().astype(np.uint8)
        found = [windows[image.tobytes()] for image in pixels]
        assert labels[found].tolist() == y.tolist()
        seen += found
    assert sorted(seen) == list(range(70))


def test_colour_noise_is_one_colour_an_image_and_then_a_division(photographs):
    quiet, noisy = (
        torch.cat([x for x, _ in CroppedBatches(photographs, "train", "source2012", 32).epoch(4, 1, 32, colour_noise=on)])
        for on in (False, True)
    )
    added = noisy * 1.1 - quiet
    assert torch.allclose(added, added[:, :, :1, :1].expand_as(added), atol=1e-3)
    assert added[:, :, 0, 0].std() > 1


def test_a_later_start_needs_nothing_of_what_came_before(photographs):
    batches = CroppedBatches(photographs, "train", "paper", crop_side=32)
    whole, later = list(batches.epoch(1, 3, 32)), list(batches.epoch(1, 3, 32, first_step=1))
    assert all(torch.equal(x, y) for (x, _), (y, _) in zip(whole[1:], later, strict=True))


def test_test_images_have_ten_views_or_the_central_one_and_parts_take_whole_batches(photographs):
    batches = CroppedBatches(photographs, "val", "paper", crop_side=32)
    one = list(batches.views_in_order(8, ten=False))
    ten = list(batches.views_in_order(8, ten=True))
    assert [len(labels) for _, labels in one] == [8, 8, 7]
    assert [len(views) for views, _ in ten] == [10, 10, 10]
    centred = photographs.splits["val"].images[8:16, 4:36, 4:36] - photographs.mean[4:36, 4:36]
    np.testing.assert_allclose(one[1][0][0].permute(0, 2, 3, 1), centred, atol=1e-4)
    assert any(torch.equal(view, one[1][0][0]) for view in ten[1][0])
    shares = [labels for r in range(2) for _, labels in batches.views_in_order(8, ten=False, part=(r, 2))]
    assert [len(labels) for labels in shares] == [8, 7, 8]


def test_central_views_do_not_change_from_epoch_to_epoch(photographs):
    batches = CroppedBatches(photographs, "train", "central", crop_side=32)
    (first, _), (second, _) = (next(batches.epoch(0, epoch, batch_size=70)) for epoch in (0, 1))
    assert torch.equal(first.flatten(1).sort(0)[0], second.flatten(1).sort(0)[0])


def test_batches_made_in_the_background_are_those_made_at_once(photographs):
    batches = CroppedBatches(photographs, "train", "source2012", crop_side=32)
    order = randomness.batch_order(3, 1, len(batches))
    for step, (x, labels) in enumerate(batches.epoch(3, 1, 20)):
        places = np.arange(20 * step, 20 * step + len(labels))
        how = batches.images, order[places], batches.mean, batches.axes, batches.augmentation
        assert torch.equal(x, cutting.augment(*how, 3, 1, places))
