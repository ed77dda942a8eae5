"""The scorecard: what is measured is told apart from what is defined, counted or quoted."""

import re

import pytest

from alexnet.config import UserError
from alexnet.experiments import EXPERIMENTS
from alexnet.paper import CLAIMS
from alexnet.report import scorecard

LRN = next(experiment for experiment in EXPERIMENTS if experiment.claim == "s3.3-lrn")


def test_without_runs_nothing_is_measured():
    lines = scorecard.lines()
    assert not any(line.is_measured for line in lines)
    assert "none has so far been judged" in scorecard.answer_sentences()["counts"]
    assert not scorecard.answer_sentences()["power"], "without an interval there is nothing to say"


def test_every_claim_has_a_line_and_every_number_of_it():
    lines = scorecard.lines()
    assert {line.claim.id for line in lines} >= set(CLAIMS)
    for claim in CLAIMS.values():
        keys = {line.what.partition(";")[0] for line in lines if line.claim.id == claim.id}
        assert len(keys) >= min(1, len(claim.keyed))


def test_definitions_and_arithmetic_are_called_so_and_not_counted():
    words = {line.word for line in scorecard.lines() if line.claim.kind in ("definition", "arithmetic")}
    assert words <= {"by construction", "arithmetic: true", "arithmetic: false"}
    (neurons,) = [line for line in scorecard.lines("abstract-size") if line.what == "neurons"]
    assert (neurons.ours, neurons.paper, neurons.word) == ("659,272", "650,000", "arithmetic: false")


def test_both_nets_of_a_claim_are_shown():
    nets = [line.what.split(", ", 1)[1] for line in scorecard.lines("fig1-relu") if line.result is not None]
    assert nets == ["19pct", "conv-local-13pct", "19pct, tanh, sd 0.001", "19pct, tanh, sd 0.01"]


def test_what_cannot_be_measured_says_why():
    open_ = [line for line in scorecard.lines() if line.word in ("not run", "no experiment")]
    said = {(line.claim.id, line.what): line.where for line in open_}
    assert said["s3.2-speed", "time on one GPU over time on two"].startswith("not at scale small: it takes two GPUs")
    assert "never published" in said["table2", "top-5 error, 7 CNNs*, test"]
    assert "days on two GTX 580" in said["s1-training-time", "training time"]
    assert said["table1", "top-1 error, CNN"] == ""


def test_a_question_without_a_number_leads_to_its_chapter():
    (line,) = scorecard.lines("q-plateau")
    assert line.word == "see its chapter", "which shows the runs that there are; not run would be false then"


def test_what_others_measured_is_quoted():
    words = {line.what: line.word for line in scorecard.lines("table1")}
    assert words["top-1 error, SIFT + FVs"] == "quoted from others"
    assert words["top-1 error, CNN"] == "not run"


def test_a_measurement_has_its_interval_its_place_and_the_run_notes(record):
    for seed, wrong in enumerate((3000, 3010)):
        record(LRN.config("with", "small", seed), [("val", "ten", 1, wrong, 7854)])
        record(LRN.config("without", "small", seed), [("val", "ten", 1, wrong + 120, 7854)])
    line = next(line for line in scorecard.lines("s3.3-lrn") if line.what == "top-1 gain")
    assert line.ours.startswith("1.53 points (95% interval")  # 120 of 7854
    assert line.where == "ImageNet-20, validation, ten views, scale small"
    assert (line.paper, line.notes2012) == ("1.4 points", "1.37 points")
    assert line.word == "direction seen", "on other images than the claim's no number is compared"
    assert line.is_judged
    assert "1 has so far been judged" in scorecard.answer_sentences()["counts"]
    assert "direction seen (1)" in scorecard.answer_sentences()["words"]
    low, high = map(float, re.search(r"interval (\S+) to ([\d.]+)", line.ours).groups())
    told = r"larger than (\S+) points of top-1 error to be seen, and the paper's are 0\.4 to 2\."
    (least,) = re.findall(told, scorecard.answer_sentences()["power"])
    assert float(least) == pytest.approx((high - low) / 2, abs=0.011), "of ends that are rounded to a hundredth"


def test_a_measurement_that_two_claims_share_is_one_number(record):
    depth = next(experiment for experiment in EXPERIMENTS if experiment.claim == "s7-depth")
    for seed, wrong in enumerate((3000, 3010)):
        record(depth.config("whole", "small", seed), [("val", "ten", 1, wrong, 7854)])
        record(depth.config("without conv3", "small", seed), [("val", "ten", 1, wrong + 120, 7854)])
    assert {line.claim.id for line in scorecard.lines() if line.is_judged} >= {"s1-depth", "s7-depth"}
    assert scorecard.answer_sentences()["words"] == "Their verdicts: direction seen (1)."


def test_the_stand_in_is_measured_and_not_judged(record):
    for seed in (0, 1):
        record(LRN.config("with", "toy", seed), [("val", "ten", 1, 150, 300)])
    record(LRN.config("without", "toy", 0), [("val", "ten", 1, 160, 300)])
    line = next(line for line in scorecard.lines("s3.3-lrn") if line.what == "top-1 gain")
    assert line.is_measured
    assert not line.is_judged


def test_compare_prints_a_claim_with_its_sentences(record):
    for seed in (0, 1):
        record(LRN.config("with", "small", seed), [("val", "ten", 1, 3000 + seed, 7854)])
        record(LRN.config("without", "small", seed), [("val", "ten", 1, 3120 + seed, 7854)])
    text = scorecard.as_text("s3.3-lrn", "small")
    assert "2012 run notes" in text
    assert "Direction seen: top-1 gain" in text
    assert "not run" in scorecard.as_text("s3.3-lrn", "paper")
    assert "fig2-neurons" in scorecard.as_text("all", "toy")


def test_an_unknown_claim_is_refused():
    with pytest.raises(UserError, match=r"no claim 's3.3-lnr'; did you mean 's3.3-lrn'"):
        scorecard.lines("s3.3-lnr")


def test_what_is_held_by_construction_is_not_among_what_is_tested():
    lines = scorecard.lines("s5-sgd")
    assert lines
    assert not any(line.result is not None or line.word == scorecard.NO_EXPERIMENT for line in lines)


def test_the_table_to_download_has_every_line():
    frame = scorecard.frame()
    assert len(frame) == len(scorecard.lines())
    assert list(frame.columns[:3]) == ["claim", "section", "what"]
    assert frame[frame.claim == "abstract-size"].word.tolist().count("arithmetic: false") == 1


def test_the_front_page_counts_what_the_run_notes_have_too():
    """Eight error rates and six gains; differences of printed rates, which the paper leaves to the reader, are none."""
    assert "14 results" in scorecard.answer_sentences()["notes"]
    assert "all agree" in scorecard.answer_sentences()["notes"]
