"""Tar files with everything that does not belong into one, and with their ends missing."""

import gzip
import io
import os
import tarfile

import pytest

from alexnet.config import UserError
from alexnet.preprocessing.image_index import Place, class_places, index_classes, index_places

MEMBERS = {"a.JPEG": b"A" * 700, "b.JPEG": b"B" * 512, "c.JPEG": b""}


def add(file, name, kind=tarfile.REGTYPE, data=b"", linkname=""):
    with tarfile.open(file, "a") as tar:
        info = tarfile.TarInfo(name)
        info.type, info.linkname, info.size = kind, linkname, len(data)
        tar.addfile(info, io.BytesIO(data))


def index(place):
    return index_places([place], lambda *_: 0)


def read(found):
    return {name.decode(): found.read(i) for i, name in enumerate(found.rows["name"].tolist())}


def test_members_are_found_where_they_are(tmp_path, tar_of):
    file = tmp_path / "a.tar"
    tar_of(file, {"./folder/" + name: data for name, data in MEMBERS.items()})
    add(file, "folder", tarfile.DIRTYPE)
    add(file, "._a.JPEG", data=b"what a Mac adds")
    found = index(Place(file))
    assert read(found) == MEMBERS
    assert found.refused == ()


def test_long_names_and_large_numbers_are_read(tmp_path):
    file, name = tmp_path / "a.tar", "x" * 180 + "\u00e9.JPEG"
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        with tarfile.open(file, "w", format=form) as tar:
            info = tarfile.TarInfo(f"folder/{name}")
            info.size = 3
            tar.addfile(info, io.BytesIO(b"abc"))
        assert read(index(Place(file))) == {name: b"abc"}


@pytest.mark.parametrize(
    ("name", "kind", "why"),
    [
        ("../../a.JPEG", tarfile.REGTYPE, "a path that leaves the archive, or is too long"),
        ("folder/../../a.JPEG", tarfile.REGTYPE, "a path that leaves the archive, or is too long"),
        ("/etc/a.JPEG", tarfile.REGTYPE, "a path that leaves the archive, or is too long"),
        ("a.JPEG", tarfile.SYMTYPE, "a link, or no plain file"),
        ("a.JPEG", tarfile.LNKTYPE, "a link, or no plain file"),
        ("a.JPEG", tarfile.FIFOTYPE, "a link, or no plain file"),
        ("a.JPEG", tarfile.CHRTYPE, "a link, or no plain file"),
        ("a" * 300, tarfile.REGTYPE, "a path that leaves the archive, or is too long"),
    ],
)
def test_paths_that_leave_an_archive_and_links_are_refused(tmp_path, tar_of, name, kind, why):
    file = tmp_path / "a.tar"
    tar_of(file, MEMBERS)
    add(file, name, kind, linkname="/etc/passwd")
    found = index(Place(file))
    assert read(found) == MEMBERS
    assert found.refused == ((f"{name} in {file}", why),)


def test_of_two_members_of_one_name_the_later_counts_as_in_unpacking(tmp_path, tar_of):
    file = tmp_path / "a.tar"
    tar_of(file, MEMBERS)
    add(file, "a.JPEG", data=b"newer")
    found = index(Place(file))
    assert read(found) == {**MEMBERS, "a.JPEG": b"newer"}


def test_tars_in_a_tar_are_read_without_unpacking(tmp_path, tar_of):
    file = tmp_path / "outer.tar"
    tar_of(file, {"n01.tar": tar_of(None, MEMBERS), "n02.tar": tar_of(None, {"z.JPEG": b"Z"}), "readme.txt": b"..."})
    inner = class_places(file)
    assert list(inner) == ["n01", "n02"]
    assert read(index(inner["n01"])) == MEMBERS
    assert read(index(inner["n02"])) == {"z.JPEG": b"Z"}


@pytest.mark.parametrize("kind", ["pipe", "link to a pipe"])
def test_what_is_no_plain_file_is_never_opened(tmp_path, kind):
    """Opening a pipe would wait for ever."""
    os.mkfifo(tmp_path / "pipe.tar")
    (tmp_path / "link.tar").symlink_to(tmp_path / "pipe.tar")
    file = tmp_path / ("pipe.tar" if kind == "pipe" else "link.tar")
    with pytest.raises(UserError, match=r"is neither a folder nor a plain file, and is not opened"):
        index(Place(file))
    with pytest.raises(UserError, match=r"is neither a folder nor a plain file, and is not opened"):
        index_classes([tmp_path], ("link", "pipe"))


def test_a_folder_that_may_not_be_read_is_not_taken_for_an_empty_one(tmp_path, monkeypatch):
    def refused(folder):
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(os, "listdir", refused)
    with pytest.raises(PermissionError):
        class_places(tmp_path)


def test_a_header_that_announces_a_name_of_gigabytes_is_refused_without_reading_it(tmp_path, tar_of):
    file = tmp_path / "a.tar"
    long = tarfile.TarInfo("././@LongLink")
    long.type, long.size = tarfile.GNUTYPE_LONGNAME, 2**33
    file.write_bytes(long.tobuf(tarfile.GNU_FORMAT) + tar_of(None, MEMBERS))
    with pytest.raises(UserError, match=r"a\.tar cannot be read as a tar file \(a header announces 8,589,934,592 bytes\)"):
        index(Place(file))


def test_control_characters_of_names_are_escaped_where_they_are_told(tmp_path, tar_of):
    file = tmp_path / "a.tar"
    tar_of(file, {"\x1b[2Ja.JPEG": b"a"})
    add(file, "b\n.JPEG", tarfile.SYMTYPE)
    found = index(Place(file))
    assert found.name(0) == f"\\x1b[2Ja.JPEG in {file}"
    assert found.refused[0][0] == f"b\\n.JPEG in {file}"


CUTS = {
    "in the first header": lambda data: data[:300],
    "in an image": lambda data: data[:900],
    "behind an image": lambda data: data[: 512 + 1024],
    "in a header": lambda data: data[: 512 + 1024 + 100],
    "before the end": lambda data: data[: 512 + 1024 + 512 + 512 + 512],
    "empty": lambda data: b"",
    "zipped": gzip.compress,
    "text": lambda data: b"<html>not found</html>" * 100,
    "overwritten": lambda data: data[: 512 + 1024] + b"!" * 512 + data[512 + 1024 + 512 :],
}


@pytest.mark.parametrize("size", [2**62, 2**80, -512, -(2**40)])
def test_an_absurd_length_in_a_header_is_refused_by_name(tmp_path, tar_of, size):
    file = tmp_path / "a.tar"
    data = bytearray(tar_of(None, MEMBERS))
    header = data[2560:3072]  # of b.JPEG's follower, a file of no bytes; numbers are in base 256
    header[124:136] = (size % 2**96).to_bytes(12, "big")
    header[124] = 0x80 if size > 0 else 0xFF
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    data[2560:3072] = header
    file.write_bytes(data)
    with pytest.raises(UserError, match=r"a\.tar (is cut short or damaged|cannot be read as a tar file)"):
        index(Place(file))


@pytest.mark.parametrize("cut", CUTS)
def test_an_archive_that_is_cut_short_or_damaged_is_refused_by_name(tmp_path, tar_of, cut):
    file = tmp_path / "a.tar"
    file.write_bytes(CUTS[cut](tar_of(None, MEMBERS)))
    with pytest.raises(UserError, match=r"a\.tar (is cut short or damaged|cannot be read as a tar file)"):
        index(Place(file))


@pytest.mark.parametrize("cut", ["in an image", "behind an image", "in a header", "before the end", "zipped"])
def test_a_tar_that_is_cut_short_inside_a_tar_does_not_run_into_the_next(tmp_path, tar_of, cut):
    file = tmp_path / "outer.tar"
    tar_of(file, {"n01.tar": CUTS[cut](tar_of(None, MEMBERS)), "n02.tar": tar_of(None, {"z.JPEG": b"Z"})})
    with pytest.raises(UserError, match=r"outer\.tar \(its part from byte 512\)"):
        index(class_places(file)["n01"])
