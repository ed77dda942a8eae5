"""The ledger: every row names a test and a place in the 2012 source that can be found; a row without a test has one here."""

import ast
import re
from functools import cache

import numpy as np
import pytest
import torch

from alexnet.claims import ledger, ledger_tables
from alexnet.claims.experiments import OPTIMISERS, SCHEDULES, architecture_runs
from alexnet.claims.ledger import ROWS, TOPICS
from alexnet.config import PROJECT_DIR
from alexnet.model.alexnet import COLOURS, AlexNet
from alexnet.model.presets import paper, source2012, with_sixth_layer
from alexnet.preprocessing.views import PAPER, READINGS, SOURCE2012

EACH_ROW = pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.topic}: {row.paper[:40]}")


@cache
def functions_in(file):
    """Names of the test functions in a file, parametrised or not, without running it."""
    tree = ast.parse((PROJECT_DIR / file).read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


@EACH_ROW
def test_the_test_that_a_row_names_exists(row):
    if row.test != ledger.NOT_PINNED:
        file, name = row.test.split("::")
        assert name in functions_in(file)


def test_a_test_that_does_not_exist_would_be_noticed():
    assert "test_what_nobody_wrote" not in functions_in("tests/claims/test_ledger.py")
    assert {"test_a_row_names_both_presets_or_neither", "test_the_test_that_a_row_names_exists"} <= functions_in(
        "tests/claims/test_ledger.py"
    )


@EACH_ROW
def test_a_place_in_the_2012_source_is_a_file_and_its_lines(row):
    assert all(ledger_tables.is_source_place(place) for place in row.source_file.split(", ") if place)
    assert row.source2012.strip().endswith(".")


@pytest.mark.parametrize("text", ["layer.py", "layer.py:", "layers-145.cfg:x", "layer.txt:3", "the log:12"])
def test_what_is_no_place_in_the_2012_source_is_refused(text):
    assert not ledger_tables.is_source_place(text)


@EACH_ROW
def test_a_row_names_both_presets_or_neither(row):
    assert ("`paper`" in row.ours) == ("`source2012`" in row.ours)


@EACH_ROW
def test_a_row_says_something_in_every_column_and_names_a_section_of_the_paper(row):
    assert all((row.paper, row.source2012, row.ours))
    assert all(re.fullmatch(r"figure \d|abstract|[1-7](\.\d)?", part) for part in row.section.split(", ") if part)
    assert bool(row.section) != row.paper.startswith("Nothing on ")


def test_no_two_rows_are_alike_and_each_is_in_the_table_of_its_topic():
    assert len({(row.paper, row.source2012) for row in ROWS}) == len(ROWS)
    for topic in TOPICS:
        table = ledger_tables.table(topic).data
        lines = [line for line in table.splitlines() if line.startswith("|")]
        assert len(lines) == 2 + sum(row.topic == topic for row in ROWS)
        assert all(line.count("|") == 4 for line in lines)  # three columns, and no bar within a cell


def test_the_name_of_a_test_is_shown_as_its_sentence():
    row = next(row for row in ROWS if row.test.endswith("test_which_part_of_the_mean_is_subtracted"))
    assert ledger_tables.pinned(row) == "test_cutting: which part of the mean is subtracted"


def test_lines_of_one_file_stand_together():
    table = ledger_tables.table("Sizes").data
    assert "Padding 2, 1, 1, 1 and stride 1. (layers-145.cfg: 65, 135, 163, 192)" in table
    assert "(layer.py: 1004)" in table


def test_eigenvalues_as_the_text_has_them_would_drown_the_image():
    """0.1 times 121.78 is 12.2 grey levels, and times its square 1,483, nearly six times the range of a pixel."""
    assert ledger.grey_levels(literal=False) == pytest.approx([12.17801, 3.70939, 1.97208])
    assert ledger.grey_levels(literal=True) == pytest.approx([1483.04, 137.596, 38.8910], rel=1e-5)
    assert "| 1,483 " in ledger_tables.noise_table().data


def test_only_the_first_layer_sees_the_image():
    """A second layer connected to the data would have kernels over three maps too, or over more than the maps before it."""
    for config in (paper(), source2012()):
        with torch.device("meta"):
            net = AlexNet(config)
        seen = {name: layer.weight.shape[1] for name, layer in net.columns.a.named_children()}
        assert [name for name, maps in seen.items() if maps == COLOURS] == ["conv1"]
        assert seen["conv2"] == config.conv1.kernels


def test_the_sixth_layer_begins_as_the_fifth_does():
    for config in (paper(), source2012()):
        six = with_sixth_layer(config)
        assert (six.conv6.kernels, six.conv6.side, six.conv6.padding) == (128, 3, 1)
        assert (six.conv6.sd, six.conv6.bias) == (config.conv5.sd, config.conv5.bias)


def test_the_plateau_of_the_preset_paper_is_three_epochs_and_drops_every_rate():
    schedule = SCHEDULES["paper"]
    assert (schedule.kind, schedule.patience, len(schedule.drops), schedule.bias_drops) == ("plateau", 3, 3, 3)
    assert (schedule.conv1_drop, schedule.conv1_freeze) == (None, None)


def test_the_presets_of_the_runs_are_those_of_the_ledger():
    """Rates, decay and views of the trainings, which the rows quote, at every scale."""
    literal, ours = OPTIMISERS["paper"], OPTIMISERS["source2012"]
    assert (literal.bias_rate_factor, literal.bias_decay, literal.weight_decay) == (1, 5e-4, 5e-4)
    assert (ours.bias_rate_factor, ours.bias_decay, ours.weight_decay) == (2, None, 5e-4)
    assert (PAPER.images_per_decision, PAPER.mean_window, PAPER.divide) == (1, "own", False)
    assert (SOURCE2012.images_per_decision, SOURCE2012.mean_window, SOURCE2012.divide) == (32, "central", True)
    assert READINGS == {"paper": PAPER, "source2012": SOURCE2012}
    for scale in ("toy", "cpu", "paper"):
        for config in architecture_runs(scale):
            assert config.augmentation == config.net.preset
            assert config.schedule == SCHEDULES[config.net.preset]
            assert config.optimiser.bias_rate_factor == OPTIMISERS[config.net.preset].bias_rate_factor
    assert np.isclose(literal.rate, ours.rate)
