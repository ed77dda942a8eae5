"""What is kept when preparing is killed at any moment, and what a killed call leaves behind."""

import errno
import functools
import importlib
import multiprocessing
import os
import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest
from torch.utils.data import get_worker_info
from torch.utils.data._utils import worker

from alexnet.config import UserError
from alexnet.preprocessing import prepared_set
from alexnet.preprocessing.image_index import ImageIndex
from alexnet.preprocessing.prepare import prepare

making = importlib.import_module("alexnet.preprocessing.prepare")  # its name in the room is the function's
FORK = multiprocessing.get_context("fork")


def bytes_of(folder):
    """All files of a set, but for what a kill at the very end leaves of its progress."""
    files = [file for file in sorted(folder.rglob("*.*")) if not file.name.startswith("progress.")]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


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

    os.fsync, os.replace, ImageIndex.read = fatal(os.fsync), fatal(os.replace), fatal(ImageIndex.read)
    prepare("folders", source, processes=1, codec=form, accept_bad=True)


@pytest.mark.parametrize("form", ["raw", "jpeg"])
def test_a_set_is_the_same_bytes_wherever_preparing_was_killed(source, form):
    (source / "train" / "cat" / "cat_1.png").write_bytes(b"")
    folder = prepared_set.data_dir() / "folders"
    prepare("folders", source, processes=1, codec=form, accept_bad=True)
    expected = bytes_of(folder)
    kills = 0
    for number in range(2, 1000, 8):
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
    assert kills > 7


def test_finished_shards_are_not_decoded_again_after_a_kill(source, monkeypatch):
    before = 2 * (4 + 5)  # the images of two shards, with four syncs and a renaming each
    child = FORK.Process(target=die_at, args=(before + 3, source, "raw"))
    child.start()
    child.join()
    decoded, read = [], ImageIndex.read
    monkeypatch.setattr(ImageIndex, "read", lambda index, i: decoded.append(i) or read(index, i))
    prepare("folders", source, processes=1)
    assert decoded[:6] == [8, 9, 10, 11, 12, 13]


def test_files_that_are_shorter_than_their_progress_says_are_made_anew(source):
    """As after a loss of power on a disk that does not keep its promises."""
    expected = prepare("folders", source).fingerprint
    (source / "test" / "dog" / "dog_1.png").rename(source / "kept.png")
    (source / "test" / "dog" / "dog_1.png").write_bytes(b"")
    for form, file in (("raw", "images.npy"), ("jpeg", "images.jpegs")):
        with pytest.raises(UserError, match="--accept-bad"):
            prepare("folders", source, force=True, codec=form)
        os.truncate(prepared_set.data_dir() / "folders.new" / "train" / file, 8)
        data = prepare("folders", source, force=True, codec=form, accept_bad=True)
        assert [len(part.images) for part in data.splits.values()] == [14, 5]
        assert data.splits["train"].images[13].any()
    (source / "kept.png").rename(source / "test" / "dog" / "dog_1.png")
    assert prepare("folders", source, force=True).fingerprint == expected


def test_a_full_disk_is_an_error_in_words_and_finished_shards_are_kept(source, monkeypatch):
    decode = making._decode_chunk

    def full(*args):
        if args[-1] == 4:  # the first chunk of the third shard
            raise OSError(errno.ENOSPC, "no room")
        return decode(*args)

    monkeypatch.setattr(making, "_decode_chunk", full)
    with pytest.raises(UserError, match=r"No space left on device\. ALEXNET_DATA"):
        prepare("folders", source, processes=1)
    monkeypatch.setattr(making, "_decode_chunk", decode)
    decoded, read = [], ImageIndex.read
    monkeypatch.setattr(ImageIndex, "read", lambda index, i: decoded.append(i) or read(index, i))
    prepare("folders", source, processes=1)
    assert decoded == [8, 9, 10, 11, 12, 13, 0, 1, 2, 3, 4, 5]


def test_a_process_that_is_killed_is_an_error_in_words_and_preparing_goes_on(source, monkeypatch):
    read = ImageIndex.read

    def fatal(index, i):
        if i == 9 and get_worker_info() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return read(index, i)

    monkeypatch.setattr(ImageIndex, "read", fatal)
    with pytest.raises(UserError, match=r"A decoding process was killed.*--processes 1 if it happens again"):
        prepare("folders", source, processes=2)
    monkeypatch.setattr(ImageIndex, "read", read)
    assert len(prepare("folders", source).splits["train"]) == 14


def prepare_and_count(source, file):
    read = ImageIndex.read

    def slow(*args):
        with file.open("a") as stream:
            stream.write("read\n")
        time.sleep(0.01)
        return read(*args)

    ImageIndex.read = slow
    prepare("folders", source)


def test_two_calls_at_a_time_prepare_a_set_once(source, tmp_path):
    children = [FORK.Process(target=prepare_and_count, args=(source, tmp_path / "reads")) for _ in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0, 0, 0]
    assert len((tmp_path / "reads").read_text().split()) == 14 + 6


def run_slowly(source, file):
    read = ImageIndex.read

    def slow(index, i):
        if get_worker_info() is not None:
            with file.open("a") as stream:
                stream.write(f"{os.getpid()}\n")
            time.sleep(0.2 if i > 4 else 0)
        return read(index, i)

    ImageIndex.read = slow
    worker.MP_STATUS_CHECK_INTERVAL = 0.1  # seconds between two looks whether the parent is still there
    prepare("folders", source, processes=2)


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(")")[-1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_decoding_processes_end_with_a_killed_parent(source, tmp_path):
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


def large_result(pids, *_):
    with pids.open("a") as stream:
        stream.write(f"{os.getpid()} ")
    return [bytes(10**6)], []


def read_nothing(pids):
    making._decode_chunk = functools.partial(large_result, pids)
    stream = making._decoded(range(10**6), "raw", 0, 2)
    time.sleep(60)
    del stream


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_a_decoding_process_that_waits_for_its_queue_to_be_read_ends_with_a_killed_parent(tmp_path):
    child = FORK.Process(target=read_nothing, args=(tmp_path / "pids",))
    child.start()
    deadline = time.monotonic() + 30
    pids: list[str] = []
    while time.monotonic() < deadline and len(pids) < 4:  # as many as are fetched beforehand: two each
        time.sleep(0.02)
        pids = (tmp_path / "pids").read_text().split() if (tmp_path / "pids").exists() else pids
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    while time.monotonic() < deadline and any(map(alive, pids)):
        time.sleep(0.02)
    assert len(set(pids)) == 2
    assert not any(map(alive, pids))


def wait_for(parent):
    making._end_with(parent, 0)
    time.sleep(60)


def test_a_decoding_process_whose_parent_was_killed_before_it_began_ends():
    child = FORK.Process(target=wait_for, args=(-1,))  # nobody's parent any more
    child.start()
    child.join(30)
    assert child.exitcode == 1


@pytest.mark.parametrize("renames", [0, 1, 2])
@pytest.mark.parametrize("by", ["open", "prepare", "force"])
def test_a_swap_that_was_killed_before_between_or_after_its_renames_is_finished_by_the_next_call(
    source, monkeypatch, renames, by
):
    first = prepare("folders", source)
    (source / "train" / "cat" / "cat_6.png").unlink()
    rename, left = Path.rename, [renames]

    def killed(self, to):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return rename(self, to)

    rmtree = shutil.rmtree
    monkeypatch.setattr(Path, "rename", killed)
    monkeypatch.setattr(
        shutil, "rmtree", lambda folder, **how: None if folder.name.endswith(".old") else rmtree(folder, **how)
    )
    with suppress(KeyboardInterrupt):
        prepare("folders", source, force=True)
    monkeypatch.undo()
    monkeypatch.setenv("ALEXNET_DATA", str(source.parent / "data"))
    assert prepared_set.is_prepared("folders")
    found = prepared_set.open_set("folders") if by == "open" else prepare("folders", source if by == "force" else None)
    assert len(found.splits["train"]) == (14 if by == "open" and renames == 0 else 13), "the new set, or the good old one"
    if by != "open":
        assert {path.name for path in found.folder.parent.iterdir()} == {"folders", "folders.lock"}
    assert found.fingerprint != first.fingerprint or (by, renames) == ("open", 0)
