"""Protobuf's wire format and the parts of an ONNX file that inspection needs. Every length is checked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tritkit.errors import ModelFileError

Value = int | memoryview
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FLOATS = (4, 10)  # packed floats and doubles lie as they are
_TYPED = (*_FLOATS, 5, 7)
_DTYPES = {1: "float32", 2: "uint8", 3: "int8", 6: "int32", 7: "int64", 10: "float16", 11: "float64"}


@dataclass(frozen=True)
class Tensor:
    """An initializer: its values are looked at only where they lie in the file and fit the shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    raw: memoryview

    @property
    def count(self) -> int:
        total = 1
        for size in self.shape:
            total *= size
        return total

    @property
    def itemsize(self) -> int:
        """Bytes of a value; 0 where the type is unknown."""
        return 0 if self.dtype == "other" else np.dtype(self.dtype).itemsize

    @property
    def values(self) -> NDArray[np.generic] | None:
        """The values in their shape; None if they lie in another file or do not fill the shape."""
        if self.dtype == "other":
            return None
        dtype = np.dtype(self.dtype).newbyteorder("<")
        if len(self.raw) != self.count * dtype.itemsize:
            return None
        return np.frombuffer(self.raw, dtype).reshape(self.shape)


@dataclass(frozen=True)
class Node:
    name: str
    op: str
    domain: str
    inputs: tuple[str, ...]
    ints: dict[str, tuple[int, ...]]  # attributes that are integers
    outputs: tuple[str, ...] = ()


@dataclass
class Model:
    """What was found in the file."""

    nodes: list[Node] = field(default_factory=list)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    producer: str = ""
    opsets: dict[str, int] = field(default_factory=dict)


def read_model(data: bytes) -> Model:
    """The ONNX model in `data`. ModelFileError where it is cut short, damaged, or no ONNX file."""
    model, graphs = Model(), 0
    for number, value in _fields(memoryview(data)):
        if number == 2:
            model.producer = _text(value)
        elif number == 7:
            graphs += 1
            _read_graph(_bytes(value), model)
        elif number == 8:
            domain, version = _first(_bytes(value), 1), _first(_bytes(value), 2)
            model.opsets[_text(domain or memoryview(b""))] = version if isinstance(version, int) else 0
        elif number == 14:
            key, text = _first(_bytes(value), 1), _first(_bytes(value), 2)
            model.metadata[_text(key or memoryview(b""))] = _text(text or memoryview(b""))
    if graphs != 1:
        raise ModelFileError("this is no ONNX file (it holds no network); give an .onnx or .safetensors file")
    return model


def _read_graph(data: memoryview, model: Model) -> None:
    for number, value in _fields(data):
        if number == 1:
            model.nodes.append(_node(_bytes(value)))
        elif number == 5:
            tensor = _tensor(_bytes(value))
            model.tensors[tensor.name] = tensor


def _node(data: memoryview) -> Node:
    texts: dict[int, str] = {}
    inputs: list[str] = []
    outputs: list[str] = []
    ints: dict[str, tuple[int, ...]] = {}
    for number, value in _fields(data):
        if number in (1, 2):
            (inputs if number == 1 else outputs).append(_text(value))
        elif number in (3, 4, 7):
            texts[number] = _text(value)
        elif number == 5:
            ints.update(_attribute(_bytes(value)))
    return Node(texts.get(3, ""), texts.get(4, ""), texts.get(7, ""), tuple(inputs), ints, tuple(outputs))


def _attribute(data: memoryview) -> dict[str, tuple[int, ...]]:
    name, values = "", []
    for number, value in _fields(data):
        if number == 1:
            name = _text(value)
        elif number in (3, 8):
            values += _integers(value)
    return {name: tuple(values)} if values else {}


def _tensor(data: memoryview) -> Tensor:
    name, dtype, raw = "", 0, memoryview(b"")
    shape: list[int] = []
    typed: list[tuple[int, Value]] = []
    for number, value in _fields(data):
        if number == 1:
            shape += _integers(value)
        elif number == 2 and isinstance(value, int):
            dtype = value
        elif number == 8:
            name = _text(value)
        elif number == 9:
            raw = _bytes(value)
        elif number in _TYPED:
            typed.append((number, value))
    if len(shape) > 32 or any(size < 0 for size in shape):
        raise ModelFileError(f"tensor {name!r} has the impossible shape {shape[:33]}")
    kind = _DTYPES.get(dtype, "other")
    if typed and not raw and kind != "other":
        raw = memoryview(b"".join(_plain(number, value, kind) for number, value in typed))
    return Tensor(name, kind, tuple(shape), raw)


def _plain(number: int, value: Value, kind: str) -> bytes:
    """The bytes that raw_data would have, of values in the fields float_data, int32_data, int64_data, double_data."""
    if not isinstance(value, int) and number in _FLOATS:
        return bytes(value)
    numbers = np.array([value], np.uint64) if isinstance(value, int) else _varints(value)
    dtype = np.dtype("u2" if kind == "float16" else kind)  # its bits stand as integers
    return numbers.astype(np.int64).astype(dtype if dtype.kind != "f" else np.int64).tobytes()


def _varints(data: memoryview) -> NDArray[np.uint64]:
    """All numbers of a packed field at once: there may be millions."""
    octets = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(octets < 128)
    if not len(octets):
        return np.zeros(0, np.uint64)
    if not len(ends) or ends[-1] != len(octets) - 1:
        raise ModelFileError("the file is damaged: it ends inside a number")
    starts = np.concatenate([[0], ends[:-1] + 1])
    places = np.arange(len(octets)) - np.repeat(starts, ends - starts + 1)
    if places.max() > 9:
        raise ModelFileError("the file is damaged: a number of more than ten bytes")
    parts = (octets & 127).astype(np.uint64) << (7 * places).astype(np.uint64)
    return np.asarray(np.add.reduceat(parts, starts), np.uint64)


def _integers(value: Value) -> list[int]:
    """A repeated integer: one, or packed."""
    if isinstance(value, int):
        return [_signed(value)]
    found, at = [], 0
    while at < len(value):
        number, at = _varint(value, at)
        found.append(_signed(number))
    return found


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


def _first(data: memoryview, wanted: int) -> Value | None:
    return next((value for number, value in _fields(data) if number == wanted), None)


def _bytes(value: Value) -> memoryview:
    if isinstance(value, int):
        raise ModelFileError("the file is damaged: a number where a message should be")
    return value


def _text(value: Value) -> str:
    return bytes(_bytes(value)).decode("utf-8", "replace")


def _fields(data: memoryview) -> Iterator[tuple[int, Value]]:
    """(field number, value) of a message, in order."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        kind = key & 7
        if kind == _VARINT:
            number, at = _varint(data, at)
            yield key >> 3, number
            continue
        if kind == _BYTES:
            size, at = _varint(data, at)
        elif kind in (_FIXED64, _FIXED32):
            size = 8 if kind == _FIXED64 else 4
        else:
            raise ModelFileError("the file is damaged or no ONNX file: a field of an unknown kind")
        if size > len(data) - at:
            raise ModelFileError(f"the file is damaged: {size:,} bytes announced where {len(data) - at:,} remain")
        yield key >> 3, data[at : at + size]
        at += size


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise ModelFileError("the file is damaged: it ends inside a number")
        value |= (data[at] & 127) << shift
        at += 1
        if data[at - 1] < 128:
            return value & ((1 << 64) - 1), at
    raise ModelFileError("the file is damaged: a number of more than ten bytes")
