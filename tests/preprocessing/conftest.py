"""Photographs in class folders, small enough that preparing them takes no time."""

import http.server
import io
import tarfile
import threading

import numpy as np
import pytest
from PIL import Image

from alexnet.preprocessing import filling, photographs, progress, workers

SIDE = 16


def _picture(*key, height=20, width=27):
    coarse = np.random.default_rng(key).integers(0, 256, (3, 3, 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


@pytest.fixture
def picture():
    """A function of some numbers that returns an image of their own, smooth enough to survive a JPEG."""
    return _picture


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Prepared sets in a temporary folder, of 16x16, in shards of four images."""
    monkeypatch.setenv("ALEXNET_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(photographs, "SIDE", SIDE)
    monkeypatch.setattr(progress, "SHARD", 4)
    monkeypatch.setattr(filling, "CHUNK", 2)
    monkeypatch.setattr(photographs, "SAMPLE", 1)
    monkeypatch.setattr(workers, "available", lambda: 1)
    return tmp_path


@pytest.fixture
def source(small):
    """Two classes, seven training and three test photographs of each, lossless, in `source/{train,test}/<class>/`."""
    for s, (split, count) in enumerate((("train", 7), ("test", 3))):
        for k, name in enumerate(("cat", "dog")):
            folder = small / "source" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                Image.fromarray(_picture(s, k, i)).save(folder / f"{name}_{i}.png")
    return small / "source"


def _jpeg(pixels):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=95)
    return stream.getvalue()


@pytest.fixture
def jpeg():
    """A function that returns the bytes of pixels as a JPEG."""
    return _jpeg


def _tar_of(file, members, mode="w"):
    stream = io.BytesIO()
    with tarfile.open(file, mode) if file else tarfile.open(fileobj=stream, mode=mode) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return stream.getvalue()


@pytest.fixture
def tar_of():
    """A function that writes a tar file of {name: bytes}, or returns its bytes where the file is None."""
    return _tar_of


@pytest.fixture
def classes(picture):
    """Five JPEGs of each of three classes, {class: {name: bytes}}, named so that names and numbers sort differently."""
    found = {}
    for k, wnid in enumerate(("n01440764", "n02510455", "n03000684")):
        names = [f"{wnid}_{i}.JPEG" for i in (10026, 7, 300, 41, 5)]
        found[wnid] = {name: _jpeg(picture(k, i)) for i, name in enumerate(names)}
    return found


@pytest.fixture
def write_folder():
    """A function that writes {name: bytes} into a new folder."""

    def write(folder, members):
        folder.mkdir(parents=True)
        for name, data in members.items():
            (folder / name).write_bytes(data)

    return write


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
    """A server of `files` on this machine."""

    class Fresh(Server):
        files, asked = {}, []

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Fresh) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        Fresh.url = f"http://127.0.0.1:{running.server_port}"
        yield Fresh
        running.shutdown()
        thread.join()
