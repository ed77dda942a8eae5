"""From records on disk to answers: the records are written by hand, the numbers computed here."""

import math

import numpy as np
import pytest
from records import record

from alexnet import experiments as declared
from alexnet import files
from alexnet.config import UserError
from alexnet.experiments import artefacts, results, runs
from alexnet.experiments.answers import (
    ensemble,
    ensemble_gain,
    error,
    first_epoch_below,
    gain,
    gap,
    neighbour_ratio,
    ratio,
    view_gain,
)  # fmt: skip
from alexnet.experiments.declare import Experiment, base, cifar, fastest_rate
from alexnet.experiments.results import Results
from alexnet.experiments.scales import table
from alexnet.experiments.statistics import dunnett_critical


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch):
    """An empty folder for runs."""
    monkeypatch.setenv("ALEXNET_RUNS", str(tmp_path))
    results.family.cache_clear()
    return tmp_path


def declare(monkeypatch, *experiments):
    monkeypatch.setattr(declared, "EXPERIMENTS", experiments, raising=False)
    return experiments[0] if len(experiments) == 1 else experiments


def recorded(experiment, arm, wrong_by_seed, split="val", views="ten", k=1, **how):
    for seed, wrong in enumerate(wrong_by_seed):
        record(experiment.config(arm, "small", seed), [(split, views, k, wrong, 1000)], **how)


def test_all_gains_over_one_control_are_one_family_whoever_declares_them(monkeypatch):
    lrn = Experiment("s3.3-lrn", {"w": base(), "wo": base("no-norm")}, {"top-1 gain": gain("wo", "w", top=1)})
    overlap = Experiment("s3.4-overlap", {"w": base(), "wo": base("no-overlap")}, {"top-1 gain": gain("wo", "w", top=1)})
    declare(monkeypatch, lrn, overlap)
    control, without, adjoining = (400, 410, 405, 395, 402), (430, 440), (404, 411)
    for experiment, arm, wrong in ((lrn, "w", control), (lrn, "wo", without), (overlap, "wo", adjoining)):
        recorded(experiment, arm, wrong)
    groups = [np.array(wrong) / 10 for wrong in (control, without, adjoining)]
    pooled = np.sqrt(sum(((g - g.mean()) ** 2).sum() for g in groups) / (9 - 3))
    half = dunnett_critical([2, 2], 5, 9 - 3) * pooled * np.sqrt(1 / 2 + 1 / 5)  # two comparisons, six degrees of freedom
    for i, experiment in enumerate((lrn, overlap)):
        found = Results(experiment, "small").answer("top-1 gain")
        assert found.interval.estimate == pytest.approx(np.mean((without, adjoining)[i]) / 10 - np.mean(control) / 10)
        assert found.interval.ends == pytest.approx((found.interval.estimate - half, found.interval.estimate + half))
        assert found.verdict.word == ("direction seen", "direction not seen")[i], "imagenet20 is other data than the claim's"
        assert len(found.runs) == 7


def test_a_missing_arm_leaves_the_answer_open_and_a_lone_seed_has_no_word(monkeypatch):
    arms = {"w": base(), "wo": base("no-norm")}
    lrn = declare(monkeypatch, Experiment("s3.3-lrn", arms, {"top-1 gain": gain("wo", "w", top=1)}))
    recorded(lrn, "w", (400, 410))
    found = Results(lrn, "small").answer("top-1 gain")
    assert (found.interval, found.runs, found.verdict.word) == (None, (), "not run at this scale")
    recorded(lrn, "wo", (430,))
    results.family.cache_clear()
    assert Results(lrn, "small").answer("top-1 gain").verdict.word == "one run"


def test_runs_on_a_gpu_and_on_cpus_are_never_mixed_in_one_comparison(monkeypatch):
    arms = {"w": base(), "wo": base("no-norm")}
    lrn = declare(monkeypatch, Experiment("s3.3-lrn", arms, {"top-1 gain": gain("wo", "w", top=1)}))
    recorded(lrn, "w", (400, 410), device="NVIDIA H200")
    recorded(lrn, "wo", (430, 440))
    assert Results(lrn, "small").answer("top-1 gain").interval is None


def test_an_unfinished_or_diverged_run_is_no_evidence(monkeypatch):
    net = declare(monkeypatch, Experiment("table1", {"CNN": base()}, {"top-1 error, CNN": error("CNN", top=1)}))
    recorded(net, "CNN", (400,), status="stopped")
    assert Results(net, "small").answer("top-1 error, CNN").interval is None


def test_an_error_rate_is_measured_on_the_split_that_stands_for_the_claims(monkeypatch):
    """Table 1 is of a test split, which the twenty classes lack: the answer says so."""
    net = declare(monkeypatch, Experiment("table1", {"CNN": base()}, {"top-1 error, CNN": error("CNN", top=1)}))
    recorded(net, "CNN", (400, 410, 420))
    found = Results(net, "small").answer("top-1 error, CNN")
    assert (found.where.data, found.where.split, found.where.views) == ("imagenet20", "val", "ten")
    assert found.interval.estimate == pytest.approx(41.0)
    assert "imagenet20, val, ten views" in found.verdict.sentence
    assert found.verdict.word == "not compared"


def test_views_and_gaps_are_paired_by_seed(monkeypatch):
    views = Experiment("s6-ten-crop", {"net": base()}, {"top-1 gain": view_gain("net", "central", "ten", top=1)})
    gaps = Experiment("s4.2-dropout", {"w": base(), "wo": base("no-dropout")}, {"gap closed": gap("wo", "w")})
    declare(monkeypatch, views, gaps)
    for seed, (central, ten) in enumerate(((420, 400), (430, 406), (425, 403))):
        counts = [("val", "central", 1, central, 1000), ("val", "ten", 1, ten, 1000), ("train", "central", 1, 300, 1000)]
        record(views.config("net", "small", seed), counts)
        more = [("val", "central", 1, central + 50, 1000), ("train", "central", 1, 100 + 10 * seed, 1000)]
        record(gaps.config("wo", "small", seed), more)
    found = Results(views, "small").answer("top-1 gain").interval
    assert (found.estimate, found.n) == (pytest.approx((2.0 + 2.4 + 2.2) / 3), 3)
    # 47 - 10 against 42 - 30, 48 - 11 against 43 - 30, 47.5 - 12 against 42.5 - 30: also of the seed that is not declared
    found = Results(gaps, "small").answer("gap closed").interval
    assert (found.estimate, found.n) == (pytest.approx((25 + 24 + 23) / 3), 3)


def test_figure_1_takes_the_rate_that_the_search_found_and_censors_seeds_that_never_arrive(monkeypatch):
    arms = {name: fastest_rate(cifar("19pct", name), 0.25, {"small": 0.004}) for name in ("relu", "tanh")}
    key = "tanh epochs over ReLU epochs"
    figure1 = declare(monkeypatch, Experiment("fig1-relu", arms, {key: ratio("tanh", "relu", of=first_epoch_below(0.25))}))
    small = table("small")
    for arm, epochs in (("relu", 2), ("tanh", 4)):
        search = figure1.arms[arm]
        for rate, late in ((0.004, 0), (0.002, 1), (0.008, 1)):
            record(search.config(small, "cifar10", rate, 0), curve=[0.9] * (epochs + late) + [0.1])
        for seed in search.seeds:
            record(search.config(small, "cifar10", 0.004, seed), curve=[0.9] * epochs + [0.2])
    found = Results(figure1, "small").answer(key)
    assert Results(figure1, "small").searches["tanh"].best_rate == 0.004
    # from 0.9 to 0.2 in one epoch: the line is crossed after 65/70 of it
    assert found.interval.estimate == pytest.approx((3 + 65 / 70) / (1 + 65 / 70))
    record(arms["tanh"].config(small, "cifar10", 0.004, 2), curve=[0.9] * 61)
    found = Results(figure1, "small").answer(key)
    assert math.isinf(found.interval.high), "a bound, and the seed is not dropped"
    assert found.interval.n == 3


def test_an_ensemble_averages_probabilities_and_is_paired_with_its_nets_over_images(monkeypatch):
    table2 = {"top-1 error, 5 CNNs": ensemble(("net",), nets=2, top=1)}
    both = declare(
        monkeypatch,
        Experiment("table2", {"net": base()}, table2),
        Experiment("s6-ensemble", {"net": base()}, {"top-1 gain": ensemble_gain("net", nets=2, top=1)}),
    )
    labels = np.array([0, 0, 1, 2])
    first = np.array([[0.6, 0.4, 0.0], [0.1, 0.9, 0.0], [0.5, 0.4, 0.1], [0.3, 0.3, 0.4]], np.float32)
    second = np.array([[0.6, 0.4, 0.0], [0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.9, 0.0, 0.1]], np.float32)
    for seed, probabilities in enumerate((first, second)):
        folder = record(both[0].config("net", "small", seed))
        files.write_arrays(folder / "predictions-val-ten.npz", probabilities=probabilities, labels=labels)
    # means: right; 0.45 < 0.5 wrong; 0.55 > 0.35 right; 0.25 < 0.6 wrong. Alone: wrong at 1, 2; and at 3.
    assert Results(both[0], "small").answer("top-1 error, 5 CNNs").interval.estimate == pytest.approx(50.0)
    gained = Results(both[1], "small").answer("top-1 gain").interval
    assert gained.estimate == pytest.approx(100 * ((2 / 4 + 1 / 4) / 2 - 2 / 4))
    assert str(gained).endswith("1 ensemble)")
    assert Results(both[1], "small").answer("top-1 gain").verdict.word == "one run", "one ensemble gives no word"


def test_neighbours_are_compared_by_the_share_that_has_the_querys_class(monkeypatch):
    key = "neighbours of the true class, in fc7 over in pixels"
    found = declare(monkeypatch, Experiment("fig4-neighbours", {"net": base()}, {key: neighbour_ratio("net", "fc7")}))
    for seed in range(2):
        folder = record(found.config("net", "small", seed))
        near = {"features_labels": np.array([[1, 1], [2, 0]]), "pixels_labels": np.array([[1, 0], [0, 0]])}
        files.write_arrays(folder / "neighbours-fc7.npz", labels=np.array([1, 2]), **near)
    assert Results(found, "small").answer(key).interval.estimate == pytest.approx((3 / 4) / (1 / 4))


def test_the_frame_has_a_row_for_each_exact_count(monkeypatch):
    net = declare(monkeypatch, Experiment("table1", {"CNN": base()}, {"top-1 error, CNN": error("CNN", top=1)}))
    recorded(net, "CNN", (400, 410))
    frame = Results(net, "small").frame()
    assert list(frame["wrong"]) == [400, 410]
    assert list(frame["error"]) == [0.4, 0.41]
    assert set(frame.columns) >= {"arm", "seed", "split", "views", "k", "total"}


def test_results_on_cifar10_are_of_the_smallest_scale_that_has_the_same_runs(monkeypatch):
    key = "gain"
    arms = {"with": cifar("19pct"), "without": cifar("19pct", rate=0.5)}
    cifar10 = declare(monkeypatch, Experiment("s3.3-lrn-cifar", arms, {key: gain("without", "with", top=1)}))
    assert results.recorded_scale(cifar10) is None
    recorded(cifar10, "with", (100, 110), split="test", views="whole")
    recorded(cifar10, "without", (130, 140), split="test", views="whole")
    results.family.cache_clear()
    assert cifar10.config("with", "small") == cifar10.config("with", "paper")
    assert results.recorded_scale(cifar10) == "small"


def test_an_interval_does_not_change_as_other_arms_of_its_family_are_recorded(monkeypatch):
    lrn = Experiment("s3.3-lrn", {"w": base(), "wo": base("no-norm")}, {"top-1 gain": gain("wo", "w", top=1)})
    others = [
        Experiment("s3.4-overlap", {"w": base(), "wo": base(f"no-conv{n}")}, {"top-1 gain": gain("wo", "w", top=1)})
        for n in (2, 3, 4)
    ]
    declare(monkeypatch, lrn, *others)
    recorded(lrn, "w", (400, 410))
    recorded(lrn, "wo", (430, 440))
    spread = 0.5 * np.sqrt(2)  # of two values one point apart
    half = dunnett_critical([2, 2, 2, 2], 2, 2) * spread * np.sqrt(1 / 2 + 1 / 2)
    found = Results(lrn, "small").answer("top-1 gain").interval
    assert found.ends == pytest.approx((3.0 - half, 3.0 + half)), "four comparisons are declared"


def test_an_arm_trained_on_other_images_is_in_no_comparison(monkeypatch):
    arms = {"w": base(), "wo": base("no-norm")}
    lrn = declare(monkeypatch, Experiment("s3.3-lrn", arms, {"top-1 gain": gain("wo", "w", top=1)}))
    recorded(lrn, "w", (400, 410))
    recorded(lrn, "wo", (430, 440))
    file = runs.folder_of(lrn.config("wo", "small", 1)) / "manifest.json"
    manifest = files.read_json(file, "")
    files.write_json(file, manifest | {"data": {"set": "imagenet20", "fingerprint": "another"}})
    found = Results(lrn, "small").answer("top-1 gain")
    assert (found.interval, found.verdict.word) == (None, "not compared")


@pytest.mark.parametrize(
    "content", [b"", b"split,views\n", b"split,views,k,wrong,total\nval,ten,1,5,0\n", b"\xff\xfe", b"a\nb"]
)
def test_a_damaged_count_is_one_line_with_its_file(tmp_path, content):
    (tmp_path / "errors.csv").write_bytes(content)
    if content in (b"", b"split,views\n"):
        assert artefacts.read_errors(tmp_path) == []
        return
    with pytest.raises(UserError, match=r"errors\.csv is damaged"):
        artefacts.read_errors(tmp_path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", b"not a zip"])
def test_a_damaged_artefact_is_one_line_with_its_file(tmp_path, content):
    (tmp_path / "kernels.npz").write_bytes(content)
    with pytest.raises(UserError, match=r"kernels\.npz is damaged"):
        artefacts.read(tmp_path, "kernels")
