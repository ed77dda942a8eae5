"""The hand-crafted baseline of Table 1. What needs its extra is skipped without it."""

import json
import sys
from typing import NamedTuple

import numpy as np
import pytest

from alexnet import files
from alexnet.config import PROJECT_DIR
from alexnet.experiments import baseline
from alexnet.experiments.baseline import Recipe
from alexnet.experiments.runs import runs_dir
from alexnet.preprocessing import open_set, prepared_set, synthetic

SMALL = Recipe(step=12, scales=2, dimensions=16, gaussians=8, sample=(40, 60), costs=(0.1, 1.0))


class Mixture(NamedTuple):
    """A mixture of Gaussians in the order in which `fisher_vector` takes its parts."""

    weights: np.ndarray  # (K,)
    means: np.ndarray  # (K, D)
    variances: np.ndarray


@pytest.fixture
def words():
    """A mixture of three Gaussians in five dimensions, and descriptors of 40 places, float64."""
    draws = np.random.default_rng(0)
    weights = draws.dirichlet(np.ones(3))
    return Mixture(weights, draws.normal(size=(3, 5)), draws.uniform(0.3, 2, (3, 5))), draws.normal(size=(40, 5))


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory):
    """A folder with a `formula256` of 120 and 60 images."""
    folder = tmp_path_factory.mktemp("data")
    for split, count in (("train", 120), ("val", 60)):
        prepared_set.write_split(folder / "formula256" / split, *synthetic.generate(synthetic.LARGE, split, count))
    prepared_set.finish_set(folder / "formula256", synthetic.LARGE.classes, ("train", "val"), stand_in=True)
    return folder


def likelihood(x_ND, mixture, sds_KD):
    """The log-likelihood of all descriptors, by loops."""
    total = 0.0
    for x in x_ND:
        inside = 0.0
        for weight, mean, sd in zip(mixture.weights, mixture.means, sds_KD, strict=True):
            inside += weight * np.prod(np.exp(-(((x - mean) / sd) ** 2) / 2) / (np.sqrt(2 * np.pi) * sd))
        total += np.log(inside)
    return total


def test_a_fisher_vector_is_the_formula_of_the_literature_by_loops(words):
    mixture, x_ND = words
    of_means, of_sds = np.zeros((3, 5)), np.zeros((3, 5))
    for x in x_ND:
        parts = [
            w * np.prod(np.exp(-((x - m) ** 2) / (2 * v)) / np.sqrt(2 * np.pi * v))
            for w, m, v in zip(mixture.weights, mixture.means, mixture.variances, strict=True)
        ]
        for k, (w, m, v) in enumerate(zip(mixture.weights, mixture.means, mixture.variances, strict=True)):
            for d in range(5):
                away = (x[d] - m[d]) / np.sqrt(v[d])
                of_means[k, d] += parts[k] / sum(parts) * away / np.sqrt(w)
                of_sds[k, d] += parts[k] / sum(parts) * (away**2 - 1) / np.sqrt(2 * w)
    found = baseline.fisher_vector(x_ND, *mixture)
    np.testing.assert_allclose(found, np.concatenate([of_means.ravel(), of_sds.ravel()]), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", ["means", "sds"])
def test_a_fisher_vector_is_the_gradient_of_the_log_likelihood(words, kind):
    mixture, x_ND = words
    sds, step = np.sqrt(mixture.variances), 1e-5
    slopes = np.zeros((3, 5))
    for k, d in np.ndindex(3, 5):
        ends = []
        for sign in (-1, 1):
            moved = {"means": mixture.means.copy(), "sds": sds.copy()}
            moved[kind][k, d] += sign * step
            ends.append(likelihood(x_ND, mixture._replace(means=moved["means"]), moved["sds"]))
        slopes[k, d] = (ends[1] - ends[0]) / (2 * step)
    scale = sds / np.sqrt((1 if kind == "means" else 2) * mixture.weights[:, None])
    found = baseline.fisher_vector(x_ND, *mixture).reshape(2, 3, 5)[["means", "sds"].index(kind)]
    np.testing.assert_allclose(found, slopes * scale, rtol=1e-6, atol=1e-6)


def test_fisher_vectors_of_parts_add_up_to_that_of_the_whole(words):
    mixture, x_ND = words
    parts = [baseline.fisher_vector(part, *mixture) for part in (x_ND[:7], x_ND[7:7], x_ND[7:])]
    np.testing.assert_allclose(sum(parts), baseline.fisher_vector(x_ND, *mixture), rtol=1e-10, atol=1e-12)


def test_an_image_is_described_by_signed_square_roots_of_length_1_of_the_whole_and_of_three_bands(words):
    mixture, x_ND = words
    bands_N = np.arange(40) % baseline.BANDS
    found = baseline.describe(x_ND, bands_N, *mixture).reshape(4, -1)
    for part, of_part in zip(found, (x_ND, *(x_ND[bands_N == band] for band in range(3))), strict=True):
        plain = baseline.fisher_vector(of_part, *mixture)
        assert np.linalg.norm(part) == pytest.approx(1 / 2)
        np.testing.assert_allclose(part * abs(part) / np.abs(part).max() ** 2, plain / np.abs(plain).max(), atol=1e-12)


def trained(x_ND, labels_N, cost_N, num_classes):
    """SVMs to the last digits."""
    sign_NK = np.where(labels_N[:, None] == np.arange(num_classes), 1, -1)
    return baseline.train_svm(x_ND, sign_NK, cost_N, np.zeros((num_classes, x_ND.shape[1] + 1)), 1e-14)


def test_the_svms_are_those_of_liblinear():
    svm = pytest.importorskip("sklearn.svm", reason="the extra `baseline` is not installed")
    draws = np.random.default_rng(1)
    labels_N, x_ND = np.arange(60) % 3, draws.normal(size=(60, 4))
    x_ND[:, 0] += labels_N
    ours = trained(x_ND, labels_N, np.full(60, 0.7), 3)
    theirs = svm.LinearSVC(C=0.7, tol=1e-8, max_iter=10**5).fit(x_ND, labels_N)
    np.testing.assert_allclose(ours[:, :-1], theirs.coef_, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(ours[:, -1], theirs.intercept_, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(baseline.scores(x_ND, ours), theirs.decision_function(x_ND), rtol=1e-3, atol=1e-4)


def test_an_image_of_cost_0_is_not_trained_on():
    draws = np.random.default_rng(2)
    labels_N, x_ND, used_N = np.arange(40) % 2, draws.normal(size=(40, 3)), draws.random(40) < 0.5
    alone = trained(x_ND[used_N], labels_N[used_N], np.ones(used_N.sum()), 2)
    np.testing.assert_allclose(trained(x_ND, labels_N, used_N.astype(float), 2), alone, rtol=1e-4, atol=1e-5)


def test_descriptors_stand_on_a_grid_in_three_bands_and_have_length_1():
    pytest.importorskip("cv2", reason="the extra `baseline` is not installed")
    images, _ = synthetic.generate(synthetic.LARGE, "val", 1)
    sift_ND, bands_N = baseline.dense_sift(images[0], SMALL)
    sides = [len(range(8, side - 7, 12)) for side in (256, 181)]
    assert sift_ND.shape == (sum(side**2 for side in sides), 128)
    np.testing.assert_allclose(np.linalg.norm(sift_ND, axis=1), 1, rtol=1e-5)
    assert np.bincount(bands_N).tolist() == [7 * 21 + 5 * 14, 7 * 21 + 5 * 14, 7 * 21 + 4 * 14]
    upper = images[0].copy()
    upper[120:] = 0
    same = (baseline.dense_sift(upper, SMALL)[0] == sift_ND).all(axis=1)
    assert same[bands_N == 0].all()
    assert not same[bands_N == 2].any()


def read(folder):
    """A record, and for each k which images are wrong, from the recorded answers."""
    record = json.loads((folder / "baseline.json").read_text())
    with np.load(folder / "top5.npz") as top5:
        wrong = {k: (top5["val"][:, :k] != top5["val_labels"][:, None]).all(axis=1) for k in (1, 5)}
    return record, wrong


def test_on_the_stand_in_the_error_is_below_chance_and_nothing_is_made_twice(stand_in, tmp_path, monkeypatch):
    pytest.importorskip("cv2", reason="the extra `baseline` is not installed")
    pytest.importorskip("sklearn", reason="the extra `baseline` is not installed")
    monkeypatch.setenv("ALEXNET_DATA", str(stand_in))
    monkeypatch.setenv("ALEXNET_RUNS", str(tmp_path))
    data, described, seen = open_set("formula256"), baseline.describe, []

    def describe(*args):
        seen.append(1)
        if len(seen) == 100:
            raise KeyboardInterrupt
        return described(*args)

    monkeypatch.setattr(baseline, "describe", describe)
    with pytest.raises(KeyboardInterrupt):
        baseline.make(data, 0, SMALL)
    baseline.make(data, 0, SMALL, threads=1)
    monkeypatch.setenv("ALEXNET_DATA", str(tmp_path / "none"))
    with pytest.raises(SystemExit) as ended:
        baseline.main("formula256", (0,))
    assert ended.value.code == 0
    assert not (tmp_path / "none").exists(), "what is recorded needs no set"
    assert len(seen) == 180 + 1, "the one that was interrupted is made again, no other"
    folder = tmp_path / "formula256" / "sift-fisher-vectors" / "seed-0"
    assert sorted(file.name for file in folder.iterdir()) == ["baseline.json", "top5.npz"]
    record, wrong = read(folder)
    first, fifth = (row["wrong"] for row in record["errors"])
    assert fifth < first < 0.8 * 60, "chance is 95 %"
    assert [int(wrong[k].sum()) for k in (1, 5)] == [first, fifth]
    assert record["chosen"]["cost"] in SMALL.costs
    assert (record["threads"], record["recipe"]["gaussians"]) == (1, 8)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_recorded_counts_are_those_of_the_recorded_answers(seed):
    folder = PROJECT_DIR / "runs" / "imagenet20" / "sift-fisher-vectors" / f"seed-{seed}"
    if not folder.is_dir():
        pytest.skip("not recorded")
    record, wrong = read(folder)
    assert record["seed"] == seed
    for row in record["errors"]:
        assert (row["wrong"], row["total"]) == (int(wrong[row["k"]].sum()), len(wrong[row["k"]]))


def test_what_is_recorded_is_said_and_needs_neither_set_nor_packages(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "cv2", None)
    monkeypatch.setenv("ALEXNET_RUNS", str(tmp_path))
    monkeypatch.setattr(baseline, "prepare", lambda *how: pytest.fail("the set was prepared"))
    folders = [runs_dir() / baseline.FOLDER.format("imagenet20", seed) for seed in (0, 1)]
    for number, folder in enumerate(folders):
        files.write_json(folder / "baseline.json", {})
        with pytest.raises(SystemExit) as ended:
            baseline.main("imagenet20", only_ask=True)
        assert ended.value.code == (number == 0), "one is missing"
        assert capsys.readouterr().out.splitlines() == [f"recorded: {folder}" for folder in folders[: number + 1]]
    with pytest.raises(SystemExit) as ended:
        baseline.main("imagenet20")
    assert ended.value.code == 0


def test_without_its_extra_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(SystemExit, match=r"make baseline, or pip install 'alexnet\[baseline\]'") as ended:
        baseline.main("formula256")
    assert "\n" not in str(ended.value)
