"""A small rehearsal: one claim of each kind, from archives to answers, with few classes."""

import json
import os
from dataclasses import replace

import pytest
import torch
from experiments import rehearsal

from alexnet.config import PROJECT_DIR, UserError, differing_fields, to_dict
from alexnet.experiments import EXPERIMENTS, artefacts, plan, rate_search, runner, runs, scales
from alexnet.experiments.results import Results
from alexnet.experiments.statistics import ONE_RUN
from alexnet.preprocessing import SETS, open_set
from alexnet.training import checkpoint, loop

NUM_CLASSES = 12
HELD_OUT = {"val": 14, "test": 15}
PHOTOGRAPHS = ("ilsvrc2010", "ilsvrc2012", "fall2009", "fall2011")
# A gain (and the gap to the training error), an error on a test split, a fine-tuned pair, Figure 1.
CLAIMS = ("table1", "s4.2-dropout", "s6-pretraining", "fig1-relu")


@pytest.fixture
def small(monkeypatch):
    """Sets of few classes, few seeds, searches of few rates; this process alone knows of it, as its workers need not."""
    for name in PHOTOGRAPHS:
        monkeypatch.setitem(SETS, name, replace(SETS[name], num_classes=NUM_CLASSES))
    monkeypatch.setattr(rehearsal, "HELD_OUT", HELD_OUT)
    monkeypatch.setitem(scales.REHEARSED, "base_seeds", (0, 1))
    monkeypatch.setitem(scales.REHEARSED, "seeds", (0,))
    monkeypatch.setattr(rate_search, "MAX_PLACES", 2)
    monkeypatch.setenv("ALEXNET_RUNS", "not touched")
    monkeypatch.delenv("ALEXNET_DATA", raising=False)


def answers_of(claim):
    (experiment,) = plan.experiments_of([claim])
    return {result.key: result for result in Results(experiment, "paper").answers()}


def counts_of(claim, arm):
    """Return {(split, views, k): total} counted of every run of an arm."""
    (experiment,) = plan.experiments_of([claim])
    found = [run.folder for run in Results(experiment, "paper").runs[arm].values()]
    assert found
    counts = [{(r["split"], r["views"], r["k"]): r["total"] for r in artefacts.read_errors(folder)} for folder in found]
    return {key: total for each in counts for key, total in each.items()}


def test_one_claim_of_each_kind_is_rehearsed_from_archives_to_answers(small, tmp_path, monkeypatch):
    to = tmp_path / "rehearsal"
    said = rehearsal.rehearse(to, CLAIMS)
    assert "4 sets, 19 runs on 1 device(s), 10 answers" in said
    assert os.environ["ALEXNET_RUNS"] == "not touched"
    assert not {"ALEXNET_DATA", scales.REHEARSAL} & set(os.environ)
    assert not list((PROJECT_DIR / "runs").glob("*/*width-0.0625*"))
    assert sorted(path.name for path in to.iterdir()) == ["answers.txt", "archives", "data", "rehearsal.json", "runs"]

    # Look at it as the rehearsal did.
    for name, value in ((scales.REHEARSAL, "1"), ("ALEXNET_RUNS", str(to / "runs")), ("ALEXNET_DATA", str(to / "data"))):
        monkeypatch.setenv(name, value)
    for each in plan.wanted("paper", CLAIMS):
        manifest = runs.read(each.config).manifest
        assert (manifest["status"], manifest["epochs"]) == ("finished", 1)
        assert manifest["data"] == {"set": each.config.data, "fingerprint": open_set(each.config.data).fingerprint,
                                    "stand_in": False}  # fmt: skip
        assert each.unmeasured() == []
    assert counts_of("table1", "CNN") == {
        ("test", "ten", 1): 15, ("test", "ten", 5): 15, ("train", "central", 1): 12, ("train", "central", 5): 12,
        ("val", "central", 1): 14, ("val", "central", 5): 14, ("val", "ten", 1): 14, ("val", "ten", 5): 14,
    }  # fmt: skip
    assert counts_of("s6-pretraining", "1 CNN*") == {("val", "ten", 1): 14, ("val", "ten", 5): 14}

    words = {claim: {result.verdict.word for result in answers_of(claim).values()} for claim in CLAIMS}
    assert words["table1"] == {"not compared"}, "a rehearsal never agrees with the paper"
    assert words["fig1-relu"] == {"not run at this scale"}, "in one epoch no rate reaches the line"
    assert words["s4.2-dropout"] | words["s6-pretraining"] <= {"direction seen", "direction not seen", "opposite", ONE_RUN}
    assert all("scale rehearsal" in result.verdict.sentence for c in CLAIMS for result in answers_of(c).values())
    assert {(r.where.data, r.where.split) for r in answers_of("table1").values()} == {("ilsvrc2010", "test")}
    assert {(r.where.data, r.where.split) for r in answers_of("s6-pretraining").values()} == {("ilsvrc2012", "val")}
    check_fine_tuning(tmp_path)


def check_fine_tuning(folder):
    """The fine-tuned run is what one gets by hand from the pre-trained weights, all but the last layer's."""
    (experiment,) = plan.experiments_of(["s6-pretraining"])
    tuned = experiment.config("1 CNN*", "paper")
    assert tuned.start_from.data == "fall2011"
    ours, before = (checkpoint.read_weights(runs.folder_of(config)) for config in (tuned, tuned.start_from))
    precision = runs.read(tuned).manifest["segments"][0]["precision"]["choice"]
    initial = {name: weight for name, weight in before.items() if not name.startswith("fc8.")}
    by_hand, from_nothing = (
        loop.train(tuned, open_set(tuned.data), folder / word, precision=precision, initial=start, bar=False)[0].weights()
        for word, start in (("pre-trained", initial), ("drawn", None))
    )
    for name in ours:
        torch.testing.assert_close(ours[name], by_hand[name], rtol=0, atol=1e-5)
    assert torch.dist(ours["fc6.weight"], from_nothing["fc6.weight"]) > 1e-3


def test_two_processes_stand_for_two_devices(small, tmp_path, monkeypatch):
    monkeypatch.setitem(scales.REHEARSED, "base_seeds", (0,))
    assert "2 runs on 2 device(s)" in rehearsal.rehearse(tmp_path / "two", ("fig3-kernels",), devices=2)
    monkeypatch.setenv("ALEXNET_RUNS", str(tmp_path / "two" / "runs"))
    for run in runs.recorded():
        columns = 1 if "one-column" in run.name else 2
        assert [segment["ranks"] for segment in run.manifest["segments"]] == [columns]
        assert artefacts.read(run.folder, "kernels")["kernels"].shape == (3 * columns, 3, 11, 11)
        assert artefacts.read(run.folder, "connections")["strengths"].shape == (8 * columns, 3)


def test_a_rehearsal_changes_size_and_length_of_the_declared_runs_and_nothing_else(monkeypatch):
    declared = {scale: [] for scale in ("paper", "rehearsal")}
    for name, found in declared.items():
        if name == "rehearsal":
            monkeypatch.setenv(scales.REHEARSAL, "1")
        assert scales.stamp("paper") == name
        assert scales.stamp("small") == "small"
        for experiment in EXPERIMENTS:
            found += [(experiment.claim, arm, config.seed, to_dict(config)) for arm, config in experiment.configs("paper")]
    assert len(declared["paper"]) == len(declared["rehearsal"]) > 100
    for (*whole, config), (*rehearsed, small) in zip(*declared.values(), strict=True):
        assert whole == rehearsed
        assert small["epochs"] == 1
        changed = {name.removeprefix("start_from.") for name, _, _ in differing_fields(config, small)}
        assert changed == {"epochs", "net.width"}


def test_a_folder_with_anything_else_in_it_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match=r"has something else in it than a rehearsal\. .* --to DIR"):
        rehearsal.rehearse(tmp_path, ("table1",))
    assert (tmp_path / "thesis.tex").is_file()


def test_what_fails_is_told_at_the_end(small, tmp_path, monkeypatch):
    def fails(*args, **kwargs):
        raise UserError("2 of the runs failed: ...")

    monkeypatch.setattr(runner, "train_missing", fails)
    with pytest.raises(UserError, match=r"(?s)The rehearsal failed\. .*2 of the runs failed.*seed-1: missing"):
        rehearsal.rehearse(tmp_path / "r", ("table1",))
    assert "Not run at scale rehearsal, on ILSVRC-2010, test, ten views" in (tmp_path / "r" / "answers.txt").read_text()


def test_fine_tuning_waits_until_the_whole_pre_training_is_over(small, tiny, monkeypatch):
    monkeypatch.setenv(scales.REHEARSAL, "1")
    (experiment,) = plan.experiments_of(["s6-pretraining"])
    tuned = experiment.config("1 CNN*", "paper")
    folder = runs.folder_of(tuned.start_from)
    assert not plan.can_begin(tuned)
    folder.mkdir(parents=True)
    (folder / checkpoint.CURRENT).write_bytes(b"weights after the first epoch of ninety")
    counted = {"epoch": 1, "split": "val", "views": "central", "k": 1, "wrong": 1, "total": 2}
    (folder / "metrics.jsonl").write_text(json.dumps(counted) + "\n")
    manifest = {"version": 2, "status": "running", "config": to_dict(tuned.start_from), "segments": [{"threads": 1}],
                "name": runs.name_of(tuned.start_from), "epochs": 1}  # fmt: skip
    for status, can in (("running", False), ("stopped", False), ("diverged", False), ("finished", True)):
        rehearsal.files.write_json(folder / "manifest.json", manifest | {"status": status})
        assert plan.can_begin(tuned) is can
