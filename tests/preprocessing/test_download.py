"""Downloads that break, resume, lie and end, from a server in this process."""

import hashlib
import http.server
import io
import shutil
import tarfile
import threading

import pytest
from PIL import Image

from alexnet.config import UserError
from alexnet.preprocessing import download, imagenet20, store
from alexnet.preprocessing.datasets import prepare


class Server(http.server.BaseHTTPRequestHandler):
    """Sends `files`, from where it is asked to, and breaks off after `limit` bytes."""

    limit = 10**9
    ranges = True

    def do_GET(self):
        self.asked.append(self.headers["Range"])
        data = self.files.get(self.path)
        start = int(self.headers["Range"][6:-1]) if self.ranges and self.headers["Range"] else 0
        if data is None or start >= len(data):
            self.send_response(404 if data is None else 416)
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        self.wfile.write(data[start : start + self.limit])

    def log_message(self, *words):
        pass


@pytest.fixture
def server():
    class Fresh(Server):
        files, asked = {}, []

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Fresh) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        Fresh.url = f"http://127.0.0.1:{running.server_port}"
        yield Fresh
        running.shutdown()
        thread.join()


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


def test_imagenet20_is_downloaded_and_prepared(server, small, picture, monkeypatch):
    archives = {}
    for name, wnids in (("imagenette2-320", imagenet20.IMAGENETTE), ("imagewoof2-320", imagenet20.IMAGEWOOF)):
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w:gz") as tar:
            for k, wnid in enumerate(wnids):
                for split in ("train", "val"):
                    photograph = io.BytesIO()
                    Image.fromarray(picture(len(name), len(split), k)).save(photograph, "JPEG")
                    info = tarfile.TarInfo(f"{name}/{split}/{wnid}/{wnid}_1.JPEG")
                    info.size = len(photograph.getvalue())
                    tar.addfile(info, io.BytesIO(photograph.getvalue()))
        server.files[f"/{name}.tgz"] = stream.getvalue()
        archives[name] = (f"{server.url}/{name}.tgz", hashlib.md5(stream.getvalue()).hexdigest())
    monkeypatch.setattr(imagenet20, "ARCHIVES", archives)
    monkeypatch.setattr(imagenet20, "COUNTS", {"train": 20, "val": 20})
    monkeypatch.setattr(imagenet20, "DOWNLOAD_BYTES", 1)
    data = prepare("imagenet20")
    assert data.splits["train"].labels.tolist() == list(range(20))
    assert data.words[0] == "tench"
    assert data.words[10] == "Shih-Tzu"
    assert not (data.folder / "download").exists()
    folder = small / "by hand"
    for name in archives:
        download.unpack(download.fetch(archives[name][0], folder / f"{name}.tgz", archives[name][1]), folder / "x")
        (folder / "x" / name).rename(folder / name)
        (folder / "x").rmdir()
    shutil.rmtree(store.data_dir())
    assert prepare("imagenet20", folder).fingerprint == data.fingerprint


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
