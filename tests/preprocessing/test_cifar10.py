"""Where images come from: small sets with CIFAR-10's layout, in all the ways that they can be wrong."""

import hashlib
import pickle
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torchvision
from PIL import Image

from alexnet.config import UserError
from alexnet.preprocessing import cifar10, prepared_set, synthetic
from alexnet.preprocessing.catalog import SETS
from alexnet.preprocessing.prepare import prepare

COUNTS = {"train": 3, "test": 2}


@pytest.fixture(autouse=True)
def small_cifar10(tmp_path, monkeypatch):
    monkeypatch.setenv("ALEXNET_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(cifar10, "OF_EACH", COUNTS)


def picture(split, k, i):
    return np.random.default_rng([len(split), k, i]).integers(0, 256, (32, 32, 3)).astype(np.uint8)


@pytest.fixture
def folders(tmp_path):
    """The images as `{train,test}/<class>/*.png`."""
    source = tmp_path / "folders"
    for split, count in COUNTS.items():
        for k, name in enumerate(cifar10.CLASSES):
            (source / split / name).mkdir(parents=True)
            for i in range(count):
                Image.fromarray(picture(split, k, i)).save(source / split / name / f"{i:04d}.png")
    return source


@pytest.fixture
def batches(tmp_path, monkeypatch):
    """The same images as torchvision unpacks them, in a shuffled order, with the checksums that belong to them."""
    source, layout = tmp_path / "torchvision", torchvision.datasets.CIFAR10
    (source / layout.base_folder).mkdir(parents=True)

    def write(name, content):
        data = pickle.dumps(content)
        (source / layout.base_folder / name).write_bytes(data)
        return hashlib.md5(data).hexdigest()

    lists = {}
    for split, count in COUNTS.items():
        places = np.random.default_rng(0).permutation([(k, i) for k in range(10) for i in range(count)]).tolist()
        halves = [places] if split == "test" else [places[:15], places[15:]]
        lists[split] = []
        for number, half in enumerate(halves):
            rows = np.stack([picture(split, k, i).transpose(2, 0, 1).ravel() for k, i in half])
            name = f"{split}_batch_{number}"
            lists[split].append([name, write(name, {"data": rows, "labels": [k for k, _ in half]})])
    meta = {**layout.meta, "md5": write(layout.meta["filename"], {"label_names": list(cifar10.CLASSES)})}
    for attribute, value in (("train_list", lists["train"]), ("test_list", lists["test"]), ("meta", meta)):
        monkeypatch.setattr(layout, attribute, value)
    return source


def test_class_folders_become_a_set_of_labelled_images(folders):
    data = prepare("cifar10", folders)
    assert data.classes == cifar10.CLASSES
    assert not data.stand_in
    for split, count in COUNTS.items():
        part = data.splits[split]
        assert part.labels.tolist() == [k for k in range(10) for _ in range(count)]
        for k in range(10):
            found = {image.tobytes() for image in part.images[part.labels == k]}
            assert found == {picture(split, k, i).tobytes() for i in range(count)}


def test_both_layouts_give_the_same_bytes(folders, batches):
    one = prepare("cifar10", folders)
    other = prepare("cifar10", batches, force=True)
    assert one.fingerprint == other.fingerprint
    assert np.array_equal(one.mean, other.mean)


def test_a_set_begun_from_one_layout_is_not_continued_from_the_other(folders, batches):
    expected = prepare("cifar10", batches).fingerprint
    shutil.rmtree(prepared_set.data_dir())
    (folders / "train" / "frog" / "0001.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"frog/0001.png cannot be read"):
        prepare("cifar10", folders)
    assert prepare("cifar10", batches).fingerprint == expected


def test_an_unreadable_file_is_named_and_can_be_mended(folders):
    expected = prepare("cifar10", folders).fingerprint
    file = folders / "test" / "dog" / "0001.png"
    good = file.read_bytes()
    file.write_bytes(good[:-1500])
    with pytest.raises(UserError, match=r"test/dog/0001.png cannot be read as an image .* repeat"):
        prepare("cifar10", folders, force=True)
    file.write_bytes(good)
    assert prepare("cifar10", folders, force=True).fingerprint == expected


def test_a_file_that_is_no_image_at_all_is_named(folders):
    (folders / "train" / "cat" / "0000.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"train/cat/0000.png cannot be read as an image"):
        prepare("cifar10", folders)


def test_an_image_of_another_size_is_named(folders):
    Image.new("RGB", (33, 31)).save(folders / "test" / "ship" / "0000.png")
    with pytest.raises(UserError, match=r"test/ship/0000.png cannot be read .*\(33x31 pixels where 32x32 are needed"):
        prepare("cifar10", folders)


def test_a_greyscale_image_is_read_in_three_equal_colours(folders):
    Image.new("L", (32, 32), 7).save(folders / "test" / "ship" / "0000.png")
    images = prepare("cifar10", folders).splits["test"].images
    assert (images == 7).all(axis=(1, 2, 3)).sum() == 1


def test_a_wrong_count_names_the_folder_and_both_numbers_and_can_be_mended(folders):
    file = folders / "test" / "horse" / "0001.png"
    content = file.read_bytes()
    file.unlink()
    with pytest.raises(UserError, match=r"test/horse holds 1 images where CIFAR-10 has 2"):
        prepare("cifar10", folders)
    file.write_bytes(content)
    assert len(prepare("cifar10", folders).splits["test"]) == 20


@pytest.mark.parametrize("new", ["lorry", "11_truck", "Truck"])
def test_class_folders_in_another_order_are_refused_by_name(folders, new):
    (folders / "train" / "truck").rename(folders / "train" / new)
    with pytest.raises(UserError, match=rf"train/{new} should not be there: .* hold the 10 classes .*: airplane, auto"):
        prepare("cifar10", folders)
    (folders / "train" / new).rename(folders / "train" / "truck")
    prepare("cifar10", folders)


def test_a_wrong_source_does_not_cost_the_set_that_is_there(folders, tmp_path):
    expected = prepare("cifar10", folders).fingerprint
    (folders / "test" / "frog" / "0000.png").unlink()
    for wrong in (folders, tmp_path):
        with pytest.raises(UserError):
            prepare("cifar10", wrong, force=True)
    assert prepare("cifar10").fingerprint == expected


def test_a_missing_class_folder_is_named(folders):
    shutil.rmtree(folders / "test" / "bird")
    with pytest.raises(UserError, match=r"test/bird is missing"):
        prepare("cifar10", folders)


def test_a_missing_half_of_the_class_folders_is_named(folders):
    shutil.rmtree(folders / "test")
    with pytest.raises(UserError, match=r"folders/test/airplane is missing"):
        prepare("cifar10", folders)


def test_a_damaged_batch_of_torchvision_is_refused(batches):
    file = batches / "cifar-10-batches-py" / "train_batch_1"
    content = file.read_bytes()
    file.write_bytes(content[:-1] + b"!")
    with pytest.raises(UserError, match=r"could not be read .*train_batch_1 is damaged.*prepare cifar10 --source DIR"):
        prepare("cifar10", batches)
    file.write_bytes(content)
    prepare("cifar10", batches)


def test_a_folder_with_neither_layout_is_told_what_was_looked_for(tmp_path):
    with pytest.raises(UserError, match=r"DIR has \{train,test\}/<class>/\*.png, or the unpacked cifar-10-batches-py"):
        prepare("cifar10", tmp_path)


@pytest.mark.parametrize("where", ["in its archive", "in the folder itself", "downloaded"])
def test_the_version_for_python_is_read_wherever_it_is(batches, tmp_path, monkeypatch, where):
    expected = prepare("cifar10", batches).fingerprint
    folder = batches / "cifar-10-batches-py"
    with tarfile.open(tmp_path / "cifar-10-python.tar.gz", "w:gz") as tar:
        tar.add(folder, folder.name)
    if where == "downloaded":
        monkeypatch.setattr(
            torchvision.datasets.utils, "download_url", lambda url, root, name, md5: shutil.copytree(batches, root)
        )
        assert prepare("cifar10", force=True).fingerprint == expected
    else:
        source = folder if where == "in the folder itself" else tmp_path
        assert prepare("cifar10", source, force=True).fingerprint == expected


def test_a_damaged_archive_of_cifar10_is_refused(tmp_path):
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(b"\x1f\x8b no archive")
    with pytest.raises(UserError, match=r"cifar-10-python.tar.gz cannot be unpacked"):
        prepare("cifar10", tmp_path)


def test_a_failed_download_says_how_to_give_a_copy(monkeypatch):
    def no_network(*args):
        raise RuntimeError("Error downloading cifar-10-python.tar.gz")

    monkeypatch.setattr(torchvision.datasets.utils, "download_url", no_network)
    with pytest.raises(
        UserError, match=r"could not be .*downloaded.*cifar-10-python.tar.gz.*alexnet prepare cifar10 --source DIR"
    ):
        prepare("cifar10")


def test_a_prepared_set_is_opened_without_its_source(folders):
    first = prepare("cifar10", folders)
    shutil.rmtree(folders)
    assert prepare("cifar10").fingerprint == first.fingerprint


def test_an_unknown_set_is_answered_with_the_nearest_and_the_known_ones():
    with pytest.raises(UserError, match=r"no data set 'cifar100'; did you mean 'cifar10'.*Known are cifar10, formula32"):
        prepare("cifar100")


def test_the_stand_in_is_prepared_from_its_seed_and_says_what_it_is(monkeypatch):
    monkeypatch.setitem(SETS["formula32"].counts, "train", 70)
    monkeypatch.setitem(SETS["formula32"].counts, "test", 10)
    data = prepare("formula32")
    assert data.stand_in
    assert data.classes == synthetic.SMALL.classes
    images, labels = synthetic.generate(synthetic.SMALL, "train", 70)
    assert np.array_equal(data.splits["train"].images, images)
    assert np.array_equal(data.splits["train"].labels, labels)


def test_the_stand_in_takes_no_source(tmp_path):
    with pytest.raises(UserError, match=r"formula32 is computed from a seed; leave out --source"):
        prepare("formula32", tmp_path)


@pytest.mark.parametrize("kind", ["cifar10", "formula32", "formula256"])
@pytest.mark.parametrize("option", [{"codec": "raw"}, {"codec": "jpeg"}, {"processes": 2}])
def test_options_of_photographs_are_refused_for_sets_that_are_arrays(tmp_path, monkeypatch, kind, option):
    monkeypatch.setenv("ALEXNET_DATA", str(tmp_path))
    with pytest.raises(
        UserError, match=rf"--codec and --processes are for sets of photographs, and {kind} is none"
    ) as refused:
        prepare(kind, **option)
    assert "\n" not in str(refused.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("option", [{"source": Path(".")}, {"accept_bad": True}])
def test_options_of_a_source_are_refused_for_formulas_also_when_the_set_is_there(tiny, option):
    with pytest.raises(UserError, match="formula32 is computed from a seed; leave out --source and --accept-bad"):
        prepare("formula32", **option)


def test_a_source_that_is_not_there_is_told_of_when_the_set_is(tiny, tmp_path, capsys):
    (tmp_path / "data" / "formula32").rename(tmp_path / "data" / "cifar10")
    prepare("cifar10", tmp_path / "nowhere")
    assert "nowhere is not a folder. cifar10 is prepared, and stays as it is." in capsys.readouterr().err


def test_a_fraction_for_validation_needs_a_source(tiny):
    with pytest.raises(UserError, match="--val-fraction says how --source is split"):
        prepare("folders", name="mine", val_fraction=0.1)
