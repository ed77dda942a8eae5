"""Feeding and preparing photographs (sections 2 and 4.1), against the way it is usually written.

On formula images, and on those of ImageNet-20 where they are prepared.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch.utils.data import DataLoader

from alexnet.bench.rows import Kind, Row, Setting, both, compare, here
from alexnet.config import ColumnNet, Optimiser, RunConfig
from alexnet.model import StepKey
from alexnet.preprocessing import PreparedSet, Split, is_prepared, open_set, photograph, prepare, synthetic
from alexnet.preprocessing.augment import SOURCE2012
from alexnet.preprocessing.loader import Batches
from alexnet.preprocessing.prepared_set import JpegImages
from alexnet.training.distributed import Group
from alexnet.training.evaluate import count_batches
from alexnet.training.step import Learner

BATCH, NUM_IMAGES = 128, 512
STEPS = 15  # compared, of each kind
VIEWED = 15  # images that are evaluated in ten views: few, so that it is done often
FORMULA = "formula"
PHOTOGRAPH = (500, 375)  # pixels of a common ILSVRC image


def rows() -> Iterator[Row]:
    """Measure loading from both codecs, training with the loader, ten views, and preparing."""
    at = here()
    for images_of, (pixels, labels) in _sources().items():
        for codec, at_least in (("raw", 4.0), ("jpeg", 1.5)):
            with small_set(pixels, labels, codec) as (data, source):
                yield loader_against_torchvision(data, source, f"{codec}, {images_of}", at_least)
                if (codec, images_of) == ("raw", FORMULA):
                    yield training_against_one_batch(data, at, 0.5)
                if (codec, images_of) == ("jpeg", FORMULA):
                    yield ten_views_against_one(data, at.kind)
        yield preparing_against_pillow(pixels[:24], images_of)


def _sources() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return images (N, 256, 256, 3) and labels (N,) by what they are of."""
    found = {FORMULA: synthetic.generate(synthetic.LARGE, "train", NUM_IMAGES)}
    if is_prepared("imagenet20"):
        train = open_set("imagenet20").splits["train"]
        some = np.linspace(0, len(train) - 1, NUM_IMAGES).astype(int)
        found["ImageNet-20"] = train.images[some], train.labels[some]
    return found


@contextmanager
def small_set(pixels: np.ndarray, labels: np.ndarray, codec: str) -> Iterator[tuple[PreparedSet, Path]]:
    """Prepare a set of its own for the block from JPEGs of 256x256 in class folders, which are returned too."""
    before = os.environ.get("ALEXNET_DATA")
    with tempfile.TemporaryDirectory() as name:
        source = Path(name) / "jpegs"
        # Why one of each class: a split that lacks one is refused.
        for split, chosen in (("train", range(len(pixels))), ("val", np.unique(labels, return_index=True)[1])):
            for i in chosen:
                file = source / split / f"class-{labels[i]:02d}" / f"{i}.jpg"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels[i]).save(file, quality=95)
        os.environ["ALEXNET_DATA"] = str(Path(name) / "data")
        try:
            yield prepare("folders", source, codec=codec), source
        finally:
            del os.environ["ALEXNET_DATA"]
            os.environ.update({"ALEXNET_DATA": before} if before is not None else {})


def loader_against_torchvision(data: PreparedSet, source: Path, what: str, at_least: float) -> Row:
    """Compare an epoch of random views with an epoch of ImageFolder, RandomCrop, a flip and DataLoader: one process each."""
    from torchvision import datasets as folders
    from torchvision import transforms

    ours, epochs = Batches(data, "train", SOURCE2012), count()
    change = transforms.Compose([transforms.RandomCrop(224), transforms.RandomHorizontalFlip(), transforms.ToTensor()])
    theirs = DataLoader(folders.ImageFolder(source / "train", change), BATCH, shuffle=True, num_workers=1)
    ratio, own, other = compare(
        lambda: [None for _ in ours.epoch(0, next(epochs), BATCH)], lambda: [None for _ in theirs], repeats=3
    )
    speeds = f"{NUM_IMAGES / own:.0f} against {NUM_IMAGES / other:.0f} images/s"
    against = "torchvision: ImageFolder, RandomCrop, flip, DataLoader"
    return Row(f"loader, {what} images", against, ratio, speeds, both(at_least))


def training_against_one_batch(data: PreparedSet, at: Setting, width: float) -> Row:
    """Compare training with the loader, on views with noise, with training on one batch that lies in memory.

    The two take turns at every step; the next batch is prefetched while the loader's own step runs, as in a long epoch.
    """
    config = RunConfig(net=ColumnNet("source2012", width, 20), optimiser=Optimiser(batch_size=BATCH))
    looped, bare = (Learner(config, at.kind, Group(at.device)) for _ in range(2))
    train, times = data.splits["train"], -(-(STEPS + 3) * BATCH // NUM_IMAGES)
    long = Split(np.concatenate([train.images] * times), np.tile(train.labels, times))
    shown = Batches(replace(data, splits={"train": long}), "train", SOURCE2012, at.device)
    stream, steps = ([x.to(at.device) for x in batch] for batch in shown.epoch(0, 0, BATCH)), count()
    one = next(stream)

    def step(learner: Learner, batch: tuple[torch.Tensor, torch.Tensor]) -> None:
        learner.step(*batch, StepKey(0, 0, next(steps)))

    ratio, own, other = compare(lambda: step(looped, next(stream)), lambda: step(bare, one), repeats=STEPS)
    speeds = f"{BATCH / own:.1f} against {BATCH / other:.1f} images/s"
    words = "half width" if width == 0.5 else "full width"
    return Row(f"training with the loader, {words}", "on one batch in memory", ratio, speeds, both(0.97))


def ten_views_against_one(data: PreparedSet, kind: Kind) -> Row:
    """Compare evaluating images in ten views, from JPEGs to counts of errors, with ten evaluations of one view."""
    learner = Learner(RunConfig(net=ColumnNet("source2012", 1.0, 1000)), kind)
    train = data.splits["train"]
    few = JpegImages(train.images.file, train.images.offsets[: VIEWED + 1], train.images.shape[1])
    shown = Batches(replace(data, splits={"val": Split(few, train.labels[:VIEWED])}), "val", SOURCE2012)
    ratio, own, _ = compare(
        lambda: count_batches(learner, shown, "val", "ten"),
        lambda: [count_batches(learner, shown, "val", "central") for _ in range(10)],
        repeats=9,
    )
    speeds = f"{VIEWED / own:.1f} images/s in ten views"
    return Row("ten-view evaluation, full width", "ten times one view", ratio, speeds, both(1.0))


def preparing_against_pillow(pixels: np.ndarray, images_of: str) -> Row:
    """Compare decoding to 256x256 with the usual lines of Pillow, in one process; both are within one grey level."""
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for i, image in enumerate(pixels):
            large = F.interpolate(torch.from_numpy(image).permute(2, 0, 1)[None].float(), PHOTOGRAPH[::-1], mode="bicubic")
            files.append(Path(folder) / f"photograph-{i}.jpg")
            Image.fromarray(large[0].permute(1, 2, 0).clamp(0, 255).byte().numpy()).save(files[-1], quality=90)
        most = max(np.abs(_ours(f).astype(int) - _usual(f)).max() for f in files)
        ratio, own, other = compare(
            lambda: [_ours(file) for file in files], lambda: [_usual(file) for file in files], repeats=5
        )
    speeds = f"{len(files) / own:.0f} against {len(files) / other:.0f} images/s; grey levels apart: at most {most}"
    return Row(f"preparing a photograph of 500x375, {images_of}", "the usual lines of Pillow", ratio, speeds, both(1.0))


def _ours(file: Path) -> np.ndarray:
    with file.open("rb") as stream:
        return photograph.read(stream)


def _usual(file: Path) -> np.ndarray:
    image = Image.open(file).convert("RGB")
    width, height = (round(side * 256 / min(image.size)) for side in image.size)
    left, top = (width - 256) // 2, (height - 256) // 2
    return np.array(image.resize((width, height), Image.Resampling.BICUBIC).crop((left, top, left + 256, top + 256)))
