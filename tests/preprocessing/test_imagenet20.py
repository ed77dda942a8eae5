"""ImageNet-20 from class folders, from its two archives unpacked beside each other, and by download."""

import hashlib
import shutil

import numpy as np
import pytest
from PIL import Image

from alexnet.config import UserError
from alexnet.preprocessing import imagenet20, store
from alexnet.preprocessing.datasets import expected_bytes, expected_counts, prepare
from alexnet.preprocessing.images import read_square

SIDE = 16


@pytest.fixture
def twenty(small, picture, monkeypatch):
    """The twenty class folders of ImageNet-20, with two and one photographs each."""
    for s, (split, count) in enumerate((("train", 2), ("val", 1))):
        for k, wnid in enumerate((*imagenet20.IMAGENETTE, *imagenet20.IMAGEWOOF)):
            (small / "twenty" / split / wnid).mkdir(parents=True)
            for i in range(count):
                Image.fromarray(picture(s, k, i)).save(small / "twenty" / split / wnid / f"{i}.jpg")
    monkeypatch.setattr(imagenet20, "COUNTS", {"train": 40, "val": 20})
    return small / "twenty"


def test_imagenet20_has_imagenette_s_classes_and_then_imagewoof_s(twenty):
    data = prepare("imagenet20", twenty)
    assert data.classes[:3] == ("n01440764", "n02102040", "n02979186")
    assert data.classes[10:12] == ("n02086240", "n02087394")
    assert data.words == (
        "tench", "English springer", "cassette player", "chain saw", "church", "French horn", "garbage truck", "gas pump",
        "golf ball", "parachute", "Shih-Tzu", "Rhodesian ridgeback", "beagle", "English foxhound", "Border terrier",
        "Australian terrier", "golden retriever", "Old English sheepdog", "Samoyed", "dingo",
    )  # fmt: skip
    assert data.splits["val"].labels.tolist() == list(range(20))
    assert np.array_equal(data.splits["val"].images[19], read_square(twenty / "val" / "n02115641" / "0.jpg", SIDE))


def test_imagenet20_counts_are_the_published_ones():
    assert expected_counts("imagenet20") == {"train": 18494, "val": 7854}
    assert expected_bytes("imagenet20") == 26348 * 256 * 256 * 3


def test_a_missing_or_surplus_photograph_of_imagenet20_is_reported(twenty):
    (twenty / "val" / "n02115641" / "0.jpg").rename(twenty / "kept.jpg")
    with pytest.raises(UserError, match=r"The split val has 1 of 20 images missing or unreadable"):
        prepare("imagenet20", twenty)
    (twenty / "kept.jpg").rename(twenty / "val" / "n02115641" / "0.jpg")
    shutil.copy(twenty / "val" / "n02115641" / "0.jpg", twenty / "val" / "n02115641" / "1.jpg")
    with pytest.raises(UserError, match=r"The split val has 21 images where 20 were published"):
        prepare("imagenet20", twenty)
    assert len(prepare("imagenet20", twenty, accept_bad=True).splits["val"]) == 21


def test_other_classes_than_imagenet20_s_are_named(twenty):
    (twenty / "val" / "n02115641").rename(twenty / "val" / "n99999999")
    with pytest.raises(UserError, match=r"val/n99999999 should not be there: .*val must hold the 20 classes of the set"):
        prepare("imagenet20", twenty)
    (twenty / "val" / "n99999999").rename(twenty / "n99999999")
    with pytest.raises(UserError, match=r"val/n02115641 is missing"):
        prepare("imagenet20", twenty)


def test_imagenet20_is_downloaded_and_prepared(server, small, picture, jpeg, tar_of, write_folder, monkeypatch):
    archives, unpacked = {}, small / "unpacked"
    for name, wnids in (("imagenette2-320", imagenet20.IMAGENETTE), ("imagewoof2-320", imagenet20.IMAGEWOOF)):
        members = {}
        for k, wnid in enumerate(wnids):
            for split in ("train", "val"):
                members[f"{name}/{split}/{wnid}/{wnid}_1.JPEG"] = jpeg(picture(len(name), len(split), k))
                write_folder(unpacked / name / split / wnid, {"1.JPEG": jpeg(picture(len(name), len(split), k))})
        data = tar_of(None, members, "w:gz")
        server.files[f"/{name}.tgz"] = data
        archives[name] = (f"{server.url}/{name}.tgz", hashlib.md5(data).hexdigest())
    monkeypatch.setattr(imagenet20, "ARCHIVES", archives)
    monkeypatch.setattr(imagenet20, "COUNTS", {"train": 20, "val": 20})
    monkeypatch.setattr(imagenet20, "DOWNLOAD_BYTES", 1)
    data = prepare("imagenet20")
    assert data.splits["train"].labels.tolist() == list(range(20))
    assert (data.words[0], data.words[10]) == ("tench", "Shih-Tzu")
    assert [path.name for path in store.data_dir().iterdir() if path.is_dir()] == ["imagenet20"]
    shutil.rmtree(store.data_dir())
    assert prepare("imagenet20", unpacked).fingerprint == data.fingerprint


def test_a_folder_with_neither_layout_of_imagenet20_is_told_both(small):
    (small / "empty").mkdir()
    with pytest.raises(UserError, match=r"has neither train/<wnid>/ nor imagenette2\*/train/<wnid>/"):
        prepare("imagenet20", small / "empty")
