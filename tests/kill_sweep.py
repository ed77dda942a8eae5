"""Kill trainings and preparations at random moments, repeat the call until it ends, and compare every bit (`make kills`).

A trial is a training by one rank, a training by two, or a preparation of photographs. Its processes get SIGKILL at a moment
drawn from the seed: all of them, or one only. They are forked from this process, so that a trial takes no time to import
torch; that the command line starts and ends real processes is tested in tests/training/test_distributed.py.
"""

import argparse
import multiprocessing
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from alexnet.config import CifarNet, Optimiser, RunConfig
from alexnet.experiments import recording, runs
from alexnet.model.column_parallel import Layout
from alexnet.preprocessing import prepare, prepared_set
from alexnet.training import checkpoint
from alexnet.training.distributed import Group, joined

CONFIG = RunConfig(net=CifarNet(width=0.25), optimiser=Optimiser(rate=0.002, batch_size=32), epochs=2, precision="fp32")
FORK = multiprocessing.get_context("fork")
PATIENCE = 120.0  # seconds after which a call hangs
KINDS = ("training by 1 rank", "training by 2 ranks", "preparation as raw", "preparation as JPEGs")


def write_sources(folder):
    """A prepared set of 160 and 40 images for trainings, and 300 photographs in class folders for preparations."""
    draws = np.random.default_rng(0)
    for split, count in (("train", 160), ("test", 40)):
        images = draws.integers(0, 256, (count, 32, 32, 3)).astype(np.uint8)
        prepared_set.write_split(folder / "formula32" / split, images, np.arange(count) % 10)
    prepared_set.finish_set(folder / "formula32", [f"class {k}" for k in range(10)], ("train", "test"), stand_in=True)
    for split, count in (("train", 60), ("val", 15)):
        for k in range(4):
            (folder / "source" / split / f"class-{k}").mkdir(parents=True)
            for i in range(count):
                coarse = Image.fromarray(draws.integers(0, 256, (6, 6, 3)).astype(np.uint8))
                coarse.resize((300, 260)).save(folder / "source" / split / f"class-{k}" / f"{i}.jpg")


def work(kind, folder, rank, port, begun):
    """What a forked process does: the call that is killed, and repeated without any option of its own."""
    sys.stdout = sys.stderr = (folder / f"said-{rank}").open("a")
    if kind.startswith("preparation"):
        os.environ["ALEXNET_DATA"] = str(folder)
        begun.set()
        making = sys.modules["alexnet.preprocessing.prepare"]
        making.SHARD = 64
        prepare("folders", folder.parent / "source", processes=2, codec="raw" if kind.endswith("raw") else "jpeg")
        return
    recording.CHECKPOINT_SECONDS = 0.0  # a checkpoint after each step: most kills meet one
    os.environ |= {"ALEXNET_DATA": str(folder.parent), "ALEXNET_RUNS": str(folder)}
    ranks = int(kind[len("training by ")])
    begun.set()
    if ranks > 1:
        os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(ranks), "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
        with joined(Layout(1, ranks)) as group:
            recording.train_run(CONFIG, threads=1, group=group)
    else:
        recording.train_run(CONFIG, threads=1, group=Group())


def start(kind, folder):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    num_ranks = 2 if "2 ranks" in kind else 1
    begun = FORK.Event()
    processes = [FORK.Process(target=work, args=(kind, folder, rank, port, begun)) for rank in range(num_ranks)]
    for process in processes:
        process.start()
    begun.wait(PATIENCE)
    return processes


def ended(processes):
    """Wait for all; return whether they have ended, which is false after PATIENCE."""
    until = time.monotonic() + PATIENCE
    for process in processes:
        process.join(max(0.0, until - time.monotonic()))
    hung = [process for process in processes if process.is_alive()]
    for process in hung:
        process.kill()
    return not hung


def result(kind, folder):
    """What must be the same bit for bit."""
    if kind.startswith("preparation"):
        files = sorted(file for file in (folder / "folders").rglob("*") if file.is_file())
        return {str(file.relative_to(folder)): file.read_bytes() for file in files if not file.name.startswith("progress.")}
    os.environ["ALEXNET_RUNS"] = str(folder)
    run = runs.read(CONFIG)
    weights = checkpoint.weights_digest(checkpoint.read_weights(run.folder))
    return {
        "status": run.status, "sha256": run.manifest["weights_sha256"], "weights": weights, "metrics": run.metrics,
        "history": run.history, "threads": {segment["threads"] for segment in run.manifest["segments"]},
    }  # fmt: skip


def uninterrupted(kind, folder):
    """Return the result to expect, and how long the work takes."""
    folder.mkdir()
    began = time.monotonic()
    processes = start(kind, folder)
    if not ended(processes) or any(process.exitcode for process in processes):
        sys.exit(f"{kind}: it does not end well without any kill: {(folder / 'said-0').read_text()}")
    return result(kind, folder), time.monotonic() - began


def trial(kind, folder, expected, seconds, draws):
    """Kill one to three times and let it end. Return the number of kills and what is wrong, or an empty text."""
    folder.mkdir()
    kills, wanted = 0, int(draws.integers(1, 4))
    for _ in range(10 * wanted):
        processes = start(kind, folder)
        time.sleep(draws.uniform(0, seconds))
        alive = [process for process in processes if process.is_alive()]
        if draws.integers(2):
            alive = alive[:1]
        for process in alive:
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        kills += bool(alive)
        for process in processes:  # as torchrun does with the others when it has lost a rank
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGTERM)
        if not ended(processes):
            return kills, "a process that was not killed hangs"
        if kills == wanted or not alive:
            break
    processes = start(kind, folder)
    if not ended(processes):
        return kills, "the call that resumes hangs"
    if any(process.exitcode for process in processes):
        return kills, f"the call that resumes fails: {(folder / 'said-0').read_text()[-2000:]}"
    found = result(kind, folder)
    return kills, ", ".join(key for key in expected if found.get(key) != expected[key])


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--trials", type=int, default=60)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--kinds", nargs="*", choices=KINDS, default=KINDS)
    asked = options.parse_args()
    torch.set_num_threads(1)  # Why: a process that has threads must not be forked
    draws, failed, total = np.random.default_rng(asked.seed), [], 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_sources(folder)
        expected = {kind: uninterrupted(kind, folder / f"whole-{number}") for number, kind in enumerate(asked.kinds)}
        for number in range(asked.trials):
            kind, place = asked.kinds[number % len(asked.kinds)], folder / f"trial-{number}"
            kills = 0
            while not kills:  # it may have ended first
                shutil.rmtree(place, ignore_errors=True)
                kills, wrong = trial(kind, place, *expected[kind], draws)
            total += kills
            failed += [number] if wrong else []
            print(f"trial {number}, {kind}: {kills} kills, {wrong or 'the same bits'}", flush=True)
            shutil.rmtree(place, ignore_errors=True)
    print(f"{asked.trials} trials (seed {asked.seed}), {total} kills: {len(failed)} did not end with the same bits")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
