"""Others' results as data: each with its source, errors in percent, words that the chapters know."""

from importlib.resources import files

import pandas as pd
import pytest

from alexnet.preprocessing import SETS


def read(name):
    with (files("alexnet.paper") / name).open() as file:
        return pd.read_csv(file)


def test_every_reproduction_has_a_source_errors_and_known_words():
    rows = read("reproductions.csv")
    assert rows.who.is_unique
    assert rows.source.str.match(r"https://\S+$").all()
    assert rows.top1_error.between(30, 60).all()
    assert (rows.top5_error.dropna() < rows.top1_error[rows.top5_error.notna()]).all()
    assert set(rows["views"].dropna()) == {"ten", "central"}
    assert set(rows.data.dropna()) <= set(SETS)
    assert set(rows["read"]) == {"there", "summary", "quoted"}


@pytest.mark.parametrize(("column", "words"), [("norm", {"yes", "no", "batch"}), ("columns", {"yes", "no", "groups"})])
def test_what_is_not_stated_is_empty(column, words):
    assert set(read("reproductions.csv")[column].dropna()) == words


def test_a_net_trained_again_names_the_page_that_it_followed():
    names = read("reproductions.csv").who
    again = names[names.str.contains("trained again")]
    assert len(again) == 3
    assert again.str.partition(",")[0].isin(names).all()


def test_every_change_of_the_benchmark_has_a_page_and_a_default():
    rows = read("caffenet128.csv")
    assert rows.change.is_unique
    assert rows[["accuracy", "default"]].stack().between(0.3, 0.6).all()
    assert rows.page.notna().all()


def test_blurred_pooling_has_a_source_and_shares_in_percent():
    rows = read("antialiased.csv")
    assert rows["filter"].is_unique
    assert rows.source.str.match(r"https://\S+$").all()
    assert rows.accuracy.between(50, 60).all()
    assert (rows.consistency > rows.accuracy).all()


def test_the_reproductions_of_caffes_line_with_response_normalisation_say_over_which_maps():
    """The chapter says that they normalise across the columns, and counts them by this."""
    rows = read("reproductions.csv")
    rows = rows[(rows.norm == "yes") & (rows.line == "Caffe's")]
    assert len(rows) == 5
    assert rows.left_out.str.contains("normalisation across the columns").all()
