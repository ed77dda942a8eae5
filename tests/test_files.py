"""What every room writes through: whole files, names that others gave, disks that refuse."""

import errno
import os

import pytest

from alexnet import files
from alexnet.config import UserError


def test_names_are_shown_without_control_characters_and_otherwise_as_they_are():
    assert files.shown("caf\u00e9 \u4e2d/a b.png") == "caf\u00e9 \u4e2d/a b.png"
    assert files.shown("a\x1b[2J\n\r\u202e.png") == "a\\x1b[2J\\n\\r\\u202e.png"
    assert files.shown(os.fsdecode(b"\xff.png")) == "\\udcff.png"


def test_a_new_folder_is_on_the_disk_with_all_that_are_made_around_it(tmp_path, monkeypatch):
    """After a power cut a file is no use in a folder that its own folder has not heard of."""
    synced = []
    monkeypatch.setattr(files, "sync_folder", synced.append)
    files.write_text(tmp_path / "a" / "b" / "file", "text")
    assert {tmp_path, tmp_path / "a", tmp_path / "a" / "b"} <= set(synced)
    synced.clear()
    files.write_text(tmp_path / "a" / "b" / "file", "other text")
    assert synced == [tmp_path / "a" / "b"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS])
def test_a_full_disk_or_a_refused_access_names_the_file_and_the_variables(number):
    for name, said in (("/set/mean.npy", "/set/mean.npy"), (None, "disk")):
        told = pytest.raises(UserError, match=f"^{said}: {os.strerror(number)}. ALEXNET_DATA .*, ALEXNET_RUNS ")
        with told, files.disk_errors_named():
            raise OSError(number, "no", name)
    with pytest.raises(OSError, match="away"), files.disk_errors_named():
        raise OSError(errno.ENOENT, "away", "/elsewhere/photo.jpg")


def test_a_full_disk_is_said_of_the_file_that_was_written(tmp_path, monkeypatch):
    def full(handle):
        raise OSError(errno.ENOSPC, "no room")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="no room") as error:
        files.write_text(tmp_path / "file", "text")
    assert error.value.filename == str(tmp_path / "file")
    assert list(tmp_path.iterdir()) == []
