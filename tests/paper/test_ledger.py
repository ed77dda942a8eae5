"""The ledger: every row names a test and a place in the 2012 source that can be found; a row without a test has one here."""

import ast
import re
from functools import cache

import numpy as np
import pytest
import torch

from alexnet.config import PROJECT_DIR, Optimiser, Schedule, UserError
from alexnet.experiments.answers import mean_probabilities
from alexnet.experiments.scales import OPTIMISERS, SCHEDULES
from alexnet.model.alexnet import AlexNet
from alexnet.model.presets import COLOURS, paper, source2012
from alexnet.paper import ledger
from alexnet.paper.ledger import ROWS
from alexnet.preprocessing.augment import PAPER, SOURCE2012
from alexnet.training.optimizer import PaperSGD

IN_SOURCE = re.compile(r"[\w./-]+\.(cfg|py|cu):\d+(-\d+)?")  # a file of the 2012 source and its lines
EACH_ROW = pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.topic}: {row.paper[:40]}")


@cache
def functions_of(room):
    """Names of the test functions of a room, parametrised or not, without running them."""
    trees = [ast.parse(file.read_text()) for file in (PROJECT_DIR / "tests" / room).glob("test_*.py")]
    return {node.name for tree in trees for node in tree.body if isinstance(node, ast.FunctionDef)}


@EACH_ROW
def test_the_test_that_a_row_names_exists(row):
    if row.test != ledger.NOT_PINNED:
        room, name = row.test.split("::")
        assert name in functions_of(room)


def test_a_test_that_does_not_exist_would_be_noticed():
    assert "test_what_nobody_wrote" not in functions_of("paper")
    assert {"test_a_row_names_both_presets_or_neither", "test_the_test_that_a_row_names_exists"} <= functions_of("paper")


@EACH_ROW
def test_a_place_in_the_2012_source_is_a_file_and_its_lines(row):
    assert all(IN_SOURCE.fullmatch(place) for place in row.source_file.split(", ") if place)
    assert row.source2012.strip().endswith(".")


@EACH_ROW
def test_a_row_names_both_presets_or_neither(row):
    assert ("`paper`" in row.ours) == ("`source2012`" in row.ours)


@EACH_ROW
def test_a_row_says_something_in_every_column_and_names_a_section_of_the_paper(row):
    assert all((row.paper, row.source2012, row.ours))
    assert all(re.fullmatch(r"figure \d|abstract|[1-7](\.\d)?", part) for part in row.section.split(", ") if part)
    assert bool(row.section) != row.paper.startswith("Nothing on ")


@EACH_ROW
def test_a_row_says_of_what_kind_it_is(row):
    kinds = row.kind.split(", ")
    assert set(kinds) <= set(ledger.KINDS)
    assert row.section or "silent" in kinds
    assert ("a guess" in row.ours.lower()) <= ("guess" in kinds), "a guess is called one in both places"


def test_there_are_rows_of_every_kind():
    assert {kind for row in ROWS for kind in row.kind.split(", ")} == set(ledger.KINDS)


ODD = """
[[Sizes]]
kind = "silent"
paper = "Nothing on stones."
source2012 = "None."
ours = "{paper.norm.k:g} of {neurons[all]:,}."
test = "not pinned"
"""


def test_what_a_row_has_in_braces_is_a_number_of_ours():
    (row,) = ledger.read_ledger(ODD)
    assert (row.topic, row.section, row.source_file, row.ours) == ("Sizes", "", "", "2 of 659,272.")


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        ("norm.k", "norm.q", "row 'Nothing on stones.' has braces around what is no number of ours"),
        ("neurons[all]", "neurones", "row 'Nothing on stones.' has braces around what is no number of ours: 'neurones'"),
        ("{paper.norm.k:g}", "{paper:g}", "row 'Nothing on stones.' has braces around"),
        ("test =", "tests =", "row 'Nothing on stones.': LedgerRow.__init__() got an unexpected keyword argument 'tests'"),
        ('source2012 = "None."', "", "row 'Nothing on stones.': LedgerRow.__init__() missing 1 required"),
    ],
)
def test_a_mistake_in_the_file_is_refused_and_names_the_row(right, wrong, message):
    with pytest.raises(UserError, match="ledger.toml.*" + re.escape(message)):
        ledger.read_ledger(ODD.replace(right, wrong, 1))


def test_no_two_rows_are_alike():
    assert len({(row.paper, row.source2012) for row in ROWS}) == len(ROWS)


def test_eigenvalues_as_the_text_has_them_would_drown_the_image():
    """0.1 times 121.78 is 12.2 grey levels, and times its square 1,483, nearly six times the range of a pixel."""
    assert ledger.grey_levels(literal=False) == pytest.approx([12.17801, 3.70939, 1.97208])
    assert ledger.grey_levels(literal=True) == pytest.approx([1483.04, 137.596, 38.8910], rel=1e-5)


def test_only_the_first_layer_sees_the_image():
    """A second layer connected to the data would have kernels over three maps too, or over more than the maps before it."""
    for config in (paper(), source2012()):
        with torch.device("meta"):
            net = AlexNet(config)
        seen = {name: layer.weight.shape[1] for name, layer in net.columns.a.named_children()}
        assert [name for name, maps in seen.items() if maps == COLOURS] == ["conv1"]
        assert seen["conv2"] == config.conv1.kernels


def test_a_rate_of_zero_stops_a_layer_at_once():
    """The printed rule would let it coast: its velocity of -0.1 becomes -0.09."""
    weight = torch.nn.Parameter(torch.tensor([1.0]))
    rule = PaperSGD([weight], rate=0.1, momentum=0.9)
    weight.grad = torch.tensor([1.0])
    rule.step()
    assert weight.item() == pytest.approx(0.9)
    rule.param_groups[0]["rate"] = 0.0
    rule.step()
    assert weight.item() == pytest.approx(0.9)


def test_several_nets_have_equal_weights():
    nets = [np.array([[0.9, 0.1]]), np.array([[0.2, 0.8]]), np.array([[0.1, 0.9]])]
    assert mean_probabilities(nets).tolist() == [pytest.approx([0.4, 0.6])]


def test_the_plateau_of_the_preset_paper_is_three_epochs_and_drops_every_rate():
    schedule = SCHEDULES["paper"]
    assert (schedule.kind, schedule.patience, len(schedule.drops), schedule.bias_drops) == ("plateau", 3, 3, 3)
    assert (schedule.conv1_drop, schedule.conv1_freeze) == (None, None)


def test_the_presets_of_the_runs_are_those_of_the_ledger():
    """Rates, decay and views of the trainings, which the rows quote; the rows take 2012's from the configs' defaults."""
    literal, ours = OPTIMISERS["paper"], OPTIMISERS["source2012"]
    assert (literal.bias_rate_factor, literal.bias_decay, literal.weight_decay) == (1, 5e-4, 5e-4)
    assert (ours.bias_rate_factor, ours.bias_decay, ours.weight_decay) == (2, None, 5e-4)
    assert (literal.rate, ours.rate, Optimiser().bias_rate_factor) == (0.01, 0.01, 2)
    assert SCHEDULES["source2012"] == Schedule()
    assert (PAPER.images_per_decision, PAPER.mean_crop, PAPER.divide) == (1, "own", False)
    assert (SOURCE2012.images_per_decision, SOURCE2012.mean_crop, SOURCE2012.divide) == (32, "central", True)


def test_biases_of_the_two_tables_nets_ended_at_other_rates():
    """0.002 is one drop of 0.02 and 0.02 none: the last values of layer-params-145-2010.cfg and layer-params-145.cfg."""
    row = next(row for row in ROWS if row.paper == "All rates drop three times.")
    assert Schedule().bias_drops == 1
    assert "a guess" in row.ours
