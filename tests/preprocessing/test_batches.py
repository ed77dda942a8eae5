import numpy as np
import torch

from alexnet.preprocessing.batches import Batches


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
