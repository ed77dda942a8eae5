"""Figures: two palettes from one drawing, alt text, caption and provenance, the same bytes each time."""

import base64
import re

import matplotlib.pyplot as plt
import numpy as np
import pytest

from alexnet.report import figures


def drawn():
    figure, axes = plt.subplots()
    for colour in figures.COLOURS:
        axes.plot([0, 1], [0, 1], color=colour)
    axes.set_xlabel("epochs")
    return figure


def luminance(colour):
    """Relative luminance of WCAG 2."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one, other):
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("colour", [*figures.COLOURS, figures.GREY, figures.INK])
def test_a_colour_can_be_read_on_both_grounds(colour):
    """WCAG asks 3 of graphics, and of letters 4.5: both are asked here of all, for words are set in all."""
    assert contrast(colour, figures.PAPER) >= (3.0 if colour == figures.ORANGE else 4.5)
    assert contrast(figures.DARK[colour], figures.DARK[figures.PAPER]) >= 4.5


def test_no_light_colour_is_left_in_the_dark_rendering():
    light = figures.as_svg(drawn())
    dark = figures.in_the_dark(light)
    assert {figures.BLUE, figures.GREY, figures.INK} <= set(re.findall(r"#[0-9a-f]{6}", light))
    assert not set(figures.DARK) & set(re.findall(r"#[0-9a-f]{6}", dark))


def test_a_drawing_is_the_same_bytes_each_time_and_has_no_ground():
    assert figures.as_svg(drawn()) == figures.as_svg(drawn())
    assert "fill: #ffffff" not in figures.as_svg(drawn())


def test_photographs_keep_their_pixels_in_the_dark():
    figure, axes = plt.subplots()
    axes.imshow([[0, 1], [2, 3]])
    light = figures.as_svg(figure)
    pictures = [re.findall(r"base64,([^\"]+)", svg) for svg in (light, figures.in_the_dark(light))]
    assert pictures[0] == pictures[1]
    assert base64.b64decode(pictures[0][0])[:4] == b"\x89PNG"


def test_photographs_are_kept_as_jpegs_where_that_is_much_smaller():
    figure, axes = plt.subplots()
    rows, columns = np.mgrid[:200, :200]
    smooth = np.stack([rows, columns, 127 + 60 * np.sin(rows * columns / 900)], axis=2).astype(np.uint8)
    axes.imshow(smooth)
    assert "data:image/jpeg;base64," in figures.as_svg(figure)
    assert "data:image/png" not in figures.as_svg(figure)


def test_in_a_book_a_figure_is_two_files_with_alt_text_caption_and_provenance(tmp_path, monkeypatch):
    monkeypatch.setenv(figures.FOLDER, str(tmp_path))
    plt.close("all")
    shown = figures.show(drawn(), "fig-x", "A caption.", "Lines that\nrise.", "scale toy", "Runs: none.")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["fig-x-dark.svg", "fig-x.svg"]
    head, *rest = shown.data.splitlines()
    assert head == f":::{{figure}} {tmp_path.name}/fig-x.svg"
    assert rest == [":name: fig-x", ":alt: Lines that rise.", "", "A caption.", "", "Runs: none.", ":::"]
    assert not plt.get_fignums()


def test_in_a_notebook_by_itself_the_figure_stands_in_its_place(monkeypatch, capsys):
    monkeypatch.delenv(figures.FOLDER, raising=False)
    assert figures.show(drawn(), "fig-x", "A caption.", "Lines.").data.startswith("A caption.")
    assert "SVG" in capsys.readouterr().out


def test_the_stamp_lies_below_what_is_drawn():
    figure = drawn()
    bottom = figure.get_tightbbox().y0 / figure.get_figheight()
    figures.show(figure, "fig-x", "", "", stamp="scale toy")
    (stamp,) = figure.texts
    assert stamp.get_position()[1] < bottom
