"""The compressed network as bytes: `compress`, `decompress`, and the file.

    "TKDC", u32 version, u64 bytes of the body, u32 CRC-32 of the body; then the body: u32 tensors, and for each
    u16 bytes of the name, name (UTF-8), u8 kind (0 a plain tensor, 1 a layer with shared weights), u8 dtype, u8
    dimensions, u32 each of them, u64 bytes of the content, content.

Little endian. A plain tensor's content is its values in C order; a layer's is described in `encoding`.
"""

from __future__ import annotations

import os
import struct
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from tritkit.compress.encoding import Layer, decode_layer, encode_layer, measure
from tritkit.compress.sharing import Shared, centroids_of, shared_layers
from tritkit.compress.sizes import Sizes
from tritkit.errors import ModelFileError, TritkitError, UnsupportedError, UserError

__all__ = ["Compressed", "compress", "decompress", "sizes"]

_MAGIC, _VERSION = b"TKDC", 1
_FILE, _LENGTH = struct.Struct("<4sIQI"), struct.Struct("<Q")
_COUNT, _NAME, _WHAT = struct.Struct("<I"), struct.Struct("<H"), struct.Struct("<BBB")
_PLAIN, _LAYER = 0, 1
_MOST_DIMENSIONS = 8
_DTYPES = (
    *(torch.float32, torch.float64, torch.float16, torch.int64, torch.int32),
    *(torch.int16, torch.int8, torch.uint8, torch.bool),
)
_NUMPY = ("<f4", "<f8", "<f2", "<i8", "<i4", "<i2", "i1", "u1", "?")
_MOST_WEIGHTS = 1 << 29  # of all layers together: what a few hostile bytes may make us allocate is bounded


@dataclass(frozen=True)
class Compressed:
    """A compressed network: the bytes of its file. `compress` and `Compressed.load` make one."""

    data: bytes = field(repr=False)

    def save(self, path: str | Path) -> None:
        """Write the file; whole or not at all. TritkitError if it cannot be written."""
        path = Path(path)
        try:
            handle, scratch = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(self.data)
                os.chmod(scratch, 0o644)
                os.replace(scratch, path)
            except OSError:
                Path(scratch).unlink(missing_ok=True)
                raise
        except OSError as error:
            raise TritkitError(f"cannot write {path}: {error.strerror or error}; choose another folder") from error

    @classmethod
    def load(cls, path: str | Path) -> Compressed:
        """Read a file of `save`. UserError if it cannot be read, ModelFileError if it is not one or is damaged."""
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror or error}") from error
        _body(data)
        return cls(data)


def compress(net: nn.Module, conv_gap_bits: int = 8, linear_gap_bits: int = 5) -> Compressed:
    """The file of a network with shared weights.

    conv_gap_bits, linear_gap_bits: bits of a gap between two stored weights, 1..8; the paper's are the defaults. All
    tensors that are not shared weights go in as they are. Raises UserError without a layer of `share_` or with
    centroids that are not finite, UnsupportedError for a dtype that files cannot hold (bfloat16).
    """
    layers = shared_layers(net)
    if not layers:
        raise UserError("the network has no layer with shared weights; call share_ first")
    gap_bits = {4: _gap_bits("conv_gap_bits", conv_gap_bits), 2: _gap_bits("linear_gap_bits", linear_gap_bits)}
    centroids = centroids_of(net)
    records = []
    for name, shared in layers.items():
        layer = _layer(name, shared, centroids[name], gap_bits[shared.index.ndim])
        records.append(_record(f"{name}.weight", _LAYER, torch.float32, layer.index.shape, encode_layer(layer)))
    for key, value in net.state_dict().items():
        if not _belongs(key, layers):
            records.append(_record(key, _PLAIN, value.dtype, tuple(value.shape), _plain_bytes(key, value)))
    body = _COUNT.pack(len(records)) + b"".join(records)
    return Compressed(_FILE.pack(_MAGIC, _VERSION, len(body), zlib.crc32(body)) + body)


def decompress(compressed: Compressed) -> dict[str, Tensor]:
    """The state dict of the stripped network (`strip_`), bit for bit.

    ModelFileError for bytes that `compress` did not make.
    """
    return {
        name: torch.from_numpy(value.weight()) if isinstance(value, Layer) else value
        for name, value in _contents(compressed)
    }


def sizes(compressed: Compressed) -> Sizes:
    """The bytes of the network at every stage. ModelFileError for bytes `compress` did not make."""
    layers, rest = [], 0
    for name, value in _contents(compressed):
        if isinstance(value, Layer):
            layers.append(measure(name.removesuffix(".weight"), value))
        else:
            rest += value.numel() * value.element_size()
    framing = len(compressed.data) - rest - sum(layer.huffman for layer in layers)
    return Sizes(tuple(layers), rest, framing)


def _contents(compressed: Compressed) -> Iterator[tuple[str, Layer | Tensor]]:
    """Name and value of each tensor."""
    body = _body(compressed.data)
    reader = _Reader(body)
    (count,) = reader.unpack(_COUNT)
    names: set[str] = set()
    weights = 0
    for _ in range(count):
        name, kind, code, shape, content = reader.record()
        weights += prod(shape) if kind == _LAYER else 0
        if weights > _MOST_WEIGHTS:
            raise ModelFileError(f"the layers up to {name!r} have {weights} weights; at most {_MOST_WEIGHTS} are read")
        if name in names:
            raise ModelFileError(f"tensor {name!r} is there twice")
        names.add(name)
        yield name, _value(name, kind, code, shape, content)
    if reader.at != len(body):
        raise ModelFileError(f"{len(body) - reader.at} bytes follow the last tensor")


class _Reader:
    """Reads from bytes, and never behind them."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, size: int) -> bytes:
        if size > len(self.data) - self.at:
            raise ModelFileError(f"the file ends at byte {len(self.data)} of its body; {size} more were announced")
        self.at += size
        return self.data[self.at - size : self.at]

    def unpack(self, form: struct.Struct) -> tuple[int, ...]:
        return form.unpack(self.take(form.size))

    def record(self) -> tuple[str, int, int, tuple[int, ...], bytes]:
        """Name, kind, dtype, shape and content of the next tensor."""
        (length,) = self.unpack(_NAME)
        try:
            name = self.take(length).decode()
        except UnicodeDecodeError as error:
            raise ModelFileError("the name of a tensor is not UTF-8") from error
        kind, code, dimensions = self.unpack(_WHAT)
        shape = self.unpack(struct.Struct(f"<{dimensions}I"))
        (size,) = self.unpack(_LENGTH)
        return name, kind, code, shape, self.take(size)


def _body(data: bytes) -> bytes:
    """What follows the head, checked against it."""
    if len(data) < _FILE.size or data[:4] != _MAGIC:
        raise ModelFileError("not a compressed network of tritkit; such a file begins with TKDC")
    _, version, size, checksum = _FILE.unpack_from(data)
    if version != _VERSION:
        raise ModelFileError(f"a compressed network of version {version}; this tritkit reads version {_VERSION}")
    body = data[_FILE.size :]
    if len(body) != size or zlib.crc32(body) != checksum:
        raise ModelFileError("the compressed network is damaged: its length or checksum is not what its head says")
    return body


def _value(name: str, kind: int, code: int, shape: tuple[int, ...], content: bytes) -> Layer | Tensor:
    try:
        if kind == _LAYER and code == 0 and len(shape) in (2, 4):
            return decode_layer(content, shape)
        if kind == _PLAIN and code < len(_DTYPES):
            return _plain_tensor(code, shape, content)
    except ModelFileError as error:
        raise ModelFileError(f"tensor {name!r}: {error}") from error
    raise ModelFileError(f"tensor {name!r}: there is no kind {kind} with dtype {code} and {len(shape)} dimensions")


def _plain_tensor(code: int, shape: tuple[int, ...], content: bytes) -> Tensor:
    form = np.dtype(_NUMPY[code])
    if len(shape) > _MOST_DIMENSIONS or len(content) != prod(shape) * form.itemsize:
        raise ModelFileError(f"the shape {list(shape)} does not take {len(content)} bytes")
    if _DTYPES[code] == torch.bool and content.strip(b"\0\1"):
        raise ModelFileError("truth values other than 0 and 1")
    return torch.from_numpy(np.frombuffer(content, form).reshape(shape).copy())


def _layer(name: str, shared: Shared, centroids: Tensor, gap_bits: int) -> Layer:
    values = centroids.detach().cpu().float().numpy()
    if not np.isfinite(values).all():
        raise UserError(f"layer {name!r} has centroids that are NaN or infinite")
    return Layer(shared.index.contiguous().cpu().numpy(), values, gap_bits)


def _record(name: str, kind: int, dtype: torch.dtype, shape: tuple[int, ...], content: bytes) -> bytes:
    text = name.encode()
    what = _WHAT.pack(kind, _DTYPES.index(dtype), len(shape)) + struct.pack(f"<{len(shape)}I", *shape)
    return _NAME.pack(len(text)) + text + what + _LENGTH.pack(len(content)) + content


def _plain_bytes(key: str, value: Tensor) -> bytes:
    if value.dtype not in _DTYPES:
        raise UnsupportedError(f"tensor {key!r} is {value.dtype}, which a compressed file does not hold; use float32")
    form = _NUMPY[_DTYPES.index(value.dtype)]
    return value.detach().cpu().contiguous().numpy().astype(form, copy=False).tobytes()


def _belongs(key: str, layers: dict[str, Shared]) -> bool:
    """Whether a key of the state dict is part of a layer with shared weights."""
    return key.partition(".parametrizations.weight.")[0] in layers and ".parametrizations.weight." in key


def _gap_bits(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 8:
        raise UserError(f"{name} must be an integer in 1..8, got {value!r}")
    return value
