"""From records on disk to answers: the records are written by hand, the numbers computed here."""

import math

import numpy as np
import pytest
import torch
from records import record

from alexnet import experiments as declared
from alexnet import files
from alexnet.config import ColumnNet, RunConfig, UserError
from alexnet.experiments import artefacts, plan, results, runs
from alexnet.experiments.answers import (
    colour_index,
    difference,
    divided,
    ensemble,
    ensemble_gain,
    error,
    first_epoch_below,
    first_epoch_of_loss,
    gain,
    gap,
    neighbour_ratio,
    ratio,
    rounding,
    time_ratio,
)
from alexnet.experiments.declare import Experiment, FastestRate, base, cifar
from alexnet.experiments.results import Results
from alexnet.experiments.scales import table
from alexnet.experiments.statistics import dunnett_critical
from alexnet.preprocessing.augment import PAPER
from alexnet.report import Chapter, scorecard
from alexnet.training.step import Learner


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


def test_an_arm_that_diverged_is_told_and_not_called_not_run(monkeypatch):
    arms = {"w": base(), "wo": base("no-norm")}
    lrn = declare(monkeypatch, Experiment("s3.3-lrn", arms, {"top-1 gain": gain("wo", "w", top=1)}))
    recorded(lrn, "w", (400, 410))
    for seed in (0, 1):
        record(lrn.config("wo", "small", seed), status="diverged", precision="bf16")
    found = Results(lrn, "small").answer("top-1 gain")
    assert (found.interval, found.verdict.word) == (None, "diverged")
    assert "seed-0, " in found.ours
    recorded(lrn, "wo", (430, 440))
    record(lrn.config("wo", "small", 2), status="diverged")
    results.family.cache_clear()
    found = Results(lrn, "small").answer("top-1 gain")
    assert (found.interval.n, found.interval.estimate) == (2, pytest.approx(3.0))
    assert found.ours.endswith("seed-2)"), "what is left out is said"


def test_an_error_rate_is_measured_on_the_split_that_stands_for_the_claims(monkeypatch):
    """Table 1 is of a test split, which the twenty classes lack: the answer says so."""
    net = declare(monkeypatch, Experiment("table1", {"CNN": base()}, {"top-1 error, CNN": error("CNN", top=1)}))
    recorded(net, "CNN", (400, 410, 420))
    found = Results(net, "small").answer("top-1 error, CNN")
    assert (found.where.data, found.where.split, found.where.views) == ("imagenet20", "val", "ten")
    assert found.interval.estimate == pytest.approx(41.0)
    assert "ImageNet-20, validation, ten views" in found.verdict.sentence
    assert found.verdict.word == "not compared"


def test_views_are_paired_by_seed_and_gaps_closed_are_a_family(monkeypatch):
    fewer = difference(("net", {"views": "central"}), ("net", {"views": "ten"}), top=1)
    views = Experiment("s6-ten-crop", {"net": base()}, {"top-1 gain": fewer})
    gaps = Experiment("s4.2-dropout", {"w": base(), "wo": base("no-dropout")}, {"gap closed": gap("wo", "w")})
    declare(monkeypatch, views, gaps)
    for seed, (central, ten) in enumerate(((420, 400), (430, 406), (425, 403))):
        counts = [("val", "central", 1, central, 1000), ("val", "ten", 1, ten, 1000), ("train", "central", 1, 300, 1000)]
        record(views.config("net", "small", seed), counts)
        more = [("val", "central", 1, central + 50, 1000), ("train", "central", 1, 100 + 10 * seed, 1000)]
        record(gaps.config("wo", "small", seed), more)
    found = Results(views, "small").answer("top-1 gain").interval
    assert (found.estimate, found.n) == (pytest.approx((2.0 + 2.4 + 2.2) / 3), 3)
    # Gaps of 47 - 10, 48 - 11 and 47.5 - 12 against 42 - 30, 43 - 30, 42.5 - 30: also of the seed that is not declared.
    found = Results(gaps, "small").answer("gap closed").interval
    assert (found.estimate, found.n) == (pytest.approx((25 + 24 + 23) / 3), 3)
    sd = np.sqrt((np.var([37, 37, 35.5]) * 3 + np.var([12, 13, 12.5]) * 3) / 4)
    half = 2.776445 * sd * np.sqrt(1 / 3 + 1 / 3)  # Student's t, four degrees of freedom: one comparison
    assert found.ends == pytest.approx((24 - half, 24 + half), abs=1e-5)


def test_figure_1_takes_the_rate_that_the_search_found_and_censors_seeds_that_never_arrive(monkeypatch):
    arms = {name: FastestRate(cifar("19pct", name), 0.25, {"small": 0.004}) for name in ("relu", "tanh")}
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
    record(arms["tanh"].config(small, "cifar10", 0.004, 2), curve=[0.9] * 5, status="diverged")
    found = Results(figure1, "small").answer(key)
    assert (math.isinf(found.interval.high), found.interval.n) == (True, 3), "so is one whose loss exploded"
    assert "seed-2" in found.ours.partition("(diverged: ")[2]


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
    averaged = Results(both[0], "small").answer("top-1 error, 5 CNNs")
    assert averaged.interval.estimate == pytest.approx(50.0)
    assert averaged.ours.endswith("1 ensemble)"), "and not one run"
    gained = Results(both[1], "small").answer("top-1 gain").interval
    assert gained.estimate == pytest.approx(100 * ((2 / 4 + 1 / 4) / 2 - 2 / 4))
    assert str(gained).endswith("1 ensemble)")
    assert Results(both[1], "small").answer("top-1 gain").verdict.word == "one ensemble"


def test_neighbours_are_compared_by_the_share_that_has_the_querys_class(monkeypatch):
    key = "neighbours of the true class, in fc7 over in pixels"
    found = declare(
        monkeypatch, Experiment("fig4-neighbours", {"net": base()}, {key: neighbour_ratio("net", "features", "pixels")})
    )
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


def test_an_experiment_that_answers_in_no_number_is_of_the_scale_that_has_its_runs(monkeypatch):
    labels = declare(monkeypatch, Experiment("fig4-labels", {"net": base()}))
    assert results.recorded_scale(labels) is None
    recorded(labels, "net", (400, 410))
    assert results.recorded_scale(labels) == "small"


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


@pytest.mark.parametrize(
    "other",
    [{"data": {"set": "imagenet20", "fingerprint": "another"}}, {"counted_from": "logits in the precision of training"}],
)
def test_an_arm_trained_on_other_images_or_counted_from_other_logits_is_in_no_comparison(monkeypatch, other):
    arms = {"w": base(), "wo": base("no-norm")}
    lrn = declare(monkeypatch, Experiment("s3.3-lrn", arms, {"top-1 gain": gain("wo", "w", top=1)}))
    recorded(lrn, "w", (400, 410))
    recorded(lrn, "wo", (430, 440))
    for seed in (0, 1):
        file = runs.folder_of(lrn.config("wo", "small", seed)) / "manifest.json"
        files.write_json(file, files.read_json(file, "") | other)
    found = Results(lrn, "small").answer("top-1 gain")
    assert (found.interval, found.verdict.word) == (None, "not compared")


def test_errors_that_were_counted_otherwise_say_so_in_the_answer(monkeypatch):
    lrn = declare(
        monkeypatch, Experiment("s3.3-lrn", {"w": base(), "wo": base("no-norm")}, {"top-1 gain": gain("wo", "w", top=1)})
    )
    recorded(lrn, "w", (400, 410))
    recorded(lrn, "wo", (430, 440))
    for file in runs.runs_dir().glob("*/*/*/manifest.json"):
        files.write_json(file, files.read_json(file, "") | {"counted_from": "logits in bf16"})
    assert Results(lrn, "small").answer("top-1 gain").ours.endswith("(counted from logits in bf16)")


@pytest.mark.parametrize(("added", "left_out"), [("w", 1), ("wo", 1), ("both", 2)])
def test_seeds_of_another_machine_are_left_out_of_a_comparison_and_do_not_end_it(monkeypatch, added, left_out):
    """Two seeds of each arm in fp32, then one more in bf16, as somebody's GPU might add."""
    arms = {"w": base(), "wo": base("no-norm")}
    lrn = declare(monkeypatch, Experiment("s3.3-lrn", arms, {"top-1 gain": gain("wo", "w", top=1)}))
    recorded(lrn, "w", (400, 410))
    recorded(lrn, "wo", (430, 450))
    before = Results(lrn, "small").answer("top-1 gain")
    for arm in arms if added == "both" else (added,):
        record(lrn.config(arm, "small", 2), [("val", "ten", 1, 900, 1000)], precision="bf16")
    results.family.cache_clear()
    after = Results(lrn, "small").answer("top-1 gain")
    assert (after.interval, after.runs) == (before.interval, before.runs)
    assert after.ours == f"{before.ours} ({left_out} of another kind left out)"
    assert set(Results(lrn, "small").frame()["run"]) == set(before.runs), "figures show what is compared"


def test_the_kind_is_chosen_by_what_it_answers_and_not_by_how_many_runs_there_are(monkeypatch):
    """An ensemble takes the declared seeds; three seeds that never arrive say more than one that does."""
    several = declare(
        monkeypatch, Experiment("s6-ensemble", {"net": base()}, {"top-1 gain": ensemble_gain("net", 5, top=1)})
    )
    for seed in range(11):
        folder = record(several.config("net", "small", seed), precision="fp32" if seed < 5 else "bf16")
        with_arrays(folder, "predictions-val-ten", probabilities=np.eye(4)[[seed % 4] * 8], labels=np.arange(8) % 4)
    found = Results(several, "small").answer("top-1 gain")
    assert (found.interval is not None, len(found.runs)) == (True, 5)

    key = "tanh epochs over ReLU epochs"
    arms = {"tanh": cifar("19pct", "tanh", rate=0.016), "ReLU": cifar("19pct", rate=0.002)}
    figure1 = declare(monkeypatch, Experiment("fig1-relu", arms, {key: ratio("tanh", "ReLU", first_epoch_below(0.25))}))
    for seed in (0, 1, 2):
        record(figure1.config("ReLU", "small", seed), curve=(0.9, 0.5, 0.2))
        record(figure1.config("tanh", "small", seed), curve=(0.9, 0.9), status="diverged")
    for arm, curve in (("ReLU", (0.9, 0.2)), ("tanh", (0.9, 0.5, 0.2))):
        record(figure1.config(arm, "small", 3), curve=curve, precision="bf16")
    found = Results(figure1, "small").answer(key)
    assert (found.interval.n, math.isinf(found.interval.high)) == (3, True)


@pytest.mark.parametrize("first", ["fp32", "bf16"])
def test_of_kinds_that_answer_equally_well_that_of_the_first_seeds_is_compared(monkeypatch, first):
    arms = {"w": base(), "wo": base("no-norm")}
    lrn = declare(monkeypatch, Experiment("s3.3-lrn", arms, {"top-1 gain": gain("wo", "w", top=1)}))
    for seed in range(4):
        precision = first if seed < 2 else {"fp32": "bf16", "bf16": "fp32"}[first]
        for arm, wrong in (("w", 400), ("wo", 440 if seed < 2 else 390)):
            record(lrn.config(arm, "small", seed), [("val", "ten", 1, wrong + seed, 1000)], precision=precision)
    assert Results(lrn, "small").answer("top-1 gain").interval.estimate == pytest.approx(4.0)


def test_of_two_kinds_of_machine_the_one_that_has_both_arms_is_compared(monkeypatch):
    """The base has five seeds on CPUs; two seeds of both arms came from elsewhere."""
    arms = {"w": base(), "wo": base("no-norm")}
    lrn = declare(monkeypatch, Experiment("s3.3-lrn", arms, {"top-1 gain": gain("wo", "w", top=1)}))
    recorded(lrn, "w", (400, 410, 420, 400, 410))
    for arm, wrong in (("w", 300), ("wo", 340)):
        for seed in (5, 6):
            record(lrn.config(arm, "small", seed), [("val", "ten", 1, wrong + seed, 1000)], precision="bf16")
    found = Results(lrn, "small").answer("top-1 gain")
    assert (found.interval.estimate, found.interval.n) == (pytest.approx(4.0), 2)


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


def test_fp32_and_bf16_are_never_mixed_in_one_comparison(monkeypatch):
    arms = {"w": base(), "wo": base("no-norm")}
    lrn = declare(monkeypatch, Experiment("s3.3-lrn", arms, {"top-1 gain": gain("wo", "w", top=1)}))
    recorded(lrn, "w", (400, 410))
    recorded(lrn, "wo", (430, 440), precision="bf16")
    found = Results(lrn, "small").answer("top-1 gain")
    assert (found.interval, found.verdict.word) == (None, "not compared")
    for scale in ("small", None):
        (line,) = (each for each in scorecard.lines("s3.3-lrn", scale) if each.what == "top-1 gain")
        assert (line.word, line.ours) == ("not compared", "of runs that differ in device or counting"), (
            "and not said to be not run"
        )


def test_arms_that_differ_in_precision_by_design_are_compared(monkeypatch):
    arms = {each: base(precision=each, epochs=5) for each in ("fp32", "bf16")}
    asked = declare(monkeypatch, Experiment("q-bf16", arms, {"top-1 gain": gain("bf16", "fp32", top=1)}))
    for arm, wrong in (("fp32", (400, 410)), ("bf16", (430, 440))):
        recorded(asked, arm, wrong, precision=arm)
    assert Results(asked, "small").answer("top-1 gain").interval.estimate == pytest.approx(3.0)


def test_all_arms_set_against_a_control_pool_their_spread(monkeypatch):
    """Of dropout no top-5 gain is asked, yet its top-5 errors tell how far seeds lie apart."""
    lrn = Experiment("s3.3-lrn", {"w": base(), "wo": base("no-norm")}, {"top-5 gain": gain("wo", "w", top=5)})
    dropout = Experiment("s4.2-dropout", {"w": base(), "wo": base("no-dropout")}, {"top-1 gain": gain("wo", "w", top=1)})
    declare(monkeypatch, lrn, dropout)
    groups = ((lrn, "w", (100, 110)), (lrn, "wo", (120, 124)), (dropout, "wo", (130, 150)))
    for experiment, arm, wrong in groups:
        recorded(experiment, arm, wrong, k=5)
    sd = np.sqrt(sum(np.var(np.array(wrong) / 10) * 2 for *_, wrong in groups) / 3)
    half = 3.182446 * sd * np.sqrt(1 / 2 + 1 / 2)  # Student's t, three degrees of freedom: one gain is asked
    assert Results(lrn, "small").answer("top-5 gain").interval.ends == pytest.approx((1.7 - half, 1.7 + half), abs=1e-5)


def with_arrays(folder, name, **arrays):
    files.write_arrays(folder / f"{name}.npz", **arrays)


def kernels(divided, seed):
    """Noise of 24 kernels in two columns, of which the first is made grey."""
    noise = np.random.default_rng(seed).standard_normal((24, 3, 5, 5))
    noise[:12] = noise[:12].mean(axis=1, keepdims=True) if divided else noise[:12]
    return noise


def test_figure_3_is_the_share_of_runs_whose_columns_divide_the_work(monkeypatch):
    key = "runs with a grey and a coloured column"
    figure3 = declare(monkeypatch, Experiment("fig3-kernels", {"net": base()}, {key: divided("net")}))
    assert (round(colour_index(kernels(True, 0)[:12]), 9), colour_index(kernels(False, 0)) > 0.5) == (0, True)
    for seed in range(5):
        folder = record(figure3.config("net", "small", seed))
        with_arrays(folder, "kernels", kernels=kernels(True, seed))
        found = Results(figure3, "small").answer(key)
        assert found.interval.estimate == 100
        assert found.verdict.word == ("one run" if seed == 0 else "direction seen"), "5 % of runs would be chance"
    assert found.interval.low == pytest.approx(100 * 5 / (5 + 1.959964**2))  # Wilson's lower end when all succeed
    for seed in range(5):
        with_arrays(runs.folder_of(figure3.config("net", "small", seed)), "kernels", kernels=kernels(False, seed))
    assert Results(figure3, "small").answer(key).verdict.word == "direction not seen"


def test_what_dropout_costs_is_read_off_the_training_loss(monkeypatch):
    key = "iterations to converge"
    arms = {"with": base(), "without": base("no-dropout")}
    cost = declare(
        monkeypatch, Experiment("s4.2-dropout-cost", arms, {key: ratio("with", "without", first_epoch_of_loss(0.5))})
    )
    for arm, losses in (("with", (3.0, 2.0, 1.6, 1.4)), ("without", (3.0, 1.0))):
        for seed in (0, 1):
            folder = record(cost.config(arm, "small", seed))
            lines = [{"epoch": 0, "loss": None}, *({"epoch": i + 1, "loss": loss} for i, loss in enumerate(losses))]
            files.write_lines(folder / "history.jsonl", lines)
    line = math.log(20) / 2
    expected = (3 + (1.6 - line) / 0.2) / (1 + (3 - line) / 2)
    found = Results(cost, "small").answer(key)
    assert found.interval.estimate == pytest.approx(expected)
    assert found.where == results.Where("imagenet20", "train", "as trained")


def test_two_devices_are_timed_against_one_where_each_column_has_its_own(monkeypatch):
    key = "time on one GPU over time on two"
    arms = {"two": base(), "one": base("one-column")}
    speed = declare(monkeypatch, Experiment("s3.2-speed", arms, {key: time_ratio("one", "two")}))

    def timed(arm, ranks, speeds, device="NVIDIA H200"):
        folder = record(speed.config(arm, "small", 0), device=device, ranks=ranks)
        files.write_lines(folder / "timing.jsonl", [{"epoch": i, "images_per_second": s} for i, s in enumerate(speeds)])
        return Results(speed, "small").answer(key).interval

    timed("one", 1, (90, 100, 5000))
    assert timed("two", 1, (110, 120, 130)) is None, "both columns shared a device"
    assert timed("two", 2, (110, 120, 130)).estimate == pytest.approx(1.2)
    assert timed("two", 2, (110, 120, 130), device="another") is None


def test_counting_from_rounded_logits_adds_errors(monkeypatch):
    net = cifar("19pct", epochs=2)
    counting = declare(monkeypatch, Experiment("q-bf16-counting", {"relu": net}, {"points added; relu": rounding("relu")}))
    for seed, rounded in ((0, 320), (1, 340)):
        folder = record(counting.config("relu", "small", seed))
        with_arrays(folder, "rounded-train", wrong=np.array(300), rounded=np.array(rounded), total=np.array(1000))
    assert Results(counting, "small").answer("points added; relu").interval.estimate == pytest.approx(3.0)


def test_rates_that_nearly_tie_are_run_with_fresh_seeds_too(monkeypatch):
    arms = {name: FastestRate(cifar("19pct", name), 0.25, {"small": 0.004}) for name in ("relu", "tanh")}
    key = "tanh epochs over ReLU epochs"
    asked = {f"{key}; 19pct": ratio("tanh", "relu", of=first_epoch_below(0.25))}
    figure1 = declare(monkeypatch, Experiment("fig1-relu", arms, asked))
    search, small = figure1.arms["relu"], table("small")
    for rate, last in ((0.004, 0.1), (0.002, 0.15), (0.008, 0.9)):
        record(search.config(small, "cifar10", rate, 0), curve=[0.9] * 9 + [last])
    record(search.config(small, "cifar10", 0.002, 2), curve=[0.9, 0.2])
    found = Results(figure1, "small")
    assert found.searches["relu"].ties == [0.002]
    assert list(found.at_rate("relu", 0.002)) == [2]
    wanted = {(w.config.optimiser.rate, w.config.seed) for w in plan.wanted("small")}
    assert wanted >= {(rate, seed) for rate in (0.002, 0.004) for seed in (1, 2, 3)}
    assert (0.008, 1) not in wanted
    for rate, last in ((0.004, 0.1), (0.002, 0.9), (0.008, 0.9)):
        record(arms["tanh"].config(small, "cifar10", rate, 0), curve=[0.9] * 19 + [last])
    record(arms["tanh"].config(small, "cifar10", 0.004, 2), curve=[0.9, 0.9, 0.9, 0.9, 0.2])
    chosen, tied = Results(figure1, "small").answers()
    assert (chosen.about, chosen.interval) == (f"{key}, 19pct", None), "its fresh seeds have not run"
    assert tied.about == f"{key}, 19pct, relu at 0.002"
    assert tied.interval.estimate == pytest.approx((3 + 65 / 70) / (65 / 70))
    assert tied.about in tied.verdict.sentence
    listed = Chapter(figure1, "small").runs_table().data
    assert "| tanh " in listed
    assert "| relu at 0.002 " in listed, "the runs of a near tie are listed too"


def test_binary_codes_keep_what_is_near_together(monkeypatch):
    monkeypatch.setattr(artefacts, "CODE_BITS", 4)
    draws = np.random.default_rng(0)
    centres = draws.standard_normal((5, 40))
    points = np.repeat(centres, 60, axis=0) + 0.05 * draws.standard_normal((300, 40))
    of_centres, codes = artefacts.binary_codes(centres, points)
    assert (of_centres.shape, codes.shape) == ((5, 4), (300, 4))
    assert set(np.unique(codes)) == {-1, 1}
    own = np.arange(300) // 60
    shares = [(codes == of_centres[(own + other) % 5]).mean() for other in (0, 1)]
    assert shares[0] > 0.95 > shares[1] + 0.2


def test_errors_by_number_of_views_end_at_those_of_ten(photographs):
    config = RunConfig(
        data="formula256", net=ColumnNet(width=0.03125, num_classes=len(photographs.classes)), augmentation=PAPER
    )
    trained = artefacts.Trained(config, Learner(config), photographs, runs.folder_of(config))
    trained.folder.mkdir(parents=True)
    for name in ("by-views/test", "errors/test/ten", "codes/fc7", "connections"):
        artefacts.measure(trained, name)
        assert artefacts.is_measured(trained.folder, name)
    found = artefacts.read(trained.folder, "by-views/test")
    ten = {row["k"]: (row["wrong"], row["total"]) for row in artefacts.read_errors(trained.folder)}
    assert dict(zip(found["k"], zip(found["wrong"][:, -1].round(9), [found["total"]] * 2, strict=True), strict=True)) == ten
    assert found["wrong"].shape == (2, 10)
    codes = artefacts.read(trained.folder, "codes/fc7")
    assert codes["codes_images"].shape == (12, 6)
    assert (photographs.splits["train"].labels[codes["codes_images"]] == codes["codes_labels"]).all()
    strengths = artefacts.read(trained.folder, "connections")["strengths"]
    torch.testing.assert_close(
        torch.from_numpy(strengths), trained.learner.weights()["conv2.weight"].abs().sum(dim=(2, 3)), rtol=1e-6, atol=0
    )
