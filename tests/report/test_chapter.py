"""Chapters from records written by hand."""

import subprocess
import sys

import matplotlib.pyplot as plt
import pytest

from alexnet.config import UserError
from alexnet.experiments import EXPERIMENTS, scales
from alexnet.paper import get
from alexnet.report import Chapter
from alexnet.report.chapter import printed, slug

LRN = next(experiment for experiment in EXPERIMENTS if experiment.claim == "s3.3-lrn")


def wrong(count):
    """Return the errors of a run in ten views of `formula256`'s validation images, top-1 and top-5."""
    return [("val", "ten", 1, count, 300), ("val", "ten", 5, count // 2, 300)]


@pytest.fixture
def chapter(record):
    """Two runs of the net, 150 and 156 wrong of 300, and one without normalisation, 168."""
    record(LRN.config("with", "toy", 0), wrong(150))
    record(LRN.config("with", "toy", 1), wrong(156))
    record(LRN.config("without", "toy", 0), wrong(168))
    return Chapter("s3.3-lrn", "toy")


def test_the_frame_has_a_row_for_each_count(chapter):
    frame = chapter.frame()
    assert list(frame.query("k == 1").error) == [0.5, 0.52, 0.56]
    assert set(frame.arm) == {"with", "without"}


def test_the_noise_is_that_of_the_seeds(chapter):
    """50 and 52 % of errors: sd sqrt(2)."""
    said = chapter.noise("with")
    assert "top-1 error of 51.0 %" in said
    assert "standard deviation of 1.41 points over 2 seeds, which lie 2.00 apart." in said
    assert "not been run with several seeds" in chapter.noise("without"), "one run"


def test_prose_gets_the_gain_that_the_table_has(chapter):
    """168 of 300 less the mean of 150 and 156 are 5 points."""
    texts = chapter.texts()
    assert texts["top-1-gain"].startswith("5.00 points")
    assert chapter.answers[0].verdict.word == "one run"
    assert texts["top-1-gain-paper"] == "1.4 points"
    assert texts["seeds"] == "0, 1"
    assert texts["top-1-gain"] in chapter.verdicts().data


def test_a_figure_says_scale_set_seeds_runs_commit_and_command(chapter, tmp_path, monkeypatch):
    monkeypatch.setenv("ALEXNET_FIGURES", str(tmp_path))
    shown = chapter.show(plt.figure(), "fig-x", "A caption.", "alt").data
    assert "To repeat: `alexnet train s3.3-lrn --scale toy`." in shown
    assert "Commit: 01234567*" in shown
    assert chapter.stamp == "scale toy | Formula-256 (a stand-in, no photographs) | seeds 0, 1"
    assert "github.com" not in shown, "runs on stand-ins are not committed"


def test_runs_on_photographs_are_linked(record):
    record(LRN.config("with", "small", 0), [("val", "ten", 1, 1, 2)])
    config = LRN.config("with", "small", 0)
    assert f"/tree/main/runs/{config.data}/" in Chapter("s3.3-lrn", "small").provenance()


def test_the_runs_of_an_arm_are_one_row(chapter):
    rows = [line for line in chapter.runs_table().data.splitlines() if line.startswith("| with ")]
    assert len(rows) == 1
    assert [cell.strip() for cell in rows[0].split("|")][3:5] == ["0, 1", "4"]  # two runs of 120 seconds


@pytest.mark.parametrize("scale", ["toy", "small", "paper"])
@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda experiment: experiment.claim)
def test_what_was_not_run_says_so_with_its_cost(experiment, scale):
    chapter = Chapter(experiment, scale)
    notice = chapter.show(plt.figure(), "fig-x", "The gains.", "alt").data
    assert f"Not run at scale {scale}. It will show: The gains." in notice
    assert f"alexnet plan {experiment.claim} --scale {scale}" in notice
    assert chapter.frame().empty
    assert all(result.verdict.word == "not run at this scale" for result in chapter.answers)
    assert chapter.claim_table().data.startswith(":::{table}")
    assert not plt.get_fignums()


def test_the_cost_counts_trainings_and_images():
    """Five seeds of the net and two of each other arm, 90 passes over the 1,281,167 images of ILSVRC-2012 each."""
    cost = Chapter("s3.3-lrn", "paper").cost()
    assert "It takes 7 trainings" in cost
    assert f"{7 * 90 * 1_281_167:,} images" in cost


def test_a_claim_without_an_experiment_is_refused():
    with pytest.raises(UserError, match="No experiment tests 's5-sgd'"):
        Chapter("s5-sgd", "toy")


def test_keys_of_answers_are_names_for_glue():
    assert slug("top-1 gain; of layer 2's norms") == "top-1-gain-of-layer-2-s-norms"
    assert len({slug(key) for key in LRN.answers}) == len(LRN.answers)


def test_what_was_not_run_is_one_line_and_no_empty_row():
    depth = Chapter("s7-depth", "paper")
    missing = "; ".join(f"top-1 gain, {layer}" for layer in ("conv2", "conv3", "conv4", "conv5"))
    assert depth.verdicts().data == f"Not run at scale paper: {missing}."
    assert depth.runs_table().data.startswith("Not run at scale paper: `whole`; `without conv2`;")


def test_an_effect_without_a_number_has_a_direction():
    depth = next(experiment for experiment in EXPERIMENTS if experiment.claim == "s1-depth")
    assert {printed(depth.value(key)) for key in depth.answers} == {"direction only"}


def test_the_paper_has_nothing_to_say_to_a_question_of_ours():
    question = next(experiment for experiment in EXPERIMENTS if experiment.claim == "q-fully-connected")
    assert {printed(question.value(key)) for key in question.answers} == {"-"}


def test_an_error_rate_keeps_the_decimal_that_the_paper_prints():
    assert [printed(get("table1").by_key(f"top-{k} error, CNN")) for k in (1, 5)] == ["37.5 %", "17.0 %"]
    assert printed(get("s3.3-lrn-cifar").by_key("error, with")) == "11 %"


def test_a_rehearsal_is_stamped_so_in_figures_and_tables(monkeypatch, tmp_path):
    monkeypatch.setenv(scales.REHEARSAL, "1")
    monkeypatch.setenv("ALEXNET_RUNS", str(tmp_path))
    chapter = Chapter("s3.3-lrn", "paper")
    assert chapter.stamp.startswith("scale rehearsal | ")
    assert chapter.texts()["scale"] == "rehearsal"
    assert "at scale rehearsal" in chapter.runs_table().data


def test_a_chapter_does_without_torch():
    """A kernel that imports it starts two seconds later, and a book has a kernel for each notebook."""
    code = (
        "import sys; from alexnet.report import Chapter, links, scorecard; scorecard.lines('abstract-size', 'toy')\n"
        "Chapter('s3.3-lrn', 'paper').texts(); print({'torch', 'scipy.stats', 'tyro'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr
