"""Feeding and preparing photographs (sections 2 and 4.1), against the way it is usually written.

On formula images, and on those of ImageNet-20 where they are prepared.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch.utils.data import DataLoader

from alexnet.bench.rows import Kind, Place, Row, both, compare, here, kind_of_machine
from alexnet.config import ColumnNet, Optimiser, RunConfig
from alexnet.model.layers import Moment
from alexnet.preprocessing import datasets, formula, images
from alexnet.preprocessing.batches import CroppedBatches
from alexnet.preprocessing.codec import JpegImages
from alexnet.preprocessing.store import PreparedSet, Split, is_prepared
from alexnet.training.crew import Crew
from alexnet.training.evaluate import count_errors_over_views
from alexnet.training.learner import Learner, to_device

BATCH, NUM_IMAGES, NUM_VAL = 128, 512, 20  # a set has to have some for validation; they are not used
STEPS = 15  # compared, of each kind
VIEWED = 15  # images that are evaluated in ten views: few, so that it is done often
FORMULA = "formula"
PHOTOGRAPH = (500, 375)  # pixels of a common ILSVRC image


def rows() -> Iterator[Row]:
    """Measure loading from both codecs, training with the loader, ten views, and preparing."""
    for images_of, (pixels, labels) in _sources().items():
        with tempfile.TemporaryDirectory() as name, data_in(Path(name) / "data"):
            source = Path(name) / "jpegs"
            write_jpegs(source, pixels, labels)
            for codec, at_least in (("raw", 15.0), ("jpeg", 2.0)):
                data = datasets.prepare("folders", source, force=True, codec=codec)
                yield loader_against_torchvision(data, source, f"{codec}, {images_of}", at_least)
                if (codec, images_of) == ("raw", FORMULA):
                    yield training_against_one_batch(data, here(), 0.5)
                if (codec, images_of) == ("jpeg", FORMULA):
                    yield ten_views_against_one(data, kind_of_machine())
            yield preparing_against_pil(Path(name), pixels[:24], images_of)


def _sources() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return images (N, 256, 256, 3) and labels (N,) by what they are of."""
    found = {FORMULA: formula.generate(formula.LARGE, "train", NUM_IMAGES)}
    if is_prepared("imagenet20"):
        train = datasets.prepare("imagenet20").splits["train"]
        some = np.linspace(0, len(train) - 1, NUM_IMAGES).astype(int)
        found["ImageNet-20"] = train.images[some], train.labels[some]
    return found


@contextmanager
def data_in(folder: Path) -> Iterator[None]:
    """Keep prepared sets in another folder for a while."""
    before = os.environ.get("ALEXNET_DATA")
    os.environ["ALEXNET_DATA"] = str(folder)
    try:
        yield
    finally:
        del os.environ["ALEXNET_DATA"]
        if before is not None:
            os.environ["ALEXNET_DATA"] = before


def write_jpegs(folder: Path, pixels: np.ndarray, labels: np.ndarray) -> None:
    """Write images as JPEGs of 256x256 in class folders."""
    for split in ("train", "val"):
        for i, (image, label) in enumerate(zip(pixels, labels, strict=True)):
            file = folder / split / f"class-{label:02d}" / f"{i}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            if split == "train" or i < NUM_VAL:
                Image.fromarray(image).save(file, quality=95)


def loader_against_torchvision(data: PreparedSet, source: Path, what: str, at_least: float) -> Row:
    """Compare an epoch of random views with an epoch of ImageFolder, RandomCrop, a flip and DataLoader: one process each."""
    from torchvision import datasets as folders
    from torchvision import transforms

    ours = CroppedBatches(data, "train", "source2012", 224)
    change = transforms.Compose([transforms.RandomCrop(224), transforms.RandomHorizontalFlip(), transforms.ToTensor()])
    theirs = DataLoader(folders.ImageFolder(source / "train", change), BATCH, shuffle=True, num_workers=1)
    epochs = iter(range(1000))
    ratio, own, other = compare(
        lambda: [None for _ in ours.epoch(0, next(epochs), BATCH)], lambda: [None for _ in theirs], repeats=3
    )
    speeds = f"{NUM_IMAGES / own:.0f} against {NUM_IMAGES / other:.0f} images/s"
    against = "torchvision: ImageFolder, RandomCrop, flip, DataLoader"
    return Row(f"loader, {what} images", against, ratio, speeds, both(at_least))


def training_against_one_batch(data: PreparedSet, at: Place, width: float) -> Row:
    """Compare training with the loader, on views with noise, with training on one batch that lies in memory.

    The two take turns at every step; the loader makes a batch ahead while its own step runs, as in a long epoch.
    """
    config = RunConfig(
        net=ColumnNet("source2012", width, 20), optimiser=Optimiser(batch_size=BATCH), augmentation="source2012"
    )
    looped, bare = (Learner(config, at.kind, Crew(at.device)) for _ in range(2))
    train, times = data.splits["train"], -(-(STEPS + 3) * BATCH // NUM_IMAGES)
    long = Split(np.concatenate([train.images] * times), np.tile(train.labels, times))
    batches = CroppedBatches(replace(data, splits={"train": long}), "train", "source2012", 224, at.device)
    stream = (to_device(batch, at.device) for batch in batches.epoch(0, 0, BATCH))
    one = next(stream)
    steps = iter(range(10**6))

    def step(learner: Learner, batch: tuple[torch.Tensor, torch.Tensor]) -> None:
        learner.step(*batch, Moment(0, 0, next(steps)))

    ratio, own, other = compare(lambda: step(looped, next(stream)), lambda: step(bare, one), repeats=STEPS)
    speeds = f"{BATCH / own:.1f} against {BATCH / other:.1f} images/s"
    words = "half width" if width == 0.5 else "full width"
    return Row(f"training with the loader, {words}", "on one batch in memory", ratio, speeds, both(0.97))


def ten_views_against_one(data: PreparedSet, kind: Kind) -> Row:
    """Compare evaluating images in ten views, from JPEGs to counts of errors, with ten evaluations of one view."""
    learner = Learner(RunConfig(net=ColumnNet("source2012", 1.0, 1000)), kind)
    train = data.splits["train"]
    few = JpegImages(train.images.file, train.images.offsets[: VIEWED + 1], train.images.shape[1])
    batches = CroppedBatches(replace(data, splits={"val": Split(few, train.labels[:VIEWED])}), "val", "source2012", 224)

    def evaluate(ten: bool) -> None:
        count_errors_over_views(learner.net, batches.views_in_order(VIEWED, ten), kind)

    ratio, own, _ = compare(lambda: evaluate(True), lambda: [evaluate(False) for _ in range(10)], repeats=9)
    speeds = f"{VIEWED / own:.1f} images/s in ten views"
    return Row("ten-view evaluation, full width", "ten times one view", ratio, speeds, both(1.0))


def preparing_against_pil(folder: Path, pixels: np.ndarray, images_of: str) -> Row:
    """Compare decoding to 256x256 with the usual lines of Pillow, in one process; both are within one grey level."""
    files = []
    for i, image in enumerate(pixels):
        large = F.interpolate(torch.from_numpy(image).permute(2, 0, 1)[None].float(), PHOTOGRAPH[::-1], mode="bicubic")
        files.append(folder / f"photograph-{i}.jpg")
        Image.fromarray(large[0].permute(1, 2, 0).clamp(0, 255).byte().numpy()).save(files[-1], quality=90)

    def usual(file: Path) -> np.ndarray:
        image = Image.open(file).convert("RGB")
        width, height = (round(side * 256 / min(image.size)) for side in image.size)
        left, top = (width - 256) // 2, (height - 256) // 2
        return np.array(image.resize((width, height), Image.Resampling.BICUBIC).crop((left, top, left + 256, top + 256)))

    most = max(np.abs(images.read_square(f).astype(int) - usual(f)).max() for f in files)
    ratio, own, other = compare(
        lambda: [images.read_square(file) for file in files], lambda: [usual(file) for file in files], repeats=5
    )
    speeds = f"{len(files) / own:.0f} against {len(files) / other:.0f} images/s; at most {most} grey levels apart"
    return Row(f"preparing a photograph of 500x375, {images_of}", "the usual lines of Pillow", ratio, speeds, both(1.5))
