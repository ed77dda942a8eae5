import io
import os
import pickle
import struct

import numpy as np
import pytest

from alexnet.config import UserError
from alexnet.model import npy
from alexnet.model.npy import read_layers

LAYERS = {
    "conv1": [np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2), np.array([1.5, -2.5], np.float32)],
    "fc8": [np.arange(6, dtype=np.float64).reshape(2, 3), np.array([0.5, -0.0], np.float16)],
}


def written(path, pickled):
    """An .npy file of one object around any pickle."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|O", "fortran_order": False, "shape": ()})
    path.write_bytes(header.getvalue() + pickled)
    return path


def assert_layers(found):
    assert found.keys() == LAYERS.keys()
    for name, parts in LAYERS.items():
        for array, expected in zip(found[name], parts, strict=True):
            np.testing.assert_array_equal(array, expected)
            assert array.dtype == expected.dtype


@pytest.mark.parametrize("protocol", range(6))
def test_a_dictionary_of_any_protocol_is_read(tmp_path, protocol):
    content = np.empty((), dtype=object)
    content[()] = LAYERS
    assert_layers(read_layers(written(tmp_path / "net.npy", pickle.dumps(content, protocol))))


def test_what_numpy_saves_is_read_in_every_form(tmp_path):
    fortran = {name: [np.asfortranarray(w), b] for name, (w, b) in LAYERS.items()}
    swapped = {name: [w.astype(w.dtype.newbyteorder(">")), b] for name, (w, b) in LAYERS.items()}
    for layers in (LAYERS, fortran, swapped, {name: tuple(parts) for name, parts in LAYERS.items()}):
        np.save(tmp_path / "net.npy", np.array(layers, dtype=object), allow_pickle=True)
        found = read_layers(tmp_path / "net.npy")
        for name, parts in LAYERS.items():
            np.testing.assert_array_equal(found[name][0], parts[0])
    both = {"weights": LAYERS["conv1"][0], "biases": LAYERS["conv1"][1]}
    np.save(tmp_path / "net.npy", np.array({"conv1": dict(reversed(both.items()))}, dtype=object), allow_pickle=True)
    np.testing.assert_array_equal(read_layers(tmp_path / "net.npy")["conv1"][0], both["weights"])
    ragged = np.empty(2, dtype=object)
    ragged[:] = LAYERS["conv1"]
    np.save(tmp_path / "net.npy", np.array({"conv1": ragged}, dtype=object), allow_pickle=True)
    np.testing.assert_array_equal(read_layers(tmp_path / "net.npy")["conv1"][1], LAYERS["conv1"][1])


def text(word):
    """A str of Python 2, short or long: bytes without a type of their own."""
    word = word if isinstance(word, bytes) else word.encode()
    return (b"U" + bytes([len(word)]) if len(word) < 256 else b"T" + struct.pack("<i", len(word))) + word


def number(value):
    return b"J" + struct.pack("<i", value)


def dtype(code, order="<", flags=0):
    made = b"cnumpy\ndtype\n" + text(code) + number(0) + number(1) + b"\x87R"
    return made + b"(" + number(3) + text(order) + b"NNN" + number(-1) + number(-1) + number(flags) + b"tb"


def array(shape, kind, data):
    made = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n" + number(0) + b"\x85" + text("b") + b"\x87R"
    return made + b"(" + number(1) + b"(" + b"".join(map(number, shape)) + b"t" + kind + b"\x89" + data + b"tb"


def python2(layers):
    """The pickle that numpy of Python 2 makes of a dictionary of arrays, operation by operation."""
    content = b"}"
    for name, parts in layers.items():
        listed = b"".join(array(p.shape, dtype(p.dtype.str[1:]), text(p.tobytes())) + b"a" for p in parts)
        content += text(name) + b"]" + listed + b"s"
    return b"\x80\x02" + array((), dtype("O8", "|", 63), b"]" + content + b"a") + b"."


def test_a_file_of_python_2_is_read(tmp_path):
    path = written(tmp_path / "net.npy", python2(LAYERS))
    assert_layers(np.load(path, allow_pickle=True, encoding="latin1").item())  # it is what numpy reads
    assert_layers(read_layers(path))


class Harmful:
    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call


def refusal(path):
    with pytest.raises(UserError) as caught:
        read_layers(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("function", "name"),
    [(os.system, "system"), (eval, "eval"), (getattr, "getattr"), (np.load, "load"), (np.frombuffer, "frombuffer")],
)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_code_in_a_file_is_refused_and_does_not_run(tmp_path, function, name, protocol, monkeypatch):
    content = np.empty((), dtype=object)
    content[()] = {"conv1": [Harmful(function, (f"touch {tmp_path}/ran",)), Harmful(function, ())]}
    message = refusal(written(tmp_path / "net.npy", pickle.dumps(content, protocol)))
    assert "could run code" in message
    assert name in message
    assert not (tmp_path / "ran").exists()


ATTACKS = {
    "pointers as numbers": python2({}).replace(b"]}a", text(bytes(8))),
    "pointers in an array": b"\x80\x02}" + text("conv1") + b"]" + array((1,), dtype("O8", "|", 0), text(bytes(8))) + b"as.",
    "records": b"\x80\x02}" + text("conv1") + b"]" + array((1,), dtype("V8"), text(bytes(8))) + b"as.",
    "a shape beyond the data": b"\x80\x02}" + text("a") + b"]" + array((9, 9), dtype("f4"), text(bytes(8))) + b"as.",
    "a negative shape": b"\x80\x02}" + text("a") + b"]" + array((-1, -2), dtype("f4"), text(bytes(8))) + b"as.",
    "another codec": b"\x80\x02c_codecs\nencode\n" + text("abc") + text("rot13") + b"\x86R.",
    "a state for a class": b"\x80\x02cnumpy\nndarray\n}" + text("content") + text("x") + b"sb.",
    "attributes for a class": b"\x80\x02c_codecs\nencode\nN}" + text("x") + text("y") + b"s\x86b.",
    "a name with dots": b"\x80\x04\x8c\x05numpy\x8c\x10ndarray.__base__\x93.",
    "an outside object": b"\x80\x02" + text("x") + b"Q.",
    "no dictionary": b"\x80\x02]" + number(3) + b"a.",
    "numbers in place of arrays": b"\x80\x02}" + text("conv1") + b"]" + number(3) + b"as.",
    "a word in place of arrays": b"\x80\x02}" + text("conv1") + text("abc") + b"s.",
    "nothing": b"",
    "half a file": python2(LAYERS)[:300],
    "noise": bytes(range(256)),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_whatever_else_a_pickle_holds_is_refused(tmp_path, attack):
    before = {cls: dict(vars(cls)) for cls in npy.STAND_INS.values()}
    refusal(written(tmp_path / "net.npy", ATTACKS[attack]))
    assert all(dict(vars(cls)) == attributes for cls, attributes in before.items())


def test_files_of_another_kind_are_refused(tmp_path):
    path = tmp_path / "net.npy"
    assert "cannot be read" in refusal(path)
    path.write_bytes(b"")
    refusal(path)
    path.write_bytes(b"PK\x03\x04 an .npz")
    refusal(path)
    np.save(path, np.zeros(3))
    assert "array (3,) of float64" in refusal(path)
