"""What the recorded trainings of the two-column net show, from run folders written by hand."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from IPython.display import Markdown

from alexnet.claims import trainings
from alexnet.claims.experiments import architecture_runs
from alexnet.claims.record import KERNELS, read_kernels, write_kernels
from alexnet.config import ColumnNet, to_dict

LAST = {"val_error": 0.5, "val_error_top5": 0.125, "val_error_ten_views": 0.45, "val_error_top5_ten_views": 0.1}


def cells(table):
    """Rows of a table by their first cell, which is left out; the rest without blanks."""
    lines = [line.strip("|").split("|") for line in table.data.splitlines() if line.startswith("|")][2:]
    return {first.strip(): [cell.strip() for cell in rest] for first, *rest in lines}


@pytest.fixture
def run_folder(tiny, tmp_path):
    """The folder of a finished training of width 1/8: an epoch without ten views and one with."""
    config = architecture_runs("toy")[0]
    folder = tmp_path / "runs" / "toy" / config.name
    folder.mkdir(parents=True)
    manifest = {"name": config.name, "status": "finished", "epochs": 4, "config": to_dict(config)}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    lines = [{"epoch": 3, "val_error": 0.75, "val_error_top5": 0.25}, {"epoch": 4, **LAST}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_trainings_that_are_not_recorded_are_called_so(tiny):
    rows = cells(trainings.runs_table("toy"))
    assert set(rows) == {"source2012-eighth/seed-0", "paper-eighth/seed-0"}
    assert all(row == ["not run at this scale", "", ""] for row in rows.values())
    for drawn in (trainings.draw_curves("toy"), trainings.draw_kernels("toy")):
        assert isinstance(drawn, Markdown)
        assert "not run at this scale" in drawn.data


def test_a_recorded_training_shows_its_state_and_both_errors(run_folder):
    row = cells(trainings.runs_table("toy"))["source2012-eighth/seed-0"]
    assert row == ["finished, 4 of 4 epochs on formula256", "50.0% / 12.5%", "45.0% / 10.0%"]


def test_a_training_with_options_of_its_own_is_shown_too(run_folder):
    manifest = json.loads((run_folder / "manifest.json").read_text())
    manifest["config"]["epochs"] = 9
    (run_folder / "manifest.json").write_text(json.dumps(manifest))
    assert cells(trainings.runs_table("toy"))["source2012-eighth/seed-0"][0] == "finished, 4 of 9 epochs on formula256"


def test_curves_are_lines_of_one_view_and_a_dot_for_ten(run_folder):
    axes = trainings.draw_curves("toy").axes[0]
    curve, dots = (line.get_xydata().tolist() for line in axes.lines)
    assert curve == [[3, 0.75], [4, 0.5]]
    assert dots == [[4, 0.45]]
    assert axes.get_legend().get_texts()[0].get_text() == "source2012-eighth/seed-0"


def test_kernels_are_drawn_in_order_column_above_column(run_folder):
    """Kernel 7 of 2 x 6 is the second of column b, and its red in row 2, three pixels to the right, is the largest value."""
    kernels = torch.zeros(12, 3, 11, 11)
    kernels[7, 0, 2, 3] = 0.5
    kernels[7, 1, 2, 3] = -0.5
    write_kernels(run_folder, kernels)
    pictures = [axes.images[0].get_array() for axes in trainings.draw_kernels("toy").axes]
    assert [picture.shape for picture in pictures] == [(11, 71, 3)] * 2
    assert pictures[1][2, 12 + 3].tolist() == [1.0, 0.0, 0.5]
    assert pictures[0][0, 0].tolist() == [0.5] * 3  # zero is grey
    assert pictures[0][0, 11].tolist() == [1.0] * 3  # between two kernels


def test_kernels_are_kept_to_the_bit_whatever_their_layout_in_memory(tmp_path):
    kernels = torch.randn(12, 3, 11, 11).to(memory_format=torch.channels_last)
    write_kernels(tmp_path, kernels)
    kept = read_kernels(tmp_path)
    assert kept.dtype == np.float32
    assert np.array_equal(kept, kernels.numpy())
    assert [file.name for file in tmp_path.iterdir()] == [KERNELS]
    assert read_kernels(tmp_path / "elsewhere") is None


def test_the_widest_net_s_kernels_are_drawn(run_folder):
    wider = replace(architecture_runs("toy")[0], variant="wider", net=ColumnNet("source2012", 0.25, 20))
    folder = run_folder.parents[1] / "wider" / "seed-0"
    folder.mkdir(parents=True)
    manifest = {"name": wider.name, "status": "finished", "epochs": 4, "config": to_dict(wider)}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    write_kernels(run_folder, torch.zeros(12, 3, 11, 11))
    write_kernels(folder, torch.ones(24, 3, 11, 11))
    assert trainings.draw_kernels("toy").axes[0].get_images()[0].get_array().max() == 1
    assert any("wider/seed-0" in text.get_text() for text in trainings.draw_kernels("toy").texts)
