"""Tables: numbered by Sphinx, with a name, and whole whatever is in a cell."""

from alexnet.report import tables


def test_a_bar_in_a_cell_does_not_end_it():
    lines = tables.markdown([("a|b", 1)], ("what", "n")).splitlines()
    assert lines[-1].replace(" ", "") == "|a\\|b|1|"


def test_numbers_are_shown_as_they_are_given():
    assert "1,000" in tables.markdown([("1,000",)], ("n",))
    assert "0.50" in tables.markdown([("0.50",)], ("n",))


def test_no_line_breaks_within_a_pair_of_errors():
    assert "40.66\u00a0/\u00a018.21\u00a0%" in tables.markdown([("40.66 / 18.21 %",)], ("errors",))


def test_a_table_has_a_caption_and_a_name():
    text = tables.numbered([(1,)], ("n",), "Counts.", "tbl-counts").data
    assert text.startswith(":::{table} Counts.\n:name: tbl-counts\n\n|")
    assert text.endswith("|\n:::")
    assert "\n:class: filterable\n\n|" in tables.numbered([(1,)], ("n",), "Counts.", "tbl-counts", "filterable").data
