"""A rehearsal of the scale `paper`: every experiment through its real path, in minutes, on a machine without ImageNet.

Tiny archives in the layouts in which ILSVRC and ImageNet were handed out (all classes, few images) are prepared as a lab
would prepare its own; the real queue trains and measures every declared run, of narrow nets and for one epoch; answers and
the book follow. All of it is below one folder, and stamped: nothing of it is a result. Two devices are rehearsed by two
processes where there are no GPUs.

    python tests/experiments/rehearsal.py --to rehearsal --claims table1 s3.3-lrn --devices 2
"""

import argparse
import io
import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from alexnet import files
from alexnet.config import PROJECT_DIR, UserError
from alexnet.experiments import plan, results, runner, runs
from alexnet.experiments.results import Results
from alexnet.experiments.scales import REHEARSAL
from alexnet.preprocessing import SETS, prepare
from alexnet.preprocessing.catalog import default_codec

MARK = "rehearsal.json"  # in a folder that may be deleted by the next rehearsal
HELD_OUT = {"val": 50, "test": 100}  # images of ILSVRC, of the first classes; every class has one to train on
CIFAR = {"train": 20, "test": 10}  # images of a class
NUM_PICTURES = 16  # distinct ones, that all sets are made of


def rehearse(to: Path, claims: tuple[str, ...] | None = None, devices: int = 1) -> str:
    """Rehearse the experiments on `claims` (None: all, and the book) in the folder `to`, and return what was done in words.

    What an earlier rehearsal left in `to` is deleted first. Raises UserError, when all that can be done is done, for runs
    that failed, are not finished or not measured, and for a book that could not be made.
    """
    began = time.monotonic()
    with rehearsing(to):
        sets = list(dict.fromkeys(each.config.data for each in plan.wanted("paper", claims)))
        for name in sets:
            make_archives(to / "archives" / name, name)
            codec = None if name == "cifar10" else default_codec(SETS[name].num_images, SETS[name].side)
            prepare(name, to / "archives" / name, codec=codec, accept_bad=name == "cifar10")
        prepared = time.monotonic()
        wrong = _errors_of(lambda: runner.train_missing("paper", claims, devices=devices if devices > 1 else None))
        trained = time.monotonic()
        results.family.cache_clear()
        wrong += unfinished(claims)
        lines = answered(claims)
        files.write_text(to / "answers.txt", "\n".join(lines) + "\n")
        if claims is None:
            wrong += _errors_of(lambda: make_book(to))
        times = {"preparing": prepared - began, "training": trained - prepared, "the rest": time.monotonic() - trained}
        spent = ", ".join(f"{what} {seconds / 60:.1f} min" for what, seconds in times.items())
        done = sum(each.state == "done" for each in plan.wanted("paper", claims))
    text = f"Rehearsed in {to}: {len(sets)} sets, {done} runs on {devices} device(s), {len(lines)} answers; {spent}."
    if wrong:
        raise UserError("\n".join([f"The rehearsal failed. {text}", *wrong]))
    return text


@contextmanager
def rehearsing(to: Path) -> Iterator[None]:
    """Make `to` an empty folder for a rehearsal; until the end of the block, this process and its children rehearse there.

    Raises UserError for a folder that has anything but an earlier rehearsal in it.
    """
    if to.exists() and not (to / MARK).is_file() and any(to.iterdir()):
        raise UserError(f"{to} has something else in it than a rehearsal. Name another: --to DIR")
    shutil.rmtree(to, ignore_errors=True)
    to.mkdir(parents=True)
    files.write_json(to / MARK, {"note": "a rehearsal of the scale paper on made-up images; nothing below is a result"})
    # Why: the project's own runs and data may be named in the environment, and none of them may be touched.
    set_ = {REHEARSAL: "1", "ALEXNET_DATA": str(to / "data"), "ALEXNET_RUNS": str(to / "runs")}
    before = {name: os.environ.get(name) for name in set_}
    os.environ.update(set_)
    results.family.cache_clear()
    try:
        yield
    finally:
        results.family.cache_clear()
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _errors_of(step) -> list[str]:
    try:
        step()
    except UserError as error:
        return [str(error)]
    return []


def unfinished(claims: tuple[str, ...] | None) -> list[str]:
    """Return a line for each wanted run that is not finished, lacks an artefact, or was trained on another set."""
    lines = []
    for each in plan.wanted("paper", claims):
        run = runs.read(each.config)
        if run is None or each.state != "done":
            lines.append(f"{each.name}: {each.state}.")
            continue
        if run.status == "finished" and (lacks := each.unmeasured()):
            lines.append(f"{each.name}: not measured: {', '.join(lacks)}.")
        if run.status != "finished":
            lines.append(f"{each.name}: {run.status}. {run.manifest['warning'] or ''}")
        if run.manifest["data"]["set"] != each.config.data:
            lines.append(f"{each.name}: trained on {run.manifest['data']['set']}.")
    return lines


def answered(claims: tuple[str, ...] | None) -> list[str]:
    """Return the verdict on every answer; one whose runs are missing says "not run"."""
    found = [Results(experiment, "paper").answers() for experiment in plan.experiments_of(claims)]
    return [f"{each.experiment.claim}: {each.verdict.sentence}" for answers in found for each in answers]


def make_book(to: Path) -> None:
    """Build the book of the rehearsed runs, as `make reproduce` does. Raises UserError when that fails."""
    copy = to / "checkout"  # Why: the book is written beside its sources, and the project's own must stay.
    unwanted = shutil.ignore_patterns("_build", "_executed", "__pycache__")
    for name in ("alexnet", "book"):
        shutil.copytree(PROJECT_DIR / name, copy / name, ignore=unwanted)
    command = [sys.executable, str(copy / "book" / "make.py"), "--scale", "paper"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=copy, env=os.environ | {"PYTHONPATH": str(copy)})
    if done.returncode:
        raise UserError(f"The book could not be made:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


def make_archives(folder: Path, name: str) -> None:
    """Write tiny archives of the set `name` in its official layout: all of its classes, few images."""
    folder.mkdir(parents=True)
    if name == "cifar10":
        _cifar_folders(folder)
    elif name.startswith("ilsvrc"):
        _ilsvrc(folder, name)
    else:
        _fall(folder, name)


def picture(number: int, height: int = 30, width: int = 40) -> np.ndarray:
    """Return one of a few distinct pictures (height, width, 3) uint8, smooth as a photograph."""
    coarse = np.random.default_rng(number % NUM_PICTURES).integers(0, 256, (4, 4, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def _jpegs() -> list[bytes]:
    """Return the pictures as files, upright and lying."""
    streams = [io.BytesIO() for _ in range(NUM_PICTURES)]
    for number, stream in enumerate(streams):
        sides = (30, 40) if number % 2 else (40, 30)
        Image.fromarray(picture(number, *sides)).save(stream, "JPEG", quality=90)
    return [stream.getvalue() for stream in streams]


def wnids_of(num_classes: int) -> list[str]:
    """Return made-up names of classes, of the form of WordNet's, ascending."""
    return [f"n{7 * number + 1_000_000:08d}" for number in range(num_classes)]


def tar_of(members: dict[str, bytes], file: Path | None = None, mode: str = "w") -> bytes:
    """Write a tar file of {name: content}, or return its bytes where no file is given."""
    stream = io.BytesIO()
    with tarfile.open(file, mode) if file else tarfile.open(fileobj=stream, mode=mode) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def _class_tars(num_classes: int) -> dict[str, bytes]:
    """Return a tar file for each class, with one image."""
    jpegs = _jpegs()
    return {
        f"{wnid}.tar": tar_of({f"{wnid}_{i}.JPEG": jpegs[i % NUM_PICTURES]}) for i, wnid in enumerate(wnids_of(num_classes))
    }


def _ilsvrc(folder: Path, name: str) -> None:
    """Write what the competition of a year handed out: tars in a tar, tars without classes, a kit with MATLAB's meta.mat."""
    year, info, jpegs = int(name.removeprefix("ilsvrc")), SETS[name], _jpegs()
    word = {2010: "images", 2012: "img"}[year]
    stem = f"ILSVRC{year}"
    tar_of(_class_tars(info.num_classes), folder / f"{stem}_{word}_train.tar")
    truth = {}
    for split in list(info.counts)[1:]:
        count = HELD_OUT[split]
        names = [f"{stem}_{split}_{i + 1:08d}.JPEG" for i in range(count)]
        tar_of({n: jpegs[i % NUM_PICTURES] for i, n in enumerate(names)}, folder / f"{stem}_{word}_{split}.tar")
        labels = np.random.default_rng(count).permutation(count) % info.num_classes  # of the first classes, in no order
        numbers = info.num_classes - labels  # as `_meta` has them
        truth[split] = "".join(f"{number}\n" for number in numbers).encode()
    if year == 2010:  # handed out after the competition, not in the kit
        (folder / f"{stem}_test_ground_truth.txt").write_bytes(truth["test"])
    kit = {2010: "devkit-1.0", 2012: "ILSVRC2012_devkit_t12"}[year]
    members = {"meta.mat": _meta(year, info.num_classes), f"{stem}_validation_ground_truth.txt": truth["val"]}
    file = folder / f"{kit if kit.startswith(stem) else f'{stem}_{kit}'}.tar.gz"
    tar_of({f"{kit}/data/{n}": data for n, data in members.items()}, file, "w:gz")


def _meta(year: int, num_classes: int) -> bytes:
    """Return a kit's table of classes, whose numbers are in another order than the wnids, as the official ones are."""
    from scipy.io import savemat

    fields = [f"ILSVRC{year}_ID", "WNID", "words", "gloss", "num_children", "children", "wordnet_height", "num_train_images"]
    synsets = np.empty(num_classes + 1, [(field, object) for field in fields])
    for row, wnid in enumerate(reversed(wnids_of(num_classes))):
        synsets[row] = (row + 1, wnid, f"rehearsal {wnid}", "made up", 0, np.array([]), 0, 1)
    synsets[-1] = (num_classes + 1, "n00001740", "entity", "all of them", num_classes, np.arange(1, num_classes + 1), 18, 0)
    stream = io.BytesIO()
    savemat(stream, {"synsets": synsets.reshape(-1, 1)})
    return stream.getvalue()


def _fall(folder: Path, name: str) -> None:
    """Write the whole of ImageNet of one fall: a tar of a tar for each wnid, and what people call them."""
    tar_of(_class_tars(SETS[name].num_classes), folder / f"{name.replace('20', '', 1)}_whole.tar")
    lines = [f"{wnid}\trehearsal {wnid}" for wnid in wnids_of(SETS[name].num_classes)]
    files.write_text(folder / "words.txt", "\n".join(lines) + "\n")


def _cifar_folders(folder: Path) -> None:
    """Write CIFAR-10 as folders of its classes, with few images of each."""
    from alexnet.preprocessing.cifar10 import CLASSES, SIDE

    for split, count in CIFAR.items():
        for label, word in enumerate(CLASSES):
            place = folder / split / word
            place.mkdir(parents=True)
            for i in range(count):
                Image.fromarray(picture(3 * label + i, SIDE, SIDE)).save(place / f"{word}_{i:04d}.png")


def main() -> None:
    """Parse, rehearse, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--to", type=Path, default=Path("rehearsal"), help="the folder that everything goes to")
    parser.add_argument("--claims", nargs="*", default=(), help="only these claims; the default is all, and the book")
    parser.add_argument("--devices", type=int, default=1, help="2: two devices, or two processes in their place")
    options = parser.parse_args()
    try:
        print(rehearse(options.to.absolute(), tuple(options.claims) or None, options.devices))
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
