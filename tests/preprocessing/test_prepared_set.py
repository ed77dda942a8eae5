"""A prepared set on disk: its statistics, its checksums, and what is kept when something goes wrong."""

import json

import numpy as np
import pytest

from alexnet.config import UserError
from alexnet.preprocessing import prepared_set

CLASSES = ("light", "dark")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("ALEXNET_DATA", str(tmp_path))
    monkeypatch.setattr(prepared_set, "CHUNK", 4)
    return tmp_path / "pictures"


def picture(i):
    return np.random.default_rng(i).integers(0, 256, (5, 5, 3)).astype(np.uint8)


def fill(folder):
    for split, count in (("train", 10), ("test", 6)):
        images = np.stack([picture(i) for i in range(count)])
        prepared_set.write_split(folder / split, images, np.repeat([0, 1], count // 2))
    prepared_set.finish_set(folder, CLASSES, ("train", "test"), stand_in=True)


def test_an_opened_set_holds_what_was_filled_in(folder):
    fill(folder)
    data = prepared_set.open_set("pictures")
    assert data.classes == CLASSES
    assert data.stand_in
    assert {split: len(part) for split, part in data.splits.items()} == {"train": 10, "test": 6}
    for i in range(10):
        assert np.array_equal(data.splits["train"].images[i], picture(i))
    assert data.splits["test"].labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert json.loads((folder / prepared_set.MANIFEST).read_text())["counts"]["train"] == {"light": 5, "dark": 5}


def test_mean_and_covariance_agree_with_float64_brute_force(folder):
    fill(folder)
    data = prepared_set.open_set("pictures")
    images = np.stack([picture(i) for i in range(10)]).astype(np.float64)
    np.testing.assert_allclose(data.mean, images.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(data.covariance, np.cov(images.reshape(-1, 3).T, bias=True), rtol=1e-10)


def test_mean_and_covariance_come_from_the_training_images_alone(folder):
    fill(folder)
    first = prepared_set.open_set("pictures")
    prepared_set.write_split(folder / "test", np.zeros((6, 5, 5, 3), np.uint8), np.repeat([0, 1], 3))
    prepared_set.finish_set(folder, CLASSES, ("train", "test"), stand_in=True)
    second = prepared_set.open_set("pictures")
    assert np.array_equal(first.mean, second.mean)
    assert np.array_equal(first.covariance, second.covariance)
    assert first.fingerprint != second.fingerprint


CASES = {
    "noise": np.random.default_rng(0).integers(0, 256, (256, 256, 3)),
    "white, the largest sums": np.full((256, 256, 3), 255),
    "one pixel": np.array([[[3, 5, 7]]]),
}


@pytest.mark.parametrize("case", CASES)
def test_statistics_are_exact_before_the_division(case):
    image = CASES[case].astype(np.uint8)
    pixels = image.reshape(-1, 3).astype(object)  # Python's integers
    n = len(pixels)
    mean, covariance = prepared_set.pixel_statistics(np.stack([image] * 37))
    assert np.array_equal(mean, image)
    colour = np.array(pixels.sum(0), float) * 37 / (37 * n)
    assert np.array_equal(covariance, np.array(pixels.T.dot(pixels) * 37, float) / (37 * n) - np.outer(colour, colour))


@pytest.mark.parametrize("file", ["train/images.npy", "test/labels.npy", "mean.npy", "covariance.npy"])
def test_a_changed_byte_is_refused_by_the_name_of_its_file(folder, file):
    fill(folder)
    content = bytearray((folder / file).read_bytes())
    content[-1] ^= 1
    (folder / file).write_bytes(content)
    with pytest.raises(
        UserError, match=rf"{file} is changed since .* alexnet prepare folders --name pictures --source DIR --force"
    ):
        prepared_set.open_set("pictures")
    prepared_set.open_set("pictures", verify=False)


def test_a_missing_file_is_refused_by_its_name(folder):
    fill(folder)
    (folder / "test" / "images.npy").unlink()
    with pytest.raises(UserError, match=r"test/images.npy is missing.* --force"):
        prepared_set.open_set("pictures", verify=False)


def test_a_damaged_manifest_is_refused_by_its_name(folder):
    fill(folder)
    (folder / prepared_set.MANIFEST).write_text('{"classes": [')
    with pytest.raises(UserError, match=r"prepare.json cannot be read.* --force"):
        prepared_set.open_set("pictures")


def test_a_set_that_was_never_prepared_says_how_to_make_it(folder):
    with pytest.raises(UserError, match=r"No prepared set 'pictures' in .* alexnet prepare folders --name pictures"):
        prepared_set.open_set("pictures")
