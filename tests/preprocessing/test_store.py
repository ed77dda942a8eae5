"""A prepared set on disk: its statistics, its checksums, and what is kept when something goes wrong."""

import errno
import hashlib
import json
import shutil
from collections import namedtuple

import numpy as np
import pytest

from alexnet.config import UserError
from alexnet.preprocessing import disk, store

CLASSES = ("light", "dark")
Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("ALEXNET_DATA", str(tmp_path))
    monkeypatch.setattr(store, "CHUNK", 4)
    return tmp_path / "pictures"


def picture(i):
    return np.random.default_rng(i).integers(0, 256, (5, 5, 3)).astype(np.uint8)


def fill(folder, decode=picture):
    for split, count in (("train", 10), ("test", 6)):
        store.fill_split(folder / split, np.repeat([0, 1], count // 2), 5, decode, source="pictures")
    store.finish_set(folder, CLASSES, ("train", "test"), stand_in=True)


def digest_of_files(folder):
    return {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in sorted(folder.rglob("*.npy"))}


def test_an_opened_set_holds_what_was_filled_in(folder):
    fill(folder)
    data = store.open_set("pictures")
    assert data.classes == CLASSES
    assert data.stand_in
    assert {split: len(part) for split, part in data.splits.items()} == {"train": 10, "test": 6}
    for i in range(10):
        assert np.array_equal(data.splits["train"].images[i], picture(i))
    assert data.splits["test"].labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert json.loads((folder / store.MANIFEST).read_text())["counts"]["train"] == {"light": 5, "dark": 5}
    assert not list(folder.rglob("progress.json"))


def test_mean_and_covariance_agree_with_float64_brute_force(folder):
    fill(folder)
    data = store.open_set("pictures")
    images = np.stack([picture(i) for i in range(10)]).astype(np.float64)
    np.testing.assert_allclose(data.mean, images.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(data.covariance, np.cov(images.reshape(-1, 3).T, bias=True), rtol=1e-10)


def test_mean_and_covariance_come_from_the_training_images_alone(folder):
    fill(folder)
    first = store.open_set("pictures")
    store.fill_split(folder / "test", np.repeat([0, 1], 3), 5, lambda i: np.zeros((5, 5, 3), np.uint8), source="black")
    store.finish_set(folder, CLASSES, ("train", "test"), stand_in=True)
    second = store.open_set("pictures")
    assert np.array_equal(first.mean, second.mean)
    assert np.array_equal(first.covariance, second.covariance)
    assert first.fingerprint != second.fingerprint


def test_filling_goes_on_after_the_chunks_that_were_finished(folder):
    fill(folder.parent / "whole")
    decoded = []

    def fragile(i):
        decoded.append(i)
        if i == 6 and decoded.count(6) == 1:
            raise RuntimeError("power cut")
        return picture(i)

    with pytest.raises(RuntimeError, match="power cut"):
        fill(folder, fragile)
    assert decoded == [0, 1, 2, 3, 4, 5, 6]
    assert not store.is_prepared("pictures")
    decoded[:] = [6]
    fill(folder, fragile)
    assert decoded[1:11] == [4, 5, 6, 7, 8, 9, 0, 1, 2, 3]  # training images from 4 on, then the test images
    assert digest_of_files(folder) == digest_of_files(folder.parent / "whole")


def test_chunks_of_another_source_or_other_labels_are_not_continued(folder):
    def stop_at_5(i):
        if i == 5:
            raise RuntimeError("power cut")
        return picture(i)

    for labels, source in ((np.zeros(8, int), "other"), (np.ones(8, int), "pictures")):
        with pytest.raises(RuntimeError, match="power cut"):
            store.fill_split(folder / "train", np.zeros(8, int), 5, stop_at_5, source="pictures")
        decoded = []
        store.fill_split(folder / "train", labels, 5, lambda i, seen=decoded: seen.append(i) or picture(i), source)
        assert decoded == list(range(8))


def test_progress_without_its_images_begins_again(folder):
    store.fill_split(folder, np.zeros(8, int), 5, picture)
    (folder / "images.npy").unlink()
    store.fill_split(folder, np.zeros(8, int), 5, picture)
    assert np.array_equal(np.load(folder / "images.npy")[7], picture(7))


def test_sorting_gives_the_same_bytes_for_any_order_and_any_number_of_times(folder):
    for name, order in (("a", [0, 1, 2, 3, 4, 5, 6]), ("b", [3, 1, 0, 2, 6, 5, 4])):
        store.fill_split(folder / name, np.array([0, 0, 0, 0, 1, 1, 1]), 5, lambda i, order=order: picture(order[i]))
        assert (folder / name / "progress.json").is_file()
        store.sort_canonically(folder / name)
    assert digest_of_files(folder / "a") == digest_of_files(folder / "b")
    once = digest_of_files(folder / "a")
    store.fill_split(folder / "a", np.array([0, 0, 0, 0, 1, 1, 1]), 5, picture)  # as a second call after a kill would
    store.sort_canonically(folder / "a")
    assert digest_of_files(folder / "a") == once
    images = np.load(folder / "a" / "images.npy")
    assert {image.tobytes() for image in images[:4]} == {picture(i).tobytes() for i in range(4)}


@pytest.mark.parametrize("file", ["train/images.npy", "test/labels.npy", "mean.npy", "covariance.npy"])
def test_a_changed_byte_is_refused_by_the_name_of_its_file(folder, file):
    fill(folder)
    content = bytearray((folder / file).read_bytes())
    content[-1] ^= 1
    (folder / file).write_bytes(content)
    with pytest.raises(UserError, match=rf"{file} is changed since .* alexnet prepare pictures --force"):
        store.open_set("pictures")
    store.open_set("pictures", verify=False)


def test_a_missing_file_is_refused_by_its_name(folder):
    fill(folder)
    (folder / "test" / "images.npy").unlink()
    with pytest.raises(UserError, match=r"test/images.npy is missing.* --force"):
        store.open_set("pictures", verify=False)


def test_a_damaged_manifest_is_refused_by_its_name(folder):
    fill(folder)
    (folder / store.MANIFEST).write_text('{"classes": [')
    with pytest.raises(UserError, match=r"prepare.json is damaged.* --force"):
        store.open_set("pictures")


def test_a_set_that_was_never_prepared_says_how_to_make_it(folder):
    with pytest.raises(UserError, match=r"No prepared set 'pictures' in .* alexnet prepare pictures"):
        store.open_set("pictures")


def test_a_disk_that_is_too_small_is_refused_before_anything_is_written(folder, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 10**9 - 2_000_000, 2_000_000))
    message = r"The disk of .*pictures cannot hold this set: it needs 8 MB, 2 MB are free.*ALEXNET_DATA"
    with pytest.raises(UserError, match=message), disk.disk_errors_named(folder, bytes_needed=8_000_000):
        fill(folder)
    assert not list(folder.iterdir())


def test_what_is_already_on_the_disk_counts_as_room(folder, monkeypatch):
    folder.mkdir()
    (folder / "done").write_bytes(bytes(7_000_000))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 10**9 - 2_000_000, 2_000_000))
    with disk.disk_errors_named(folder, bytes_needed=8_000_000):
        pass


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fills_up_is_an_error_in_words_and_what_was_done_is_kept(folder, number):
    def full_at_6(i):
        if i == 6:
            raise OSError(number, "no room")
        return picture(i)

    with pytest.raises(UserError, match=r"cannot hold this set.*what is done is kept"), disk.disk_errors_named(folder, 1):
        fill(folder, full_at_6)
    decoded = []
    fill(folder, lambda i: decoded.append(i) or picture(i))
    assert decoded[0] == 4


def test_another_error_of_the_system_is_not_mistaken_for_a_full_disk(folder):
    with pytest.raises(PermissionError, match="not yours"), disk.disk_errors_named(folder, 1):
        raise PermissionError(errno.EACCES, "not yours")


def test_room_is_claimed_before_the_first_image(folder):
    """A sparse file would kill the process when the disk fills up, without an error."""
    blocks = []

    def look(i):
        blocks.append((folder / "images.npy").stat().st_blocks * 512)
        return np.zeros((64, 64, 3), np.uint8)

    store.fill_split(folder, np.zeros(8, int), 64, look)
    assert blocks[0] >= 8 * 64 * 64 * 3
