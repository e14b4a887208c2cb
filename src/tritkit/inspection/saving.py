"""The integers and scales of one layer as a file: NumPy's .npz, or a C header."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tritkit.errors import UserError
from tritkit.inspection.weights import LayerWeights

__all__ = ["c_header", "npz", "written"]

Array = NDArray[Any]

_A_LINE = 16  # numbers in a line of a C array
_C_TYPES = {"u1": "uint8_t", "i1": "int8_t", "i2": "int16_t", "i4": "int32_t", "f4": "float"}


def written(weights: LayerWeights, path: Path) -> bytes:
    """The bytes of `path`, whose ending says the form: .npz or .h. UserError for another one."""
    if path.suffix == ".npz":
        return npz(weights)
    if path.suffix == ".h":
        return c_header(weights).encode()
    raise UserError(f"{path} has the ending {path.suffix or 'of nothing'!r}; allowed: .npz (NumPy), .h (C)")


def arrays(weights: LayerWeights) -> dict[str, Array]:
    """Ternary: `codes`, `plus`, `minus`, `scale`; else `values`, `scale`. As in `LayerWeights`; the smallest types."""
    if weights.kind != "ternary" or weights.plus is None or weights.minus is None:
        return {"values": _small(weights.values), "scale": weights.scale}
    sides = {"plus": _small(weights.plus), "minus": _small(weights.minus)}
    return {"codes": weights.values.astype(np.int8), **sides, "scale": weights.scale}


def npz(weights: LayerWeights) -> bytes:
    """An .npz of `arrays`, with `group_size` where there is one."""
    stream = io.BytesIO()
    more = {} if weights.group_size is None else {"group_size": np.int64(weights.group_size)}
    np.savez_compressed(stream, allow_pickle=False, **arrays(weights), **more)
    return stream.getvalue()


def c_header(weights: LayerWeights) -> str:
    """C99: the shape, codes packed four a byte as in docs/format.md (or plain integers), and the scales.

    Weight = scale[o] · plus[…] where the code is 1 (01), −scale[o] · minus[…] where it is 3 (11), 0 where it is 0.
    """
    name = "w_" + re.sub(r"\W", "_", weights.name, flags=re.ASCII)
    content = arrays(weights)
    shape = "".join(f"[{n}]" for n in weights.values.shape)
    lines = [f"/* {_comment(weights.name)}: {weights.kind} weights {shape}. {_meaning(weights)} */"]
    lines += [f"#ifndef {name.upper()}_H", f"#define {name.upper()}_H", "#include <stdint.h>"]
    sides = ("outputs", "inputs", "height", "width")
    lines += [f"enum {{ {name}_{side} = {n} }};" for side, n in zip(sides, weights.values.shape, strict=False)]
    if "codes" in content:
        packed = _packed(content.pop("codes"))
        lines += [f"enum {{ {name}_row_bytes = {packed.shape[1]} }};", *_array(f"{name}_codes", packed)]
    if weights.group_size is not None:
        lines.append(f"enum {{ {name}_group_size = {weights.group_size} }};")
    for part, values in content.items():
        lines += _array(f"{name}_{part}", values)
    return "\n".join([*lines, "#endif", ""])


def _meaning(weights: LayerWeights) -> str:
    if weights.kind != "ternary":
        return "Weight = values * scale, one scale for all or one an output."
    each = "scale, plus and minus have one entry for all, or one an output"
    if weights.group_size is not None:
        each = "scale has one entry an output; plus and minus one for each group of inputs, at each position"
    return (
        "Each output's codes are a row of bytes, four a byte, the first in the lowest bits: 0 is zero, 1 is plus *"
        f" scale, 3 is -minus * scale; {each}."
    )


def _comment(text: str) -> str:
    """A name from a file cannot end the comment, nor hold what is not printable ASCII."""
    return "".join(c if c.isascii() and c.isprintable() and c not in "*/\\?" else "_" for c in text)


def _array(name: str, values: Array) -> list[str]:
    """A flat constant array; static, and marked as possibly unused so that -Wall is silent."""
    flat = values.reshape(-1)
    kind = _C_TYPES[f"{flat.dtype.kind}{flat.dtype.itemsize}"]
    texts = [_number(v) for v in flat.tolist()] if kind == "float" else [str(v) for v in flat.tolist()]
    rows = [", ".join(texts[i : i + _A_LINE]) for i in range(0, len(texts), _A_LINE)]
    unused = "#if defined(__GNUC__)\n__attribute__((unused))\n#endif"
    return [unused, f"static const {kind} {name}[{flat.size}] = {{", *(f"  {row}," for row in rows), "};"]


def _number(value: float) -> str:
    """A float32 with all its digits, as C writes it."""
    if not np.isfinite(value):
        raise UserError("the layer has NaN or infinite values, which a C header cannot hold; save an .npz")
    text = f"{value:.9g}"
    return (text if any(c in text for c in ".e") else text + ".0") + "f"


def _packed(codes: Array) -> NDArray[np.uint8]:
    """uint8 [O, ⌈K/4⌉]: 00 zero, 01 plus, 11 minus, the first in the lowest bits."""
    rows = codes.reshape(len(codes), -1)
    quads = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 4))).reshape(len(rows), -1, 4) & 3
    shifted = quads.astype(np.uint8) << np.array([0, 2, 4, 6], np.uint8)
    packed: NDArray[np.uint8] = shifted.sum(axis=2).astype(np.uint8)
    return packed


def _small(values: Array) -> Array:
    """Integers in int8 where they fit; floats in float32."""
    if values.dtype.kind == "f":
        return values.astype(np.float32)
    fits = values.size == 0 or (values.min() >= -128 and values.max() <= 127)
    return values.astype(np.int8 if fits else np.int32)
