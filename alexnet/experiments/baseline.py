"""Table 1's hand-crafted rival, on the images of a net: dense SIFT, Fisher vectors, linear SVMs. `make baseline`.

    python -m alexnet.experiments.baseline --data imagenet20 --seeds 0 1

The paper quotes two, on Fisher vectors of two kinds of descriptors (Sanchez & Perronnin, CVPR 2011). This is one, on
RootSIFT (2012): the gradient of the log-likelihood of a mixture of Gaussians at an image's descriptors, its signed square
roots scaled to length 1, for the whole image and for three bands of it.
Shapes: N images or descriptors, D dimensions, K Gaussians or classes.
"""

import math
import sys
import time
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro
from scipy.optimize import minimize
from scipy.special import softmax
from tqdm import tqdm

from alexnet import files, machine, randomness
from alexnet.config import UserError
from alexnet.experiments.runs import runs_dir
from alexnet.preprocessing import PreparedSet, prepare

BANDS = 3
FOLDER = "{}/sift-fisher-vectors/seed-{}"  # of a record: set and seed
CORES = machine.available_cores()
Data = Literal["imagenet20", "imagenette", "formula256"]


@dataclass(frozen=True)
class Recipe:
    """What the classifier is made of."""

    step: int = 6  # pixels between descriptors
    patch: int = 16  # pixels a side of a descriptor's 4 x 4 cells
    scales: int = 4  # each smaller by the square root of 2
    dimensions: int = 64  # of a descriptor after PCA
    gaussians: int = 64
    sample: tuple[int, int] = (500, 200)  # training images, and descriptors of each, for PCA and mixture
    costs: tuple[float, ...] = (0.1, 1.0, 10.0)  # of which a fifth of the training images chooses one
    tolerance: float = 1e-5  # relative, of an SVM's loss


def dense_sift(image_HWC: np.ndarray, recipe: Recipe) -> tuple[np.ndarray, np.ndarray]:
    """Return RootSIFT (N, 128) float32 on a grid of the grey image at several scales, and the band of each (N,)."""
    import cv2

    grey, sift, found = cv2.cvtColor(image_HWC, cv2.COLOR_RGB2GRAY), cv2.SIFT.create(), []
    for side in (round(len(grey) / math.sqrt(2) ** scale) for scale in range(recipe.scales)):
        at = np.arange(recipe.patch / 2, side - recipe.patch / 2 + 1, recipe.step)
        points = [cv2.KeyPoint(float(x), float(y), recipe.patch / 6, 0.0) for y in at for x in at]  # a cell is 1.5 sizes
        _, sift_ND = sift.compute(cv2.resize(grey, (side, side), interpolation=cv2.INTER_AREA), points)
        found.append((sift_ND, np.repeat((at * BANDS // side).astype(np.int64), len(at))))
    sift_ND, bands_N = map(np.concatenate, zip(*found, strict=True))
    return np.sqrt(sift_ND / np.maximum(sift_ND.sum(axis=1, keepdims=True), 1)), bands_N


def learn_vocabulary(data: PreparedSet, recipe: Recipe, seed: int) -> dict[str, np.ndarray]:
    """Return the parts of a PCA and of a mixture, float32, fitted to descriptors of some training images."""
    from sklearn.decomposition import PCA
    from sklearn.mixture import GaussianMixture

    images, draws = data.splits["train"].images, randomness.generator(seed, "baseline-sample")
    chosen, each = np.sort(draws.permutation(len(images))[: recipe.sample[0]]), recipe.sample[1]
    sample_ND = np.concatenate([draws.permutation(dense_sift(np.asarray(images[i]), recipe)[0])[:each] for i in chosen])
    pca = PCA(recipe.dimensions, svd_solver="full").fit(sample_ND)
    mixture = GaussianMixture(recipe.gaussians, covariance_type="diag", tol=0.01, random_state=seed)
    mixture.fit(pca.transform(sample_ND))
    found = {"centre": pca.mean_, "axes": pca.components_.T, "weights": mixture.weights_}
    found |= {"means": mixture.means_, "variances": mixture.covariances_}
    return {name: array.astype(np.float32) for name, array in found.items()}


def fisher_vector(x_ND: np.ndarray, weights_K: np.ndarray, means_KD: np.ndarray, variances_KD: np.ndarray) -> np.ndarray:
    """Return the gradient (2 * K * D,) of the descriptors' log-likelihood with respect to means and sds, rescaled."""
    # The scale is that of the Fisher information where each descriptor is of one Gaussian only.
    square_NK = x_ND**2 @ (1 / variances_KD).T - 2 * x_ND @ (means_KD / variances_KD).T
    log_NK = np.log(weights_K) - (square_NK + (means_KD**2 / variances_KD + np.log(variances_KD)).sum(axis=1)) / 2
    share_NK, weights_K1 = softmax(log_NK, axis=1), weights_K[:, None]
    zeroth_K1, first_KD, second_KD = share_NK.sum(axis=0)[:, None], share_NK.T @ x_ND, share_NK.T @ x_ND**2
    of_means = (first_KD - means_KD * zeroth_K1) / np.sqrt(weights_K1 * variances_KD)
    spread_KD = (second_KD - 2 * means_KD * first_KD + means_KD**2 * zeroth_K1) / variances_KD
    return np.concatenate([of_means.ravel(), ((spread_KD - zeroth_K1) / np.sqrt(2 * weights_K1)).ravel()])


def describe(x_ND: np.ndarray, bands_N: np.ndarray, *mixture: np.ndarray) -> np.ndarray:
    """Return an image's vector, of length 1: the improved Fisher vectors of the whole and of each band."""
    bands = [fisher_vector(x_ND[bands_N == band], *mixture) for band in range(BANDS)]
    roots = [np.sign(part) * np.sqrt(abs(part)) for part in (sum(bands), *bands)]
    return np.concatenate([part / max(np.linalg.norm(part), 1e-12) for part in roots]) / math.sqrt(len(roots))


def describe_split(images: np.ndarray, words: dict[str, np.ndarray], recipe: Recipe, file: Path) -> np.ndarray:
    """Return the vectors (N, D) float16 of images, of which those in `file` are not made again."""
    centre, axes, *mixture = words.values()
    shape = (len(images), 2 * words["means"].size * (BANDS + 1))
    vectors_ND = np.lib.format.open_memmap(file, "r+" if file.is_file() else "w+", np.float16, shape)
    missing = [i for i in range(len(images)) if not vectors_ND[i].any()]
    for i in tqdm(missing, f"describing for {file.name}", unit=" images", mininterval=5):
        sift_ND, bands_N = dense_sift(np.asarray(images[i]), recipe)
        vectors_ND[i] = describe((sift_ND - centre) @ axes, bands_N, *mixture)
    return vectors_ND


def train_svm(x_ND: np.ndarray, sign_NK: np.ndarray, cost_N: np.ndarray, weights: np.ndarray, ftol: float) -> np.ndarray:
    """Return weights (K, D + 1), the bias last, of an SVM for each class against the rest (1, -1), begun at `weights`."""
    # LIBLINEAR's (squared hinge, L2). Why by L-BFGS: LIBLINEAR takes 16 bytes a number.
    sign_NK, cost_N1 = sign_NK.astype(x_ND.dtype), cost_N[:, None].astype(x_ND.dtype)

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        slack_NK = np.maximum(0, 1 - sign_NK * scores(x_ND, flat.reshape(weights.shape)))
        pull_NK = -2 * cost_N1 * sign_NK * slack_NK
        gradient = np.hstack([pull_NK.T @ x_ND, pull_NK.sum(axis=0)[:, None]])
        return flat @ flat / 2 + float((cost_N1 * slack_NK**2).sum(dtype=np.float64)), flat + gradient.ravel()

    options = {"maxiter": 300, "ftol": ftol, "gtol": 1e-6}
    return minimize(objective, weights.ravel(), jac=True, method="L-BFGS-B", options=options).x.reshape(weights.shape)


def scores(x_ND: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the SVMs' scores (N, K)."""
    return x_ND @ weights[:, :-1].T.astype(x_ND.dtype) + weights[:, -1].astype(x_ND.dtype)


def classify(data: PreparedSet, vectors: dict[str, np.ndarray], recipe: Recipe, seed: int) -> tuple[dict, dict]:
    """Choose the cost on a part of the training images, train on all; return what was chosen and top-5 classes by split."""
    train_ND, labels_N = vectors["train"].astype(np.float32), data.splits["train"].labels
    sign_NK, wrong = np.where(labels_N[:, None] == np.arange(len(data.classes)), 1, -1), {}
    held_N = randomness.generator(seed, "baseline-held-out").random(len(labels_N)) < 0.2
    weights = np.zeros((len(data.classes), train_ND.shape[1] + 1))
    for cost in recipe.costs:
        weights = train_svm(train_ND, sign_NK, np.where(held_N, 0, cost), weights, recipe.tolerance)
        wrong[cost] = int((scores(train_ND[held_N], weights).argmax(axis=1) != labels_N[held_N]).sum())
    best = min(wrong, key=wrong.__getitem__)
    weights = train_svm(train_ND, sign_NK, np.full(len(labels_N), best), weights, recipe.tolerance)
    found = {split: scores(x_ND.astype(np.float32), weights) for split, x_ND in vectors.items() if split != "train"}
    top5 = {split: np.argsort(-scores_NK, axis=1)[:, :5].astype(np.uint16) for split, scores_NK in found.items()}
    return {"cost": best, "held_out": int(held_N.sum()), "wrong_by_cost": wrong}, top5


def make(data: PreparedSet, seed: int, recipe: Recipe, **how: Any) -> None:
    """Make and record a classifier: baseline.json, and the likeliest five classes of each held-out image in top5.npz."""
    folder, state, began = runs_dir() / FOLDER.format(data.name, seed), machine.git_state(), time.time()
    if not (file := folder / "checkpoint-vocabulary.npz").is_file():
        files.write_arrays(file, **learn_vocabulary(data, recipe, seed))
    with np.load(file) as kept:
        words = dict(kept)
    vectors = {s: describe_split(of.images, words, recipe, folder / f"checkpoint-{s}.npy") for s, of in data.splits.items()}
    chosen, top5 = classify(data, vectors, recipe, seed)
    labels, errors = {split: data.splits[split].labels for split in top5}, []
    for split, k in ((split, k) for split in top5 for k in (1, 5)):
        wrong = int((top5[split][:, :k] != labels[split][:, None]).all(axis=1).sum())
        errors.append({"split": split, "k": k, "wrong": wrong, "total": len(labels[split])})
        print(f"seed {seed}, {data.name}, {split}, top-{k}: {wrong} of {len(labels[split])} wrong", flush=True)
    files.write_arrays(folder / "top5.npz", **top5, **{f"{split}_labels": of_split for split, of_split in labels.items()})
    record = {"seed": seed, "data": {"set": data.name, "fingerprint": data.fingerprint, "stand_in": data.stand_in}}
    record |= {"recipe": asdict(recipe), "chosen": chosen, "errors": errors, "seconds": round(time.time() - began)}
    files.write_json(folder / "baseline.json", record | {"git": state, "hardware": machine.hardware()} | how)
    for file in folder.glob("checkpoint-*"):
        file.unlink()


def main(data: Data = "imagenet20", seeds: tuple[int, ...] = (0, 1), threads: int = CORES, only_ask: bool = False) -> None:
    """Classify a set by dense SIFT, Fisher vectors and linear SVMs; or `only_ask` (by the status) if that is recorded."""
    folders = {seed: runs_dir() / FOLDER.format(data, seed) for seed in seeds}
    missing = [seed for seed, folder in folders.items() if not (folder / "baseline.json").is_file()]
    if not missing or only_ask:
        print(*(f"recorded: {folders[seed]}" for seed in seeds if seed not in missing), sep="\n")
        sys.exit(bool(missing))
    try:
        import cv2
        from threadpoolctl import threadpool_limits

        cv2.setNumThreads(threads)
        versions = machine.versions() | {name: metadata.version(name) for name in ("scikit-learn", "opencv-python-headless")}
        with threadpool_limits(threads), files.disk_errors_named():
            for seed in missing:
                make(prepare(data), seed, Recipe(), threads=threads, versions=versions)
    except (ImportError, UserError) as error:
        extra = ", which is an extra. Install it: make baseline, or pip install 'alexnet[baseline]'"
        sys.exit(f"error: {error}{extra if isinstance(error, ImportError) else ''}")


if __name__ == "__main__":
    tyro.cli(main)
