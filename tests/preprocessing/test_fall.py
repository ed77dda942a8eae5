"""The whole of ImageNet in the fall of 2009 and of 2011, in the forms in which people have it."""

import io

import numpy as np
import pytest

from alexnet.config import UserError
from alexnet.preprocessing import imagenet, photograph
from alexnet.preprocessing.prepare import prepare

SIDE = 16


@pytest.mark.parametrize("layout", ["folders", "tars", "tar of tars", "folder of tars"])
def test_fall_2009_is_divided_into_halves_that_every_layout_shares(small, classes, tar_of, write_folder, layout):
    source = small / "fall"
    source.mkdir()
    inner = {f"{wnid}.tar": tar_of(None, members) for wnid, members in classes.items()}
    if layout == "tar of tars":
        tar_of(source / "fall09_whole.tar", inner)
    if layout == "folders":
        for wnid, members in classes.items():
            write_folder(source / wnid, members)
    if layout == "folder of tars":
        write_folder(source / "fall09_whole", inner)
    if layout == "tars":
        write_folder(small / "tars", inner)
        source = small / "tars"
    (source / "words.txt").write_text("n00001740\tentity\nn02510455\tgiant panda, panda\n")
    data = prepare("fall2009", source)
    assert data.words == ("n01440764", "giant panda, panda", "n03000684")
    assert data.splits["train"].labels.tolist() == [0, 0, 1, 1, 1, 2, 2]
    assert data.splits["test"].labels.tolist() == [0, 0, 0, 1, 1, 2, 2, 2]
    name_of = {photograph.read(io.BytesIO(m), SIDE).tobytes(): name for ms in classes.values() for name, m in ms.items()}
    train, test = ([name_of[image.tobytes()] for image in part.images] for part in data.splits.values())
    # Pinned: another division would be another set under the same name.
    assert train == [
        "n01440764_10026.JPEG", "n01440764_41.JPEG", "n02510455_10026.JPEG", "n02510455_41.JPEG", "n02510455_7.JPEG",
        "n03000684_5.JPEG", "n03000684_7.JPEG",
    ]  # fmt: skip
    assert sorted(train + test) == sorted(name_of.values())


@pytest.mark.parametrize("count", [0, 1, 2, 101])
def test_a_class_is_divided_as_evenly_as_it_can_be(count):
    wnids = ("n01440764", "n02510455", "n03000684")
    first = imagenet.drawn(np.repeat([0, 1, 2], [count, 3, count]), wnids, "halves", imagenet.half)
    halves = [part.sum() for part in np.split(first, [count, count + 3])]
    assert halves == [count // 2, 2, count // 2]  # of odd numbers one half gets one more, in turn


def test_fall_2011_is_all_for_training(small, classes, tar_of):
    (small / "fall").mkdir()
    tar_of(small / "fall" / "fall11_whole.tar", {f"{w}.tar": tar_of(None, members) for w, members in classes.items()})
    data = prepare("fall2011", small / "fall")
    assert {split: len(part) for split, part in data.splits.items()} == {"train": 15}


def test_an_empty_folder_is_no_release_of_imagenet(small):
    (small / "empty").mkdir()
    with pytest.raises(UserError, match=r"holds neither <wnid>.tar nor <wnid>/"):
        prepare("fall2011", small / "empty")
