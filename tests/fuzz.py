"""Show the readers of what others wrote damaged files for some minutes, and record what does more than say so (`make fuzz`).

Each kind of file is read in a process of its own, so that a crash or a hang costs one input and is seen. What fails is kept,
with its traceback, in the folder that the last line names; once mended, such an input becomes a test.
"""

import argparse
import gzip
import io
import multiprocessing
import pickle
import signal
import sys
import tarfile
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.io import savemat

from alexnet.config import CifarNet, ColumnNet, Optimiser, RunConfig, UserError, to_dict
from alexnet.model import weights
from alexnet.preprocessing import imagenet, photograph
from alexnet.preprocessing.image_index import Place, class_places, files_in, index_places
from alexnet.training import checkpoint
from alexnet.training.checkpoint import Checkpoint, Progress
from alexnet.training.step import Learner

FORK = multiprocessing.get_context("fork")
SECONDS = 20  # that one input may take
DRAWS = np.random.default_rng(0)


def picture(side=40):
    return Image.fromarray(DRAWS.integers(0, 256, (side, side, 3)).astype(np.uint8))


def tar_of(members, mode="w", **options):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode, **options) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def images():
    """Seeds of every format that is read, and of some that are not."""
    found = {}
    for form in (*photograph.FORMATS, "ICO", "TGA", "JPEG2000"):
        stream = io.BytesIO()
        picture().save(stream, form, **({"exif": b"Exif\0\0II*\0\x08\0\0\0\x00\x00"} if form == "JPEG" else {}))
        found[form] = stream.getvalue()
    palette = io.BytesIO()
    picture().quantize(16).save(palette, "PNG", transparency=3)
    return [*found.values(), palette.getvalue()]


def tars():
    members = {"a.JPEG": b"A" * 700, "folder/b.JPEG": b"B" * 512, "x" * 180 + ".JPEG": b"C"}
    long = [tar_of(members, format=form) for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)]
    inner = tar_of({"n01.tar": tar_of(members), "n02.tar": tar_of({"z.JPEG": b"Z"})})
    del members["x" * 180 + ".JPEG"]
    return [*long, tar_of(members, format=tarfile.USTAR_FORMAT), inner]


def cifar_archives():
    rows = DRAWS.integers(0, 256, (4, 3 * 32**2)).astype(np.uint8)
    batch = pickle.dumps({"data": rows, "labels": [0, 1, 2, 3]})
    return [tar_of({"p/data_batch_1": batch})]


def kits():
    fields = ("WNID", "words", "gloss", "num_children", "children", "wordnet_height", "num_train_images")
    synsets = np.empty(3, [(name, object) for name in ("ILSVRC2012_ID", *fields)])
    for row in range(3):
        synsets[row] = (row + 1, f"n0000000{row}", "words", "gloss", 0, np.array([]), 0, 5)
    found = []
    for packed in (False, True):
        stream = io.BytesIO()
        savemat(stream, {"synsets": synsets.reshape(-1, 1)}, do_compression=packed)
        found.append(stream.getvalue())
    return found


def weight_files():
    learner = Learner(RunConfig(net=ColumnNet("source2012", 1 / 32, 3), precision="fp32"))
    card = weights.ModelCard("source2012", learner.net.config, "0" * 12, ("a", "b", "c"))
    with tempfile.TemporaryDirectory() as folder:
        weights.save(Path(folder, "w"), learner.net, card, torch.zeros(256, 256, 3))
        return [Path(folder, "w").read_bytes()]


def checkpoints():
    config = RunConfig(net=CifarNet(width=0.1), optimiser=Optimiser(), precision="fp32")
    learner = Learner(config)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint.save(Path(folder), Checkpoint(to_dict(config), Progress(), learner.weights(), learner.velocities()))
        return [Path(folder, checkpoint.CURRENT).read_bytes()]


def read_image(file):
    photograph.read(io.BytesIO(file.read_bytes()), 16)


def read_tar(file):
    for place in [Place(file), *class_places(file).values()]:
        index = index_places([place], lambda *_: 0)
        for i in range(len(index)):
            index.read(i)


def read_cifar(file):
    files_in(file, ["data_batch_1"])


def read_kit(file):
    imagenet._classes(file.read_bytes(), file, 2012)


def read_checkpoint(file):
    file.with_name(checkpoint.CURRENT).unlink(missing_ok=True)
    file.with_name(checkpoint.CURRENT).hardlink_to(file)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = checkpoint.read(file.parent)
    assert found is None or found.kept == {}


# What is read, how to make seeds of it, and the part of the time that it gets.
KINDS: dict[str, tuple[Callable[[], list[bytes]], Callable[[Path], None], float]] = {
    "images": (images, read_image, 0.3),
    "tar files": (tars, read_tar, 0.2),
    "CIFAR-10 archives": (cifar_archives, read_cifar, 0.1),
    "meta.mat": (kits, read_kit, 0.2),
    "weights": (weight_files, weights.load, 0.1),
    "checkpoints": (checkpoints, read_checkpoint, 0.1),
}
INTERESTING = [b"\0" * 4, b"\xff" * 4, b"\x7f\xff\xff\xff", b"\x80\0\0\0", b"\xff\xff\xff\x7f", b"9" * 11, b"-1\0", b"7777"]


def damaged(data, draws):
    """Flip bits, overwrite, cut, repeat or remove a part, once to six times; mostly near the beginning."""
    data = bytearray(data)
    for _ in range(draws.integers(1, 7)):
        if not data:
            break
        near = min(len(data), 600) if draws.integers(2) else len(data)
        at, length = int(draws.integers(near)), int(draws.integers(1, 64))
        kind = draws.integers(6)
        if kind == 0:
            data[at] ^= 1 << int(draws.integers(8))
        elif kind == 1:
            data[at : at + length] = draws.bytes(length)
        elif kind == 2:
            word = INTERESTING[draws.integers(len(INTERESTING))]
            data[at : at + len(word)] = word
        elif kind == 3:
            del data[at : at + length]
        elif kind == 4:
            data[at:at] = data[at : at + length]
        elif not draws.integers(4):
            del data[at:]
    return bytes(data)


def repaired(data):
    """Write correct checksums into the headers of a tar file: most damage would stop there."""
    data = bytearray(data)
    for at in range(0, len(data) - 511, 512):
        header = data[at : at + 512]
        if header[257:262] == b"ustar" or header[0:1].isalpha():
            header[148:156] = b" " * 8
            data[at + 148 : at + 156] = b"%06o\0 " % sum(header)
    return bytes(data)


def worker(kind, seeds, seed, folder, seconds, counter):
    """Read damaged files until the time is up; leave behind what fails."""
    read = KINDS[kind][1]
    draws, until = np.random.default_rng([seed, counter.value]), time.monotonic() + seconds
    expected = (UserError, *photograph.UNREADABLE) if kind == "images" else (UserError,)
    while time.monotonic() < until:
        data = damaged(seeds[draws.integers(len(seeds))], draws)
        if kind in ("tar files", "CIFAR-10 archives") and draws.integers(4):
            data = repaired(data)
        if kind == "CIFAR-10 archives":
            data = gzip.compress(data, 1)
            data = data if draws.integers(4) else damaged(data, draws)
        (folder / "last").write_bytes(data)
        counter.value += 1
        signal.alarm(SECONDS)
        try:
            with redirect_stderr(io.StringIO()):
                read(folder / "last")
        except expected as error:
            if isinstance(error, UserError) and any(not c.isprintable() for c in str(error)):
                keep(folder, data, f"control characters in {str(error)!r}")
        except BaseException:
            keep(folder, data, traceback.format_exc())
        signal.alarm(0)


def keep(folder, data, why):
    number = len(list(folder.glob("failed-*")))
    (folder / f"failed-{number:03d}").write_bytes(data)
    (folder / f"why-{number:03d}.txt").write_text(why)


def fuzz(kind, seed, folder, seconds):
    """Return how many inputs were read and how many failed."""
    folder.mkdir(parents=True)
    seeds = KINDS[kind][0]()
    counter, until = FORK.Value("q", 0), time.monotonic() + seconds
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process: a hang in C hears of no exception
    while (left := until - time.monotonic()) > 0:
        process = FORK.Process(target=worker, args=(kind, seeds, seed, folder, left, counter))
        process.start()
        process.join()
        if process.exitcode == 0:
            break
        keep(folder, (folder / "last").read_bytes(), f"the process ended with {process.exitcode} (-14: it took too long)")
    return counter.value, len(list(folder.glob("failed-*")))


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--minutes", type=float, default=5.0)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--kinds", nargs="*", choices=KINDS, default=KINDS)
    options.add_argument("--to", type=Path, default=None, help="folder for what fails; the default is a new temporary one")
    asked = options.parse_args()
    torch.set_num_threads(1)
    folder = asked.to or Path(tempfile.mkdtemp(prefix="fuzz-"))
    found = {}
    parts = {kind: KINDS[kind][2] for kind in asked.kinds}
    for kind, part in parts.items():
        seconds = 60 * asked.minutes * part / sum(parts.values())
        found[kind] = fuzz(kind, asked.seed, folder / kind.replace(" ", "-"), seconds)
        print(f"{kind}: {found[kind][0]:,} damaged inputs, {found[kind][1]} failed", flush=True)
    failed = sum(bad for _, bad in found.values())
    print(f"{sum(count for count, _ in found.values()):,} inputs (seed {asked.seed}), {failed} failed; see {folder}")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
