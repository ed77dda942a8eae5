"""The official layouts, rebuilt small: tars inside tars, a development kit with its own numbers, labels in a text file."""

import gzip
import io
import json
import re
import tarfile

import numpy as np
import pytest
from scipy.io import savemat

from alexnet.config import UserError
from alexnet.preprocessing import imagenet, photograph, prepared_set
from alexnet.preprocessing.catalog import SETS
from alexnet.preprocessing.prepare import prepare

SIDE = 16
# The kit's numbers, deliberately in another order than the wnids; 4 is no class but a group of them.
SYNSETS = {2: ("n01440764", "tench, Tinca tinca"), 3: ("n02510455", "giant panda"), 1: ("n03000684", "chain saw, chainsaw")}
GROUP = 4
NUM_TRAIN = 5  # of each class
TRUTH = {"val": [3, 1, 2, 2, 1, 3, 1], "test": [2, 3, 3, 1]}
FIELDS = ("WNID", "words", "gloss", "num_children", "children", "wordnet_height", "num_train_images")


def meta_mat(year):
    """Return a meta.mat with the official fields."""
    synsets = np.empty(len(SYNSETS) + 1, [(name, object) for name in (f"ILSVRC{year}_ID", *FIELDS)])
    for row, number in enumerate(sorted(SYNSETS)):
        wnid, words = SYNSETS[number]
        synsets[row] = (number, wnid, words, f"a {words}", 0, np.array([]), 0, NUM_TRAIN)
    synsets[-1] = (GROUP, "n00001740", "entity", "that which exists", 3, np.array([1, 2, 3]), 18, 0)
    stream = io.BytesIO()
    savemat(stream, {"synsets": synsets.reshape(-1, 1)})
    return stream.getvalue()


@pytest.fixture
def photographs(picture, jpeg, classes):
    """Every photograph of both years: {"train": {class: {name: bytes}}, "val": {name: bytes}, "test": {name: bytes}}."""
    found = {"train": classes, "val": {}, "test": {}}
    for split, truth in TRUTH.items():
        for i, number in enumerate(truth, 1):
            found[split][f"{{}}_{split}_{i:08d}.JPEG"] = jpeg(picture(len(split), number, i))
    return found


def named(year, members):
    return {name.format(f"ILSVRC{year}"): data for name, data in members.items()}


@pytest.fixture
def official(small, photographs, tar_of):
    """A function that writes a year's archives into a folder and returns it."""

    def write(year, folder="official"):
        source = small / folder
        source.mkdir()
        word = {2010: "images", 2012: "img"}[year]
        inner = {f"{wnid}.tar": tar_of(None, members) for wnid, members in photographs["train"].items()}
        tar_of(source / f"ILSVRC{year}_{word}_train.tar", inner)
        tar_of(source / f"ILSVRC{year}_{word}_val.tar", named(year, photographs["val"]))
        kit = {2010: "devkit-1.0", 2012: "ILSVRC2012_devkit_t12"}[year]
        truth = "\n".join(map(str, TRUTH["val"])).encode() + b"\n"
        files = {f"{kit}/readme.txt": b"...", f"{kit}/data/meta.mat": meta_mat(year),
                 f"{kit}/data/ILSVRC{year}_validation_ground_truth.txt": truth}  # fmt: skip
        tar_of(source / f"ILSVRC{year}_{kit.replace('ILSVRC2012_', '')}.tar.gz", files, "w:gz")
        if year == 2010:
            members = {f"test/{name}": data for name, data in named(year, photographs["test"]).items()}
            tar_of(source / f"ILSVRC{year}_images_test.tar", members)
            (source / "ILSVRC2010_test_ground_truth.txt").write_text("".join(f"{n}\n" for n in TRUTH["test"]))
        return source

    return write


def labels_of(truth):
    order = sorted(wnid for wnid, _ in SYNSETS.values())
    return [order.index(SYNSETS[number][0]) for number in truth]


def check_split(part, members, labels):
    """Each photograph is there with its label, ordered by label and name."""
    expected = sorted(zip(labels, members, strict=True))
    assert part.labels.tolist() == [label for label, _ in expected]
    for image, (_, name) in zip(part.images, expected, strict=True):
        assert np.array_equal(image, photograph.read(io.BytesIO(members[name]), SIDE))


def test_ilsvrc2012_is_prepared_from_its_archives(official, photographs):
    data = prepare("ilsvrc2012", official(2012))
    assert data.classes == ("n01440764", "n02510455", "n03000684")
    assert data.words == ("tench, Tinca tinca", "giant panda", "chain saw, chainsaw")
    assert list(data.splits) == ["train", "val"]
    check_split(data.splits["val"], photographs["val"], labels_of(TRUTH["val"]))
    for k, wnid in enumerate(data.classes):
        train, rows = data.splits["train"], slice(5 * k, 5 * k + 5)
        part = prepared_set.Split(train.images[rows], train.labels[rows])
        check_split(part, photographs["train"][wnid], [k] * 5)
    manifest = json.loads((data.folder / prepared_set.MANIFEST).read_text())
    assert manifest["report"]["val"]["official"] == len(TRUTH["val"])
    assert manifest["report"]["train"]["official"] == 15


def test_ilsvrc2010_has_test_images_with_labels(official, photographs):
    data = prepare("ilsvrc2010", official(2010))
    assert list(data.splits) == ["train", "val", "test"]
    check_split(data.splits["test"], photographs["test"], labels_of(TRUTH["test"]))
    check_split(data.splits["val"], photographs["val"], labels_of(TRUTH["val"]))


@pytest.mark.parametrize("train", ["folders", "tars"])
@pytest.mark.parametrize("val", ["flat", "classes", "flat tar"])
@pytest.mark.parametrize("kit", ["archive", "folder"])
def test_every_layout_gives_the_same_bytes(official, photographs, tar_of, write_folder, train, val, kit):
    source = official(2012)
    expected = prepare("ilsvrc2012", source).fingerprint
    (source / "ILSVRC2012_img_train.tar").unlink()
    for wnid, members in photographs["train"].items():
        if train == "folders":
            write_folder(source / "train" / wnid, members)
        else:
            (source / "train").mkdir(exist_ok=True)
            tar_of(source / "train" / f"{wnid}.tar", members)
    members = named(2012, photographs["val"])
    if val != "flat tar":
        (source / "ILSVRC2012_img_val.tar").unlink()
    if val == "flat":
        write_folder(source / "val", members)
    if val == "classes":
        for number, (wnid, _) in SYNSETS.items():
            names = [name for name, n in zip(members, TRUTH["val"], strict=True) if n == number]
            write_folder(source / "val" / wnid, {name: members[name] for name in names})
    if kit == "folder":
        archive = source / "ILSVRC2012_devkit_t12.tar.gz"
        with tarfile.open(archive) as tar:
            tar.extractall(source, filter="data")
        archive.unlink()
    assert prepare("ilsvrc2012", source, force=True).fingerprint == expected


def test_class_folders_need_no_development_kit(small, photographs, write_folder, monkeypatch):
    monkeypatch.setitem(SETS["ilsvrc2012"].counts, "train", 15)
    monkeypatch.setitem(SETS["ilsvrc2012"].counts, "val", 3)
    for wnid, members in photographs["train"].items():
        write_folder(small / "plain" / "train" / wnid, members)
        write_folder(small / "plain" / "val" / wnid, dict([next(iter(members.items()))]))
    (small / "plain" / "synset_words.txt").write_text("n01440764 tench, Tinca tinca\nn03000684 chain saw\n")
    data = prepare("ilsvrc2012", small / "plain")
    assert data.words == ("tench, Tinca tinca", "n02510455", "chain saw")
    assert data.splits["val"].labels.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("ILSVRC2010_images_train.tar", r"has none of ILSVRC2010_img_train.tar, .* where the train images"),
        ("ILSVRC2010_images_test.tar", r"where the test images of ILSVRC-2010 could be"),
        (
            "ILSVRC2010_test_ground_truth.txt",
            r"ILSVRC2010_test_ground_truth.txt is missing in .* \(test images\)",
        ),
        (
            "ILSVRC2010_devkit-1.0.tar.gz",
            r"ILSVRC2010_validation_ground_truth.txt is missing in .* not sorted into classes",
        ),
    ],
)
def test_what_is_missing_of_a_competition_is_named(official, missing, message):
    source = official(2010)
    (source / missing).unlink()
    with pytest.raises(UserError, match=message):
        prepare("ilsvrc2010", source)


def test_another_year_s_or_a_damaged_kit_is_refused_in_words(official, tar_of):
    source = official(2012)
    kit = source / "ILSVRC2012_devkit_t12.tar.gz"
    good = kit.read_bytes()
    tar_of(kit, {"data/meta.mat": meta_mat(2010)}, "w:gz")
    with pytest.raises(UserError, match=r"The meta.mat in .* is not ILSVRC-2012's"):
        prepare("ilsvrc2012", source)
    kit.write_bytes(good[:-200])
    with pytest.raises(UserError, match=r"devkit_t12.tar.gz cannot be unpacked"):
        prepare("ilsvrc2012", source)
    tar_of(kit, {"data/meta.mat": meta_mat(2012), "data/ILSVRC2012_validation_ground_truth.txt": b"1\n9\n"}, "w:gz")
    with pytest.raises(UserError, match=r"validation_ground_truth.txt has 9, which is no class of .*val images"):
        prepare("ilsvrc2012", source)


def test_a_kit_that_crashes_its_reader_or_keeps_it_for_ever_is_one_line(official, monkeypatch):
    source = official(2012)
    for code, said in (("import os; os.kill(os.getpid(), 11)", "its reader ended with -11"),
                       ("while True: pass", "it takes too long to read")):  # fmt: skip
        monkeypatch.setattr(imagenet, "READ_KIT", code)
        monkeypatch.setattr(imagenet, "KIT_SECONDS", 1)
        with pytest.raises(UserError, match=rf"The meta.mat in .* is not ILSVRC-2012's \({said}\)"):
            prepare("ilsvrc2012", source)


def test_images_without_a_label_and_labels_without_an_image_are_reported(official, photographs, tar_of, capsys):
    source = official(2012)
    members = named(2012, photographs["val"])
    members["ILSVRC2012_val_00000099.JPEG"] = members.pop("ILSVRC2012_val_00000002.JPEG")
    members["readme.JPEG"] = b"no number"
    del members["ILSVRC2012_val_00000003.JPEG"]
    tar_of(source / "ILSVRC2012_img_val.tar", members)
    data = prepare("ilsvrc2012", source, accept_bad=True)
    assert len(data.splits["val"]) == len(TRUTH["val"]) - 2
    printed = capsys.readouterr().err
    assert re.search(r"val: skipped ILSVRC2012_val_00000099.JPEG in .*img_val.tar: no label", printed)
    assert re.search(r"val: skipped readme.JPEG in .*: no label", printed)


def test_zipped_images_and_patches_of_2010_are_read(official, photographs, tar_of, jpeg, picture):
    source = official(2010)
    members = named(2010, photographs["test"])
    zipped = {**members, "ILSVRC2010_test_00000002.JPEG": gzip.compress(members["ILSVRC2010_test_00000002.JPEG"])}
    tar_of(source / "ILSVRC2010_images_test.tar", zipped)
    better = jpeg(picture(99))
    tar_of(source / "patch_images.tar", {"patch_images/test/ILSVRC2010_test_00000004.JPEG": better,
                                         "patch_images/train/n02510455_300.JPEG": better})  # fmt: skip
    data = prepare("ilsvrc2010", source)
    members["ILSVRC2010_test_00000004.JPEG"] = better
    check_split(data.splits["test"], members, labels_of(TRUTH["test"]))
    expected = photograph.read(io.BytesIO(better), SIDE)
    assert (data.splits["train"].images == expected).all((1, 2, 3)).tolist() == [False] * 6 + [True] + [False] * 8


def test_an_archive_counts_where_a_class_has_a_folder_too(official, photographs, tar_of, write_folder):
    source = official(2012)
    expected = prepare("ilsvrc2012", source).fingerprint
    (source / "ILSVRC2012_img_train.tar").unlink()
    (source / "train").mkdir()
    for wnid, members in photographs["train"].items():
        tar_of(source / "train" / f"{wnid}.tar", members)
    write_folder(source / "train" / "n02510455", dict([next(iter(photographs["train"]["n02510455"].items()))]))
    data = prepare("ilsvrc2012", source, force=True)
    assert data.fingerprint == expected


def test_the_published_sizes_are_known_before_anything_is_prepared():
    assert SETS["ilsvrc2010"].counts == {"train": 1261406, "val": 50000, "test": 150000}
    assert SETS["ilsvrc2012"].counts == {"train": 1281167, "val": 50000}
    assert SETS["ilsvrc2012"].num_bytes == pytest.approx(262e9, rel=0.01)
