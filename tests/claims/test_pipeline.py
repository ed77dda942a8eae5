"""The images' chapter: its tables against the paper and counts by hand, its pictures against stored pixels and float64."""

from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest

from alexnet.claims import pipeline
from alexnet.preprocessing import datasets


@pytest.fixture
def chapter(photographs):
    """The chapter on a small stand-in of two images or fewer of each class."""
    return pipeline.load("toy", class_shown=3)


def cells(table):
    """Rows of a table by their first cell, which is left out; the rest without blanks."""
    lines = [line.strip("|").split("|") for line in table.data.splitlines() if line.startswith("|")][2:]
    return {first.strip(): [cell.strip() for cell in rest] for first, *rest in lines}


def shown(figure):
    """Pixels of each picture of a figure, uint8, and the text above each."""
    pictures = [axes for axes in figure.axes if axes.get_images()]
    return [axes.get_images()[0].get_array() for axes in pictures], [axes.get_title(loc="left") for axes in pictures]


def under(figure):
    return [text.get_text() for text in figure.texts]


def test_the_chapter_shows_an_image_of_the_class_that_is_asked_for(chapter):
    train = chapter.data.splits["train"]
    assert train.labels[chapter.place] == 3
    assert not (train.labels[: chapter.place] == 3).any()


@pytest.mark.parametrize("scale", ["cpu", "paper"])
def test_without_photographs_the_stand_in_is_shown_and_called_so_everywhere(photographs, scale):
    chapter = pipeline.load(scale)
    assert pipeline.numbers(chapter)["data"].startswith("the stand-in for ILSVRC")
    assert "stand-in" in pipeline.axes_table(chapter).data
    figures = (pipeline.samples, pipeline.mean_image, pipeline.training_views, pipeline.noise_draws, pipeline.ten_views)
    for draw in figures:
        assert under(draw(chapter)) == [f"scale {scale} | the stand-in for ILSVRC (images computed from a formula)"]


def test_photographs_are_shown_where_they_are_prepared_but_not_at_scale_toy(photographs, tmp_path, monkeypatch):
    monkeypatch.setenv("ALEXNET_DATA", str(tmp_path))
    for name in ("formula256", "imagenet20"):
        (tmp_path / name).symlink_to(photographs.folder)
    names = {scale: pipeline.load(scale).data.name for scale in ("toy", "cpu", "paper")}
    assert names == {"toy": "formula256", "cpu": "imagenet20", "paper": "imagenet20"}
    assert under(pipeline.samples(pipeline.load("cpu"))) == ["scale cpu | ImageNet-20"]


def test_every_set_is_counted_and_only_what_is_prepared_is_said_to_be_here(photographs):
    table = pipeline.counts_table()
    rows = cells(table)
    assert rows["ILSVRC-2010"] == ["1,000", "1,261,406", "50,000", "150,000"]
    assert rows["ILSVRC-2012"][-1] == "no labels"
    assert rows["ImageNet, fall 2009"] == ["10,184", "4.45 million", "", "4.45 million"]
    assert rows["ImageNet-20"] == ["20", "18,494", "7,854", ""]
    assert "Prepared on this machine: the stand-in for ILSVRC.\n" in table.data
    assert len(rows) == len(datasets.PREPARERS) - 1  # all but folders, which have no published size


def test_2178_views_stand_under_the_printed_2048():
    assert list(cells(pipeline.views_table()).values()) == [
        ["32 x 32 x 2", "2,048"],
        ["33 x 33 x 2", "2,178"],
        ["9 x 9 x 2", "162"],
    ]


def test_the_noise_of_a_known_covariance_has_the_deviations_of_both_readings(chapter):
    known = replace(chapter, data=replace(chapter.data, covariance=np.diag([100.0, 900.0, 14400.0])))
    rows = cells(pipeline.axes_table(known))
    assert rows["1"][:4] == ["0.00, 0.00, 1.00", "120.0", "12.0", "1,440"]
    assert rows["3"][:4] == ["1.00, 0.00, 0.00", "10.0", "1.0", "10"]
    assert [row[4] for row in rows.values()] == ["12.2", "3.7", "2.0"]
    numbers = pipeline.numbers(known)
    assert (numbers["noise"], numbers["noise-literal"], numbers["main-share"]) == ("12.0", "1,440", "94%")


def test_noise_moves_all_pixels_of_an_image_by_one_colour_and_eigenvalues_put_out_the_picture(chapter):
    first, *drawn = pipeline.noisy(chapter, literal=False, count=2)
    assert np.array_equal(first, chapter.image)
    shifts = [(picture - first).reshape(-1, 3) for picture in drawn]
    for shift in shifts:
        assert np.abs(shift - shift.mean(axis=0)).max() < 1e-3
    assert np.abs(shifts[0][0] - shifts[1][0]).max() > 0.1
    literal = [picture - first for picture in pipeline.noisy(chapter, literal=True, count=2)[1:]]
    ratios = [np.linalg.norm(far[0, 0]) / np.linalg.norm(near[0]) for far, near in zip(literal, shifts, strict=True)]
    assert min(ratios) > 10
    assert int(pipeline.numbers(chapter)["gone"].rstrip("%")) > 20


def test_ten_views_are_the_corners_and_the_centre_of_a_test_image_and_their_reflections(chapter):
    pictures, titles = shown(pipeline.ten_views(chapter))
    test = chapter.data.splits["test"]
    image = test.images[list(test.labels).index(3)].astype(np.float64) - chapter.data.mean
    image += chapter.data.mean.mean((0, 1), dtype=np.float64)
    expected = image.clip(0, 255)
    offsets = {
        "top left": (0, 0),
        "top right": (0, 32),
        "centre": (16, 16),
        "bottom left": (32, 0),
        "bottom right": (32, 32),
    }
    assert titles == [*offsets, *["mirrored"] * 5]
    for picture, mirrored, (top, left) in zip(pictures, pictures[5:], offsets.values(), strict=False):
        view = expected[top : top + 224, left : left + 224]
        assert np.abs(picture - view).max() < 0.51
        # The mean that is subtracted is mirrored with the image.
        assert np.abs(mirrored - view[:, ::-1]).max() < 0.51


def test_the_difference_is_drawn_halved_around_grey(chapter):
    (image, mean, difference), _ = shown(pipeline.mean_image(chapter))
    assert np.array_equal(image, chapter.image)
    assert np.abs(mean - chapter.data.mean).max() <= 0.5
    assert np.abs(difference - 127.5 - (image - chapter.data.mean) / 2).max() < 0.51


def test_samples_are_stored_images_under_the_names_of_their_classes(chapter):
    pictures, titles = shown(pipeline.samples(chapter, count=3))
    train = chapter.data.splits["train"]
    for picture, title in zip(pictures, titles, strict=True):
        label = chapter.data.words.index(title.replace("\n", " "))
        assert np.array_equal(picture, train.images[list(train.labels).index(label)])
    assert len(set(titles)) == 3


def test_training_views_differ_from_epoch_to_epoch_and_drawing_again_gives_the_same_bytes(chapter):
    pictures, titles = shown(pipeline.training_views(chapter, count=3))
    assert titles == ["epoch 0", "epoch 1", "epoch 2"]
    assert pictures[0].shape == (224, 224, 3)
    assert not np.array_equal(pictures[0], pictures[1])
    files = [BytesIO(), BytesIO()]
    for file in files:
        pipeline.training_views(chapter, count=3).savefig(file, format="png")
    assert files[0].getvalue() == files[1].getvalue()


def test_rows_on_images_come_from_the_ledger(photographs):
    rows = cells(pipeline.source_table())
    assert rows["Crops and reflections multiply the set by 2048. (4.1)"][1] == "Both presets: 2,178 views, 33x33x2."
    assert any("division" in said for said in rows)
    assert not any("dropout" in said.lower() for said in rows)
