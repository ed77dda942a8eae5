"""Links: chapters as the table of contents has them, lines of the 2012 source at its commit, tables beside the pages."""

import json

import pandas as pd
import pytest

from alexnet.report import figures, links


@pytest.fixture
def book(tmp_path, monkeypatch):
    """A book of two chapters, of which the contents name a third that is not written."""
    for name, title, source in (
        ("first", "# One of them (section 3.1)\n\nText.", 'claims = ["a", "b", "c"]\nscale = "toy"'),
        ("second", "# Another", 'claim = "c"\nscale = "toy"  # small'),
    ):
        cells = [{"metadata": {}, "source": [title]}, {"metadata": {"tags": ["parameters"]}, "source": [source]}]
        (tmp_path / f"{name}.ipynb").write_text(json.dumps({"cells": cells}))
    (tmp_path / "_toc.yml").write_text("root: first\nchapters:\n  - file: second\n  - file: third\n")
    monkeypatch.setattr(links, "BOOK_DIR", tmp_path)
    links.chapters.cache_clear()
    yield tmp_path
    links.chapters.cache_clear()


def test_chapters_are_those_that_are_written_with_their_claims(book):
    assert links.chapters() == {"first": ("One of them (section 3.1)", ("a", "b", "c")), "second": ("Another", ("c",))}


def test_a_claim_leads_to_the_chapter_with_the_fewest_others_or_is_named(book):
    assert links.of_claim("b") == "[One of them](first)"
    assert links.of_claim("c") == "[Another](second)"
    assert links.of_claim("d") == "`d`"
    assert links.chapter("third") == ""


@pytest.mark.parametrize(
    ("place", "path"),
    [
        ("layer.py:1183", "layer.py#L1183"),
        ("layer-params-145.cfg:178-180", "layers/layer-params-145.cfg#L178-L180"),
        ("avg-valid.py", "avg-valid.py"),
        ("src/layer.cu:1125", "src/layer.cu#L1125"),
    ],
)
def test_a_place_in_the_2012_source_is_linked_at_its_commit(place, path):
    text = place.rpartition("layers/")[2]
    assert links.source(place) == f"[{text}]({links.SOURCE2012}/blob/{links.COMMIT2012}/{path})"


def test_a_table_lies_beside_the_pages_of_a_book_and_nowhere_else(tmp_path, monkeypatch):
    frame = pd.DataFrame({"x": [1, 2]})
    monkeypatch.delenv(figures.FOLDER, raising=False)
    assert links.download(frame, "x.csv", "all of it") == "all of it"
    monkeypatch.setenv(figures.FOLDER, str(tmp_path))
    assert links.download(frame, "x.csv", "all of it") == f"[all of it]({tmp_path.name}/x.csv)"
    assert (tmp_path / "x.csv").read_text() == "x\n1\n2\n"
