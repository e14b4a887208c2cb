"""Pickles of plain data, read without running anything: only NumPy arrays and builtin containers are admitted."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from tritkit.errors import UserError


def load_plain(path: str | Path) -> Any:
    """What the pickle at `path` holds, with byte strings for Python 2's `str`.

    Admitted are numbers, strings, lists, tuples, dicts and NumPy arrays of numbers. Any other name in the file is
    refused before it is looked up: UserError says which. UserError too for a missing or broken file.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; give the folder that holds the data set") from error
    try:
        return _PlainUnpickler(io.BytesIO(data), encoding="bytes").load()
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except Exception as error:  # a damaged pickle fails in many ways, all of them the file's fault
        what = f"{type(error).__name__}: {error}"
        raise UserError(f"{path} is not a whole pickle file ({what}); fetch it again") from error


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ADMITTED[module, name]
        except KeyError:
            raise UserError(
                f"the pickle asks for {module}.{name}, which data needs not and is not run; use the binary layout"
            ) from None


def _array(kind: object, shape: object, typecode: object) -> np.ndarray[Any, Any]:
    """numpy's `_reconstruct`, for plain arrays only: the empty array whose `__setstate__` the pickle then calls."""
    if kind is not np.ndarray:
        raise UserError(f"the pickle asks for an array of kind {kind!r}, which is not admitted")
    return np.ndarray((0,), np.int8)


def _number_dtype(code: object, *_: object) -> np.dtype[Any]:
    text = code.decode("latin-1") if isinstance(code, bytes) else str(code)
    if text.lstrip("<>=|")[:1] not in {"b", "i", "u", "f"}:  # "O" would hold objects
        raise UserError(f"the pickle asks for an array of dtype {text!r}; only numbers are admitted")
    return np.dtype(text)


def _encode(text: str, encoding: str) -> bytes:
    """`_codecs.encode` as protocol 2 uses it for bytes."""
    if encoding != "latin1":
        raise UserError(f"the pickle asks for the encoding {encoding!r}; only latin1 is admitted")
    return text.encode("latin1")


_ADMITTED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _array,
    ("numpy._core.multiarray", "_reconstruct"): _array,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): _number_dtype,
    ("_codecs", "encode"): _encode,
}
