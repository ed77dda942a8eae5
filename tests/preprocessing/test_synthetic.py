"""The embedded stand-in: the same bytes everywhere, natural-image-like, learnable by a net and not by a line."""

import hashlib

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from alexnet import model
from alexnet.config import CifarNet
from alexnet.preprocessing import synthetic
from alexnet.preprocessing.synthetic import LARGE, SMALL

SPECS = pytest.mark.parametrize("spec", [SMALL, LARGE], ids=lambda spec: spec.name)

FIRST_64 = {
    ("formula32", "train"): "e4570ce151ffa9394193e89d929c3bf0448430cf2e438361142aed07210968b4",
    ("formula32", "test"): "1b72f5d14628d505d4202c80eb77e745569632dc4903f5a51a6ffb9ff57ae5d1",
    ("formula256", "train"): "686a2c18579a88559c3ca84992f0d75574a9bc663b25f1f1dc1d4018bec70598",
    ("formula256", "test"): "3e173579f09af43dfa0c8642c559fc547bd91861f83989896ed674785dae3838",
}


@SPECS
@pytest.mark.parametrize("split", ["train", "test"])
def test_the_first_images_have_the_published_bytes(spec, split):
    images, _ = synthetic.generate(spec, split, 64)
    assert images.shape == (64, spec.side, spec.side, 3)
    assert images.dtype == np.uint8
    assert hashlib.sha256(images.tobytes()).hexdigest() == FIRST_64[spec.name, split]


@pytest.mark.parametrize(("spec", "count"), [(SMALL, 150), (LARGE, 6)], ids=["formula32", "formula256"])
def test_an_image_does_not_depend_on_how_many_are_made(spec, count):
    images, labels = synthetic.generate(spec, "train", count)
    part, part_labels = synthetic.generate(spec, "train", count // 2)
    assert np.array_equal(part, images[: count // 2])
    assert np.array_equal(part_labels, labels[: count // 2])


def test_no_two_images_are_equal_within_or_between_splits():
    images = [image.tobytes() for split in ("train", "val", "test") for image in synthetic.generate(SMALL, split, 128)[0]]
    assert len(set(images)) == 384


@SPECS
def test_every_class_has_as_many_images_as_the_next_and_a_name_in_words(spec):
    for count in (len(spec.classes), 3 * len(spec.classes)):
        labels = synthetic.generate(spec, "train", count)[1]
        assert labels.dtype == np.int64
        assert len(set(np.bincount(labels, minlength=len(spec.classes)).tolist())) == 1
    assert len(set(spec.classes)) == len(spec.classes) == {"formula32": 10, "formula256": 20}[spec.name]
    assert spec.classes[0] == "disc striped across"


def test_a_class_shows_what_its_name_says():
    """Stripes across change from row to row, stripes along from column to column."""
    images, labels = synthetic.generate(SMALL, "train", 600)
    centre = images[:, 10:22, 10:22].astype(np.float64).mean(axis=-1)
    down, right = (np.square(np.diff(centre, axis=axis)).mean(axis=(1, 2)) for axis in (1, 2))
    for k, name in enumerate(SMALL.classes):
        ratio = np.median(down[labels == k] / right[labels == k])
        assert (ratio > 1.5) if "across" in name else (ratio < 1 / 1.5), name


@pytest.mark.parametrize(("spec", "count"), [(SMALL, 300), (LARGE, 24)], ids=["formula32", "formula256"])
def test_the_power_spectrum_falls_as_in_natural_images(spec, count):
    """Photographs fall with an exponent of about 2 in power (1.6 to 2.6 between scenes): amplitude 1/f."""
    grey = synthetic.generate(spec, "train", count)[0].astype(np.float64).mean(axis=-1)
    window = np.hanning(spec.side)[:, None] * np.hanning(spec.side)[None, :]
    grey = (grey - grey.mean(axis=(1, 2), keepdims=True)) * window
    power = np.square(abs(np.fft.fft2(grey))).mean(axis=0)
    frequency = np.fft.fftfreq(spec.side) * spec.side
    radius = np.rint(np.hypot(frequency[:, None], frequency[None, :])).astype(int)
    places = np.arange(2, spec.side // 2)
    mean_power = np.array([power[radius == r].mean() for r in places])
    # Why bands: an octave has as much say as another, however many frequencies it holds.
    bands = np.floor(2 * np.log2(places)).astype(int)
    x, y = (np.array([v[bands == b].mean() for b in set(bands)]) for v in (np.log(places), np.log(mean_power)))
    slope = np.polyfit(x, y, 1)[0]
    assert -3.0 < slope < -1.4, slope


def test_a_net_learns_what_a_linear_classifier_of_the_pixels_cannot():
    train, test = (synthetic.generate(SMALL, split, count) for split, count in (("train", 4000), ("test", 500)))
    mean = train[0].mean(axis=0, dtype=np.float64).astype(np.float32)
    x, x_test = (torch.from_numpy(images - mean).permute(0, 3, 1, 2).contiguous() for images in (train[0], test[0]))
    y, y_test = torch.from_numpy(train[1]), torch.from_numpy(test[1])

    def test_error(net: nn.Module, rate: float, epochs: int) -> float:
        optimiser, order = torch.optim.Adam(net.parameters(), lr=rate), torch.Generator().manual_seed(0)
        for _ in range(epochs):
            for batch in torch.randperm(len(x), generator=order).split(64):
                optimiser.zero_grad()
                F.cross_entropy(net(x[batch]), y[batch]).backward()
                optimiser.step()
        with torch.no_grad():
            return (net(x_test).argmax(dim=1) != y_test).float().mean().item()

    line = nn.Sequential(nn.Flatten(), nn.Linear(32 * 32 * 3, 10))
    nn.init.zeros_(line[1].weight)
    net = model.build(CifarNet(width=0.5, first_sd=0.01), seed=0)
    linear_error, net_error = test_error(line, 3e-5, 8), test_error(net, 2e-3, 3)
    assert linear_error > 0.55
    assert net_error < 0.35
