"""What is kept when preparing is killed at any moment, and what a killed call leaves behind."""

import errno
import multiprocessing
import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from alexnet.config import UserError
from alexnet.preprocessing import decoding, store, workers
from alexnet.preprocessing.datasets import prepare

FORK = multiprocessing.get_context("fork")


def bytes_of(folder):
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*.*"))}


def die_at(number, source, form):
    """Prepare the set, but be killed at the `number`-th of the moments before an image, a sync and a renaming."""
    left = [number]

    def fatal(function):
        def call(*args, **kwargs):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return call

    os.fsync, Path.replace, decoding.read = fatal(os.fsync), fatal(Path.replace), fatal(decoding.read)
    prepare("folders", source, processes=1, codec=form, accept_bad=True)


@pytest.mark.parametrize("form", ["raw", "jpeg"])
def test_a_set_is_the_same_bytes_wherever_preparing_was_killed(source, form):
    (source / "train" / "cat" / "cat_1.png").write_bytes(b"")
    folder = store.data_dir() / "folders"
    prepare("folders", source, processes=1, codec=form, accept_bad=True)
    expected = bytes_of(folder)
    kills = 0
    for number in range(2, 1000, 4):
        shutil.rmtree(folder)
        child = FORK.Process(target=die_at, args=(number, source, form))
        child.start()
        child.join()
        if child.exitcode == 0:
            break
        assert child.exitcode == -signal.SIGKILL
        kills += 1
        prepare("folders", source, processes=1, codec=form, accept_bad=True)
        assert bytes_of(folder) == expected
    assert kills > 9


def test_finished_shards_are_not_decoded_again_after_a_kill(source, monkeypatch):
    before = 1 + 2 * (4 + 3)  # an image decoded to estimate, and those of two shards with two syncs and a renaming each
    child = FORK.Process(target=die_at, args=(before + 3, source, "raw"))
    child.start()
    child.join()
    decoded, read = [], decoding.read
    monkeypatch.setattr(decoding, "read", lambda listing, i, *rest: decoded.append(i) or read(listing, i, *rest))
    prepare("folders", source, processes=1)
    assert decoded[1:7] == [8, 9, 10, 11, 12, 13]


def test_files_that_are_shorter_than_their_progress_says_are_made_anew(source):
    """As after a loss of power on a disk that does not keep its promises."""
    expected = prepare("folders", source).fingerprint
    (source / "test" / "dog" / "dog_1.png").rename(source / "kept.png")
    (source / "test" / "dog" / "dog_1.png").write_bytes(b"")
    for form, file in (("raw", "images.npy"), ("jpeg", "images.jpegs"), ("jpeg", "progress.lengths")):
        with pytest.raises(UserError, match="--accept-bad"):
            prepare("folders", source, force=True, codec=form)
        os.truncate(store.data_dir() / "folders" / "train" / file, 8)
        data = prepare("folders", source, accept_bad=True)
        assert data.codec == form
        assert [len(part.images) for part in data.splits.values()] == [14, 5]
        assert data.splits["train"].images[13].any()
    (source / "kept.png").rename(source / "test" / "dog" / "dog_1.png")
    assert prepare("folders", source, force=True).fingerprint == expected


def test_a_full_disk_is_an_error_in_words_and_finished_shards_are_kept(source, monkeypatch):
    add, calls = decoding.decode, []

    def full(job, span):
        calls.append(span)
        if span == (8, 10):
            raise OSError(errno.ENOSPC, "no room")
        return add(job, span)

    monkeypatch.setattr(decoding, "decode", full)
    with pytest.raises(UserError, match=r"cannot hold this set.*what is done is kept"):
        prepare("folders", source, processes=1)
    monkeypatch.setattr(decoding, "decode", add)
    again = []
    monkeypatch.setattr(decoding, "decode", lambda job, span: again.append(span) or add(job, span))
    prepare("folders", source, processes=1)
    assert [span for span in again if span[1] == span[0] + 2] == [(8, 10), (10, 12), (12, 14), (0, 2), (2, 4), (4, 6)]


def test_a_process_that_is_killed_is_an_error_in_words_and_preparing_goes_on(source, monkeypatch):
    read = decoding.read

    def fatal(listing, i, *rest):
        if i == 9 and workers._job is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return read(listing, i, *rest)

    monkeypatch.setattr(decoding, "read", fatal)
    with pytest.raises(UserError, match=r"A decoding process was killed.*--processes 1 if it happens again"):
        prepare("folders", source, processes=2)
    monkeypatch.setattr(decoding, "read", read)
    assert len(prepare("folders", source).splits["train"]) == 14


def prepare_and_count(source, file):
    read = decoding.read

    def slow(*args):
        with file.open("a") as stream:
            stream.write("read\n")
        time.sleep(0.01)
        return read(*args)

    decoding.read = slow
    prepare("folders", source)


def test_two_calls_at_a_time_prepare_a_set_once(source, tmp_path):
    children = [FORK.Process(target=prepare_and_count, args=(source, tmp_path / "reads")) for _ in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0, 0, 0]
    assert len((tmp_path / "reads").read_text().split()) == 1 + 14 + 6  # one to estimate


def run_slowly(source, file):
    read = decoding.read

    def slow(listing, i, *rest):
        if workers._job is not None:
            with file.open("a") as stream:
                stream.write(f"{os.getpid()}\n")
            time.sleep(60 if i > 4 else 0)
        return read(listing, i, *rest)

    decoding.read = slow
    prepare("folders", source, processes=2)


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(")")[-1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_decoding_processes_end_with_a_killed_parent(source, tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "WATCH", 0.05)
    child = FORK.Process(target=run_slowly, args=(source, tmp_path / "pids"))
    child.start()
    deadline = time.monotonic() + 30
    pids: set[str] = set()
    while time.monotonic() < deadline and len(pids) < 2:
        time.sleep(0.02)
        pids = set((tmp_path / "pids").read_text().split()) if (tmp_path / "pids").exists() else pids
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    while time.monotonic() < deadline and any(map(alive, pids)):
        time.sleep(0.02)
    assert len(pids) == 2
    assert not any(map(alive, pids))


def test_results_come_in_the_order_of_the_tasks_and_not_far_ahead():
    started = []

    def tasks():
        for k in range(40):
            started.append(k)
            yield k

    for k, result in enumerate(workers.map_in_order(wait_and_square, 3, tasks(), 2)):
        assert result == (3, k * k)
        assert len(started) <= k + 6
    assert k == 39


def wait_and_square(job, k):
    time.sleep(0.01 * (k % 3))
    return job, k * k
