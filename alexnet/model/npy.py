"""Reads an .npy file of a Python dictionary without executing it.

Such a file (`numpy.save` of `{layer: [weights, biases]}`) holds a pickle, and unpickling a stranger's file can run any code:
`numpy.load(allow_pickle=True)` does. Here a pickle gets none of the classes that it asks for. The five names that arrays
need are answered with stand-ins that keep numbers and check them, everything else is refused. numpy's own classes are not
used either: a pickle can tell them that a number is a pointer.
"""

import io
import math
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from alexnet.config import UserError

NUMBERS = {"f2", "f4", "f8"}
OBJECT = {"O", "O4", "O8"}


def read_layers(path: Path) -> dict[str, list[np.ndarray]]:
    """Return `{layer: [array, ...]}` from the .npy file of such a dictionary, or of `{layer: {"weights": array, ...}}`.

    Written by Python 2 or 3. Raises UserError for a file that is missing, damaged, holds anything else, or asks for more
    than arrays of floating-point numbers, dictionaries, lists, strings and bytes.
    """
    try:
        content = io.BytesIO(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}). Give the path of an .npy file of weights.") from error
    try:
        layers = _only_item(_unpickled(content))
        return {_text(name): [_numbers(array) for array in _listed(value)] for name, value in layers.items()}
    # Why any: a damaged pickle makes the unpickler raise almost anything.
    except Exception as error:
        raise UserError(
            f"{path} is refused: {error}. It must be an .npy file of a dictionary {{layer: [weights, biases]}}, such as "
            "bvlc_alexnet.npy; get it again, or save its arrays with numpy.save in that form."
        ) from error


def _unpickled(content: io.BytesIO) -> Any:
    version = np.lib.format.read_magic(content)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"its .npy header has version {version}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Why: numpy warns of headers that Python 2 wrote.
        shape, _, dtype = readers[version](content)
    if shape != () or dtype != np.dtype(object):
        raise ValueError(f"it holds an array {shape} of {dtype}")
    return _Unpickler(content, encoding="latin1").load()


class _Refusing:
    """A stand-in. Why classes only: BUILD would change a function's attributes, and here it ends in `__setstate__`."""

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("it gives a state to what has none")


class _Dtype(_Refusing):
    """Stands in for numpy.dtype: remembers a kind of number."""

    def __init__(self, code: Any, *_: Any) -> None:
        self.code, self.order = _text(code), "<"
        if self.code not in NUMBERS | OBJECT:
            raise pickle.UnpicklingError(f"it has numbers of type {self.code!r}")

    def __setstate__(self, state: tuple) -> None:
        # (version, byte order, subarray, names, fields, ...): no more than the order is believed.
        self.order = _text(state[1])
        if self.order not in "<>=|" or any(part is not None for part in state[2:5]):
            raise pickle.UnpicklingError("it has structured numbers")


class _Array(_Refusing):
    """Stands in for numpy.ndarray and for the function that makes an empty one."""

    content: Any = None  # an array, or a list of objects

    def __init__(self, *_: Any) -> None: ...

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, columns_first, data = state
        self.fill(data, dtype, shape, "F" if columns_first else "C")

    def fill(self, data: Any, dtype: _Dtype, shape: tuple[int, ...], order: str) -> None:
        count = math.prod(shape)
        if dtype.code in OBJECT:
            if not isinstance(data, list) or len(data) != count:
                raise pickle.UnpicklingError("an array of objects is not a list of them")
            self.content = data
            return
        data = data.encode("latin1") if isinstance(data, str) else bytes(data)  # a str was the bytes of Python 2
        numbers = np.frombuffer(data, np.dtype(dtype.order + dtype.code))
        if len(numbers) != count or min(shape, default=1) < 0:
            raise pickle.UnpicklingError(f"an array {shape} has {len(numbers)} numbers")
        self.content = numbers.reshape(shape, order=order)


class _FromBuffer(_Refusing):
    """Stands in for the function by which protocol 5 makes an array of bytes."""

    def __new__(cls, data: Any, dtype: _Dtype, shape: tuple[int, ...], order: str) -> _Array:
        array = _Array()
        array.fill(data, dtype, shape, order)
        return array


class _Encode(_Refusing):
    """Stands in for the function by which Python 3 writes bytes for Python 2."""

    def __new__(cls, text: str, encoding: str) -> bytes:
        if encoding != "latin1":
            raise pickle.UnpicklingError(f"it has bytes in the encoding {encoding!r}")
        return text.encode("latin1")


STAND_INS = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy.core.numeric", "_frombuffer"): _FromBuffer,
    ("numpy._core.numeric", "_frombuffer"): _FromBuffer,
    ("_codecs", "encode"): _Encode,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> type:
        if (module, name) not in STAND_INS:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which could run code")
        return STAND_INS[module, name]


def _only_item(array: Any) -> dict:
    item = array.content[0] if isinstance(array, _Array) and isinstance(array.content, list) else array
    if type(item) is not dict:
        raise ValueError("it holds no dictionary")
    return item


def _listed(value: Any) -> list:
    if type(value) is dict and set(value) <= {"weights", "biases"}:
        return [value[key] for key in ("weights", "biases") if key in value]
    if isinstance(value, _Array) and isinstance(value.content, list):
        return value.content
    if not isinstance(value, list | tuple):
        raise ValueError("a layer is not a list of arrays")
    return list(value)


def _numbers(array: Any) -> np.ndarray:
    if not isinstance(array, _Array) or not isinstance(array.content, np.ndarray):
        raise ValueError("a layer has something that is not an array of numbers")
    return array.content


def _text(word: Any) -> str:
    return word.decode("latin1") if isinstance(word, bytes) else str(word)
