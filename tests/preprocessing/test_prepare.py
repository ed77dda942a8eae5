"""Sets made of photographs: every defect that archives have, the report, and what it takes to go on in spite of them."""

import gzip
import importlib
import json
import os
import shutil

import numpy as np
import pytest
from PIL import ExifTags, Image

from alexnet.config import UserError
from alexnet.preprocessing import photograph, prepared_set
from alexnet.preprocessing.image_index import LARGEST_FILE, ImageIndex
from alexnet.preprocessing.prepare import prepare

SIDE = 16
making = importlib.import_module("alexnet.preprocessing.prepare")  # its name in the room is the function's


def files_of(source, split):
    return sorted((source / split).glob("*/*"))


def manifest(data):
    return json.loads((data.folder / prepared_set.MANIFEST).read_text())


def squares(files):
    return np.stack([photograph.read(file, SIDE) for file in files])


def test_class_folders_become_a_set_in_the_order_of_classes_and_names(source):
    data = prepare("folders", source)
    assert data.classes == data.words == ("cat", "dog")
    assert not data.stand_in
    for split, count in (("train", 7), ("test", 3)):
        assert np.array_equal(data.splits[split].images, squares(files_of(source, split)))
        assert data.splits[split].labels.tolist() == [0] * count + [1] * count
    assert manifest(data)["counts"] == {"train": {"cat": 7, "dog": 7}, "test": {"cat": 3, "dog": 3}}


@pytest.mark.parametrize("form", ["raw", "jpeg"])
def test_mean_and_covariance_are_those_of_the_training_images_as_they_are_read(source, form):
    data = prepare("folders", source, codec=form)
    pixels = data.splits["train"].images[:].astype(np.float64)
    np.testing.assert_allclose(data.mean, pixels.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(data.covariance, np.cov(pixels.reshape(-1, 3).T, bias=True), rtol=1e-10)


@pytest.mark.parametrize("form", ["raw", "jpeg"])
def test_the_bytes_do_not_depend_on_the_number_of_processes(source, form):
    found = set()
    for processes in (1, 2, 3):
        data = prepare("folders", source, force=True, processes=processes, codec=form)
        found.add(tuple((f.name, f.read_bytes()) for f in sorted(data.folder.rglob("*.*"))))
    assert len(found) == 1


def spoil(source, picture, monkeypatch):
    """Put one photograph with each defect beside the good cats of `train`."""
    folder = source / "train" / "cat"
    good = Image.fromarray(picture(9))
    good.save(folder / "d_png.JPEG", "PNG")
    good.convert("CMYK").save(folder / "d_inks.JPEG")
    good.convert("L").save(folder / "d_grey.JPEG")
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    good.save(folder / "d_turned.JPEG", exif=exif)
    good.save(folder / "d_plain.JPEG")
    (folder / "d_zipped.JPEG").write_bytes(gzip.compress((folder / "d_plain.JPEG").read_bytes()))
    good.save(folder / "e_cut.JPEG", quality=100)
    (folder / "e_cut.JPEG").write_bytes((folder / "e_cut.JPEG").read_bytes()[:-100])
    (folder / "e_empty.JPEG").write_bytes(b"")
    (folder / "e_page.JPEG").write_text("<html>not found</html>")
    Image.new("RGB", (90, 90)).save(folder / "e_bomb.JPEG")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5000)
    (folder / "e_long.JPEG").touch()
    os.truncate(folder / "e_long.JPEG", LARGEST_FILE + 1)
    (folder / "e_folder").mkdir()
    os.mkfifo(folder / "e_pipe.JPEG")
    (folder / "e_apple.JPEG").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100))
    (folder / "e_\x1b[2J\n.JPEG").write_bytes(b"")
    (folder / "left.tar.gz").write_bytes(b"of no interest")
    (source.parent / "elsewhere.png").write_bytes((source / "train" / "dog" / "dog_0.png").read_bytes())
    (folder / "d_link.png").symlink_to(source.parent / "elsewhere.png")
    (folder / "e_loop.png").symlink_to(folder / "e_loop.png")
    (folder / "cat_linked.png").symlink_to(folder / "cat_0.png")
    (folder / ".DS_Store").write_bytes(b"of no interest")


BAD = {
    "e_cut.JPEG": "truncated",
    "e_empty.JPEG": "not an image",
    "e_page.JPEG": "not an image",
    "e_bomb.JPEG": "decompression bomb",
    "e_long.JPEG": "256 MiB, larger than any photograph",
    "e_folder": "no file",
    "e_pipe.JPEG": "no file",
    "e_apple.JPEG": "a HEIC or AVIF image: convert it to JPEG or PNG",
    "e_\\x1b[2J\\n.JPEG": "not an image",
    "e_loop.png": "no file",
}


def test_every_defect_is_read_or_skipped_and_reported(source, picture, monkeypatch, capsys):
    spoil(source, picture, monkeypatch)
    data = prepare("folders", source, accept_bad=True)
    report, printed = manifest(data)["report"]["train"], capsys.readouterr().err
    assert len(report["skipped"]) == len(BAD)
    for name, why in BAD.items():
        assert [why in text for file, text in report["skipped"] if file.endswith(f"cat/{name}")] == [True]
        assert f"cat/{name}: " in printed
    assert report["listed"] == 14 + 2 + 6 + len(BAD)


def test_a_skipped_image_leaves_no_hole(source, picture, monkeypatch):
    spoil(source, picture, monkeypatch)
    part = prepare("folders", source, accept_bad=True).splits["train"]
    good = [f for f in files_of(source, "train") if f.suffix in (".png", ".JPEG") and not f.name.startswith((".", "e_"))]
    (source / "train" / "cat" / "d_zipped.JPEG").write_bytes((source / "train" / "cat" / "d_plain.JPEG").read_bytes())
    assert np.array_equal(part.images, squares(good))
    assert part.labels.tolist() == [int(f.parent.name == "dog") for f in good]


def test_too_many_bad_images_are_an_error_that_says_how_to_accept_them_and_loses_nothing(source, monkeypatch, capsys):
    (source / "test" / "dog" / "dog_1.png").write_bytes(b"")
    message = (
        r"split test has 1 of 6 images missing or unreadable, more than 0.1%.*or repeat it with "
        r"--accept-bad, which decodes nothing again"
    )
    with pytest.raises(UserError, match=message):
        prepare("folders", source)
    assert f"folders test: skipped {source}/test/dog/dog_1.png: not an image" in capsys.readouterr().err
    decoded, read = [], ImageIndex.read
    monkeypatch.setattr(ImageIndex, "read", lambda *args, **kw: decoded.append(args[1]) or read(*args, **kw))
    data = prepare("folders", source, processes=1, accept_bad=True)
    assert decoded == []
    assert data.splits["test"].labels.tolist() == [0, 0, 0, 1, 1]


def test_few_bad_images_are_reported_and_no_error(source, monkeypatch, capsys):
    monkeypatch.setattr(making, "TOLERATED", 0.2)
    (source / "test" / "dog" / "dog_1.png").write_bytes(b"")
    assert len(prepare("folders", source).splits["test"]) == 5
    assert "dog_1.png: not an image" in capsys.readouterr().err


@pytest.mark.parametrize("mend", ["replace", "same size", "delete", "add"])
def test_what_an_earlier_call_left_is_not_used_for_a_source_that_has_changed(source, mend):
    bad, other = source / "train" / "dog" / "dog_2.png", source / "train" / "dog" / "dog_3.png"
    content = bad.read_bytes()
    bad.write_bytes(b"")
    with pytest.raises(UserError, match=r"--accept-bad"):
        prepare("folders", source)
    if mend == "same size":
        other.write_bytes(b"x" * len(other.read_bytes()))
    if mend == "replace":
        bad.write_bytes(content)
    if mend == "delete":
        bad.unlink()
    if mend == "add":
        shutil.copy(other, bad.with_name("dog_9.png"))
    resumed = prepare("folders", source, accept_bad=True)
    assert prepare("folders", source, force=True, accept_bad=True).fingerprint == resumed.fingerprint
    assert len(resumed.splits["train"]) == {"replace": 14, "same size": 12, "delete": 13, "add": 14}[mend]


@pytest.mark.parametrize("form", ["raw", "jpeg"])
@pytest.mark.parametrize("place", [0, 200, -1])
def test_a_changed_byte_is_found_when_it_is_looked_for(source, form, place, monkeypatch):
    data = prepare("folders", source, codec=form)
    file = next((data.folder / "train").glob("images.*"))
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)
    with pytest.raises(UserError, match=rf"train/{file.name} is changed since it was prepared, in its .*folders --force"):
        prepare("folders", verify=True)
    monkeypatch.setattr("alexnet.preprocessing.prepared_set.HASHED_UP_TO", 100)
    if place == 200:
        prepared_set.open_set("folders")  # a large set is not read in full unless asked
    with pytest.raises(UserError, match="changed"):
        prepared_set.open_set("folders", verify=True)


def test_a_file_cut_short_is_always_found(source):
    file = prepare("folders", source).folder / "train" / "images.npy"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(
        UserError, match=r"train/images.npy is changed since it was prepared: it has 10,879 bytes, not 10,880"
    ):
        prepared_set.open_set("folders", verify=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: shutil.rmtree(s / "train"), r"has test; a set needs train/<class>/"),
        (lambda s: shutil.rmtree(s / "test"), r"has train; a set needs train/<class>/"),
        (lambda s: (s / "test" / "cow").mkdir(), r"test/cow should not be there"),
        (lambda s: shutil.rmtree(s / "test" / "cat"), r"test/cat is missing"),
        (lambda s: [f.write_bytes(b"") for f in files_of(s, "test")], r"split test has no image that can be read"),
        (lambda s: [f.unlink() for f in files_of(s, "test")], r"split test has no image that can be read"),
        (lambda s: [shutil.rmtree(f) for f in s.glob("t*/*")], r"split train has no image that can be read"),
        (shutil.rmtree, r"source is not a folder"),
    ],
)
def test_folders_that_are_not_a_data_set_are_refused_in_words(source, change, message):
    change(source)
    with pytest.raises(UserError, match=message):
        prepare("folders", source, accept_bad=True)


@pytest.mark.parametrize("wrong", ["nowhere", "."])
def test_a_wrong_source_does_not_cost_the_set_that_is_there(source, small, wrong):
    expected = prepare("folders", source).fingerprint
    with pytest.raises(UserError):
        prepare("folders", small / wrong, force=True)
    assert prepare("folders").fingerprint == expected


def test_folders_need_a_source(small):
    with pytest.raises(UserError, match=r"alexnet prepare folders --source DIR"):
        prepare("folders")
