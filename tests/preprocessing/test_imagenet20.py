"""ImageNet-20 from class folders, from its two archives unpacked beside each other, and by download."""

import functools
import hashlib
import http.server
import shutil
import threading

import numpy as np
import pytest
from PIL import Image

from alexnet.config import UserError
from alexnet.preprocessing import imagenet, photograph, prepared_set
from alexnet.preprocessing.catalog import SETS
from alexnet.preprocessing.prepare import prepare

SIDE = 16


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *words):
        pass


@pytest.fixture
def published(tmp_path):
    """A folder whose files a server of this machine sends, and the address of that server."""
    folder = tmp_path / "published"
    folder.mkdir()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder)) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield folder, f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


@pytest.fixture
def twenty(small, picture, monkeypatch):
    """The twenty class folders of ImageNet-20, with two and one photographs each."""
    for s, (split, count) in enumerate((("train", 2), ("val", 1))):
        for k, wnid in enumerate((*imagenet.IMAGENETTE, *imagenet.IMAGEWOOF)):
            (small / "twenty" / split / wnid).mkdir(parents=True)
            for i in range(count):
                Image.fromarray(picture(s, k, i)).save(small / "twenty" / split / wnid / f"{i}.jpg")
    for name, half in (("imagenet20", 1), ("imagenette", 2)):
        monkeypatch.setitem(SETS[name].counts, "train", 40 // half)
        monkeypatch.setitem(SETS[name].counts, "val", 20 // half)
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
    assert np.array_equal(data.splits["val"].images[19], photograph.read(twenty / "val" / "n02115641" / "0.jpg", SIDE))


def test_imagenet20_counts_are_the_published_ones():
    assert SETS["imagenet20"].counts == {"train": 18494, "val": 7854}
    assert SETS["imagenet20"].num_bytes == 26348 * 256 * 256 * 3


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


# Why: torchvision unpacks without a filter, and Python 3.12 and 3.13 warn.
@pytest.mark.filterwarnings("ignore:Python 3.14 will:DeprecationWarning")
def test_imagenet20_is_downloaded_and_prepared(published, small, picture, jpeg, tar_of, write_folder, monkeypatch):
    archives, unpacked = {}, small / "unpacked"
    for part, wnids in (("imagenette2", imagenet.IMAGENETTE), ("imagewoof2", imagenet.IMAGEWOOF)):
        name = f"{part}-320"
        members = {}
        for k, wnid in enumerate(wnids):
            for split in ("train", "val"):
                members[f"{name}/{split}/{wnid}/{wnid}_1.JPEG"] = jpeg(picture(len(name), len(split), k))
                write_folder(unpacked / name / split / wnid, {"1.JPEG": jpeg(picture(len(name), len(split), k))})
        data = tar_of(None, members, "w:gz")
        (published[0] / f"{name}.tgz").write_bytes(data)
        archives[part] = (f"{published[1]}/{name}.tgz", hashlib.md5(data).hexdigest())
    monkeypatch.setattr(imagenet, "DOWNLOADS", archives)
    for split in ("train", "val"):
        monkeypatch.setitem(SETS["imagenet20"].counts, split, 20)
    data = prepare("imagenet20")
    assert data.splits["train"].labels.tolist() == list(range(20))
    assert (data.words[0], data.words[10]) == ("tench", "Shih-Tzu")
    assert [path.name for path in prepared_set.data_dir().iterdir() if path.is_dir()] == ["imagenet20"]
    shutil.rmtree(prepared_set.data_dir())
    assert prepare("imagenet20", unpacked).fingerprint == data.fingerprint


def test_a_download_that_is_not_the_published_file_is_refused(published, small, monkeypatch):
    (published[0] / "other.tgz").write_bytes(b"something else")
    monkeypatch.setattr(imagenet, "DOWNLOADS", {"imagenette2": (f"{published[1]}/other.tgz", "0" * 32)})
    with pytest.raises(UserError, match=r"other.tgz could not be downloaded .*alexnet prepare imagenette --source DIR"):
        prepare("imagenette")


def test_imagenette_is_the_first_ten_classes_of_the_same_source_with_its_own_mean(twenty):
    ten, whole = prepare("imagenette", twenty), prepare("imagenet20", twenty)
    assert (ten.classes, ten.words) == (whole.classes[:10], whole.words[:10])
    for split in ("train", "val"):
        part = whole.splits[split]
        assert np.array_equal(ten.splits[split].images, part.images[part.labels < 10])
        assert np.array_equal(ten.splits[split].labels, part.labels[part.labels < 10])
    np.testing.assert_allclose(ten.mean, ten.splits["train"].images.astype(np.float64).mean(axis=0), rtol=1e-6)
    assert not np.array_equal(ten.mean, whole.mean)


def test_a_folder_with_neither_layout_of_imagenet20_is_told_both(small):
    (small / "empty").mkdir()
    with pytest.raises(UserError, match=r"has neither train/<wnid>/ nor imagenette2\*/, imagewoof2\*/ with train/<wnid>/"):
        prepare("imagenet20", small / "empty")
