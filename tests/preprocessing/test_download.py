"""Downloads that break, resume, lie and end, from a server in this process."""

import hashlib
import io
import tarfile

import pytest

from alexnet.config import UserError
from alexnet.preprocessing import download

DATA = bytes(range(256)) * 400
MD5 = hashlib.md5(DATA).hexdigest()


@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_download_is_gone_on_with(server, tmp_path, ranges):
    server.files, server.limit, server.ranges = {"/a.tgz": DATA}, 30_000 if ranges else 10**9, ranges
    (tmp_path / "a.tgz.partial").write_bytes(DATA[:5000])
    file = download.fetch(f"{server.url}/a.tgz", tmp_path / "a.tgz", MD5)
    assert file.read_bytes() == DATA
    expected = [f"bytes={5000 + 30_000 * k}-" for k in range(4)] if ranges else ["bytes=5000-"]
    assert server.asked == expected
    assert not list(tmp_path.glob("*.partial"))


def test_what_was_received_is_kept_when_the_server_gives_up(server, tmp_path):
    server.files, server.limit = {"/a.tgz": DATA}, 1000
    with pytest.raises(UserError, match=r"could not be downloaded .*too soon.*which goes on from there.*--source DIR"):
        download.fetch(f"{server.url}/a.tgz", tmp_path / "a.tgz", MD5)
    assert (tmp_path / "a.tgz.partial").read_bytes() == DATA[: 1000 * download.TRIES]
    server.limit = 10**9
    assert download.fetch(f"{server.url}/a.tgz", tmp_path / "a.tgz", MD5).read_bytes() == DATA


def test_a_complete_part_needs_only_its_checksum(server, tmp_path):
    server.files = {"/a.tgz": DATA}
    (tmp_path / "a.tgz.partial").write_bytes(DATA)
    assert download.fetch(f"{server.url}/a.tgz", tmp_path / "a.tgz", MD5).read_bytes() == DATA


def test_another_file_than_the_published_one_is_refused_and_not_kept(server, tmp_path):
    server.files = {"/a.tgz": DATA[:-1] + b"!"}
    with pytest.raises(UserError, match=rf"is not the published file: its MD5 sum is .*, not {MD5}"):
        download.fetch(f"{server.url}/a.tgz", tmp_path / "a.tgz", MD5)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("path", ["/gone.tgz", None])
def test_without_the_file_or_a_network_a_copy_is_asked_for(server, tmp_path, path):
    url = f"{server.url}{path}" if path else "http://127.0.0.1:9/a.tgz"
    with pytest.raises(UserError, match=r"could not be downloaded .*--source DIR"):
        download.fetch(url, tmp_path / "a.tgz", MD5)


@pytest.mark.parametrize("name", ["../outside.txt", "/outside.txt"])
def test_a_path_that_leaves_the_folder_is_not_unpacked(tmp_path, name):
    with tarfile.open(tmp_path / "a.tgz", "w:gz") as tar:
        info = tarfile.TarInfo(name)
        tar.addfile(info, io.BytesIO(b""))
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc"
        tar.addfile(link)
    with pytest.raises(UserError, match="cannot be unpacked"):
        download.unpack(tmp_path / "a.tgz", tmp_path / "a")
    assert not (tmp_path / "a").exists()
    assert not (tmp_path / "outside.txt").exists()


def test_a_damaged_archive_is_named(tmp_path):
    (tmp_path / "a.tgz").write_bytes(b"\x1f\x8b\x08nonsense")
    with pytest.raises(UserError, match=r"a.tgz cannot be unpacked"):
        download.unpack(tmp_path / "a.tgz", tmp_path / "a")
