"""ILSVRC and class folders as people have them: from Kaggle, from Hugging Face, half unpacked, without splits."""

import gzip
import json
import os

import numpy as np
import pytest

from alexnet.config import UserError
from alexnet.preprocessing import prepared_set
from alexnet.preprocessing.catalog import SETS
from alexnet.preprocessing.image_index import ImageIndex
from alexnet.preprocessing.prepare import prepare

WNIDS = ("n01440764", "n02510455", "n03000684")
LABELS = [2, 0, 1, 1, 2]  # of the validation images, in their order


@pytest.fixture
def val(picture, jpeg):
    return {f"ILSVRC2012_val_{i:08d}.JPEG": jpeg(picture(5, i)) for i in range(1, len(LABELS) + 1)}


@pytest.fixture
def expected(small, classes, val, write_folder, monkeypatch):
    """The fingerprint of the set that all of them give, from class folders."""
    monkeypatch.setitem(SETS["ilsvrc2012"].counts, "train", 15)
    monkeypatch.setitem(SETS["ilsvrc2012"].counts, "val", len(LABELS))
    for label, wnid in enumerate(WNIDS):
        write_folder(small / "plain" / "train" / wnid, classes[wnid])
        members = {name: data for (name, data), k in zip(val.items(), LABELS, strict=True) if k == label}
        write_folder(small / "plain" / "val" / wnid, members)
    return prepare("ilsvrc2012", small / "plain").fingerprint


def kaggle(source, classes, val, write_folder):
    for wnid, members in classes.items():
        write_folder(source / "ILSVRC/Data/CLS-LOC/train" / wnid, members)
    write_folder(source / "ILSVRC/Data/CLS-LOC/val", val)
    write_folder(source / "ILSVRC/Data/CLS-LOC/test", {"ILSVRC2012_test_00000001.JPEG": b"has no label"})
    rows = [f"{name[:-5]},{WNIDS[k]} 85 1 499 272 {WNIDS[k]} 1 1 2 2 " for name, k in zip(val, LABELS, strict=True)]
    (source / "LOC_val_solution.csv").write_text("\n".join(["ImageId,PredictionString", *rows[::-1]]) + "\n")
    (source / "LOC_synset_mapping.txt").write_text("n01440764 tench, Tinca tinca\nn02510455 giant panda\nn03000684 saw\n")


def test_kaggles_folders_and_lists_are_read(small, classes, val, write_folder, expected):
    kaggle(small / "kaggle", classes, val, write_folder)
    data = prepare("ilsvrc2012", small / "kaggle", force=True)
    assert data.fingerprint == expected
    assert data.words == ("tench, Tinca tinca", "giant panda", "saw")


def hugging_face(source, classes, val, tar_of):
    """Two archives of training images, each with some of every class, and one of validation images."""
    named = [(f"{n[:-5]}_{wnid}.JPEG", data) for wnid in WNIDS for n, data in classes[wnid].items()]
    source.mkdir(parents=True)
    tar_of(source / "train_images_0.tar.gz", dict(named[::2]), "w:gz")
    tar_of(source / "train_images_1.tar.gz", dict(named[1::2]), "w:gz")
    members = {f"{n[:-5]}_{WNIDS[k]}.JPEG": data for (n, data), k in zip(val.items(), LABELS, strict=True)}
    tar_of(source / "val_images.tar.gz", members, "w:gz")


@pytest.mark.parametrize("folder", [".", "data"])
def test_hugging_faces_archives_have_their_labels_in_the_names(small, classes, val, tar_of, expected, folder):
    hugging_face(small / "hf" / folder, classes, val, tar_of)
    data = prepare("ilsvrc2012", small / "hf", force=True)
    assert data.classes == WNIDS
    assert data.fingerprint == expected
    assert not (prepared_set.data_dir() / "ilsvrc2012.download").exists()


def test_hugging_faces_archives_unpacked_into_one_folder_each_are_read(small, classes, val, write_folder, expected):
    members = {f"{n[:-5]}_{wnid}.JPEG": data for wnid in WNIDS for n, data in classes[wnid].items()}
    write_folder(small / "hf" / "train", members)
    write_folder(small / "hf" / "val", {f"{n[:-5]}_{WNIDS[k]}.JPEG": val[n] for n, k in zip(val, LABELS, strict=True)})
    assert prepare("ilsvrc2012", small / "hf", force=True).fingerprint == expected


def test_a_damaged_archive_of_hugging_face_is_one_line(small, classes, val, tar_of, expected):
    hugging_face(small / "hf", classes, val, tar_of)
    whole = (small / "hf" / "train_images_1.tar.gz").read_bytes()
    (small / "hf" / "train_images_1.tar.gz").write_bytes(whole[:-300])
    with pytest.raises(UserError, match=r"train_images_1.tar.gz cannot be unpacked"):
        prepare("ilsvrc2012", small / "hf", force=True)
    (small / "hf" / "train_images_1.tar.gz").write_bytes(gzip.compress(b"no tar" * 200))
    with pytest.raises(UserError, match=r"train_images_1.tar cannot be read as a tar file"):
        prepare("ilsvrc2012", small / "hf", force=True)
    assert prepare("ilsvrc2012").fingerprint == expected


def flat(small, classes, val, write_folder):
    for wnid, members in classes.items():
        write_folder(small / "flat" / "train" / wnid, members)
    write_folder(small / "flat" / "val", val)
    return small / "flat"


def test_a_list_of_names_and_numbers_has_the_labels(small, classes, val, write_folder, expected):
    source = flat(small, classes, val, write_folder)
    (source / "val.txt").write_text("".join(f"{name} {k}\n" for name, k in zip(val, LABELS, strict=True)))
    assert prepare("ilsvrc2012", source, force=True).fingerprint == expected


def test_archives_left_lying_after_unpacking_are_neither_classes_nor_images(
    small, classes, val, write_folder, tar_of, expected
):
    source = flat(small, classes, val, write_folder)
    (source / "val.txt").write_text("".join(f"{name} {k}\n" for name, k in zip(val, LABELS, strict=True)))
    tar_of(source / "train" / "ILSVRC2012_img_train.tar", {f"{WNIDS[0]}.tar": tar_of(None, classes[WNIDS[0]])})
    tar_of(source / "val" / "ILSVRC2012_img_val.tar", val)
    (source / "val" / "valprep.zip").write_bytes(b"PK")
    assert prepare("ilsvrc2012", source, force=True).fingerprint == expected


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            None,
            r"ILSVRC2012_validation_ground_truth.txt is missing in .* \(val images\).* or val.txt or LOC_val_solution.csv",
        ),
        ("ILSVRC2012_val_00000001.JPEG 3\n", r"val.txt has 3, which is no class"),
        ("ILSVRC2012_val_00000001.JPEG -1\n", r"val.txt has -1, which is no class"),
        ("ILSVRC2012_val_00000001.JPEG\n", r"val.txt has , which is no class"),
        ("ILSVRC2012_val_00000001.JPEG 1\n", r"split val has 4 of 5 images missing or unreadable"),
    ],
)
def test_missing_labels_are_refused_before_anything_is_decoded(
    small, classes, val, write_folder, expected, monkeypatch, labels, message
):
    source = flat(small, classes, val, write_folder)
    if labels is not None:
        (source / "val.txt").write_text(labels)
    monkeypatch.setattr(ImageIndex, "read", lambda *args: pytest.fail("decoded"))
    with pytest.raises(UserError, match=message):
        prepare("ilsvrc2012", source, force=True)


@pytest.fixture
def unsplit(small, picture, write_folder, jpeg):
    """Twenty photographs of dogs, ten of cats, one of an ocelot."""
    for k, (name, count) in enumerate((("dog", 20), ("cat", 10), ("ocelot", 1))):
        write_folder(small / "unsplit" / name, {f"{i}.jpg": jpeg(picture(k, i)) for i in range(count)})
    return small / "unsplit"


@pytest.mark.parametrize("where", [".", "train"])
def test_a_fraction_of_each_class_is_put_aside_and_always_the_same(unsplit, small, where):
    if where == "train":
        unsplit.rename(small / "train")
        (small / "whole").mkdir()
        (small / "train").rename(small / "whole" / "train")
        unsplit = small / "whole"
    data = prepare("folders", unsplit, val_fraction=0.2)
    assert data.classes == ("cat", "dog", "ocelot")
    assert np.bincount(data.splits["train"].labels).tolist() == [8, 16, 1]
    assert np.bincount(data.splits["val"].labels, minlength=3).tolist() == [2, 4, 0]
    every = np.concatenate([part.images for part in data.splits.values()])
    assert len(np.unique(every, axis=0)) == 31, "an image in both"
    assert prepare("folders", unsplit, force=True, val_fraction=0.2).fingerprint == data.fingerprint
    assert prepare("folders", unsplit, force=True, val_fraction=0.3).fingerprint != data.fingerprint
    assert json.loads((data.folder / "prepare.json").read_text())["val_fraction"] == 0.3


def test_a_fraction_that_makes_no_sense_is_refused(source, unsplit):
    for fraction in (0.0, 1.0, -0.1, float("nan")):
        with pytest.raises(UserError, match=r"--val-fraction must be more than 0 and less than 1"):
            prepare("folders", unsplit, val_fraction=fraction)
    with pytest.raises(UserError, match=r"has train, test; a set needs .* or --val-fraction 0.1 and no val or test"):
        prepare("folders", source, val_fraction=0.1)
    with pytest.raises(UserError, match=r"has neither train, val nor test; .*--val-fraction 0.1"):
        prepare("folders", unsplit)
    with pytest.raises(UserError, match=r"--name and --val-fraction are for class folders"):
        prepare("cifar10", source, val_fraction=0.1)


def test_several_sets_of_class_folders_have_names_of_their_own(source, unsplit):
    first, second = prepare("folders", source, name="pets"), prepare("folders", unsplit, val_fraction=0.1, name="wild")
    assert prepare("pets").fingerprint == first.fingerprint != second.fingerprint == prepare("wild").fingerprint
    assert not prepared_set.is_prepared("folders")
    assert SETS["wild"].title == "wild"
    assert not SETS["wild"].stand_in
    (first.folder / "mean.npy").write_bytes(b"")
    with pytest.raises(UserError, match=r"alexnet prepare folders --name pets --source DIR --force"):
        prepare("pets")
    with pytest.raises(UserError, match=r"alexnet prepare folders --name pets --source DIR --force"):
        prepare("pets", source, force=True)


@pytest.mark.parametrize("name", ["cifar10", "ilsvrc2012", "..", "a/b", "", "Pets", "a\x1b", ".hidden"])
def test_a_name_that_is_a_known_sets_or_no_folders_is_refused(source, name):
    with pytest.raises(UserError, match="--name must be small letters"):
        prepare("folders", source, name=name)


def test_a_prepared_set_is_not_taken_for_one_of_another_source(source, unsplit):
    first = prepare("folders", source)
    assert prepare("folders", source).fingerprint == first.fingerprint
    with pytest.raises(UserError, match=r"folders is prepared from .*source, and the files in .*unsplit.* others now"):
        prepare("folders", unsplit, val_fraction=0.1)
    image = source / "train" / "cat" / "cat_0.png"
    image.write_bytes((source / "train" / "dog" / "dog_0.png").read_bytes())
    with pytest.raises(UserError, match=r"--force"):
        prepare("folders", source)
    assert prepare("folders", source, force=True).fingerprint != first.fingerprint
    source.rename(source.with_name("moved"))
    assert prepare("folders", source.with_name("moved")).fingerprint == prepare("folders").fingerprint
    assert prepare("folders", source).fingerprint == prepare("folders").fingerprint  # its source is not there now


def test_a_loop_of_links_does_not_hold_up_the_look_at_a_source(source):
    (source / "train" / "cat" / "again").symlink_to(source)
    first = prepare("folders", source, accept_bad=True)
    assert prepare("folders", source, accept_bad=True).fingerprint == first.fingerprint


def test_making_a_set_again_does_not_cost_the_one_that_is_there_until_it_is_complete(source, monkeypatch):
    first = prepare("folders", source).fingerprint
    (source / "test" / "dog" / "dog_1.png").write_bytes(b"")
    with pytest.raises(UserError, match="--accept-bad"):
        prepare("folders", source, force=True)
    assert prepared_set.open_set("folders", verify=True).fingerprint == first
    decoded, read = [], ImageIndex.read
    monkeypatch.setattr(ImageIndex, "read", lambda index, i: decoded.append(i) or read(index, i))
    second = prepare("folders", source, force=True, accept_bad=True, processes=1)
    assert decoded == [], "what the first call decoded was lost"
    assert len(second.splits["test"]) == 5
    assert sorted(os.listdir(prepared_set.data_dir())) == ["folders", "folders.lock"]


def test_a_class_without_a_training_image_is_named(source):
    for file in (source / "train" / "cat").iterdir():
        file.unlink()
    with pytest.raises(UserError, match=r"The class cat has no training image"):
        prepare("folders", source)
