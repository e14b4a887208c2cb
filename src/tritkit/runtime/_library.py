"""The C library through ctypes: where it is, its structs, and its status codes as exceptions.

Mirrors csrc/include/tritkit.h, which documents every call.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
from ctypes import POINTER, byref, c_char, c_char_p, c_int32, c_int64, c_size_t, c_void_p
from functools import cache
from pathlib import Path
from typing import NamedTuple

from tritkit.errors import ModelFileError, TritkitError, UnsupportedError, UserError

MAX_RANK = 8
FLOAT32, UINT8 = 1, 2
_NAME = "libtritkit.so"

_EXCEPTIONS: dict[int, type[TritkitError]] = {1: UserError, 2: ModelFileError, 3: UnsupportedError, 5: UserError}

_Dims = c_int64 * MAX_RANK


class CError(ctypes.Structure):
    """tk_error"""

    _fields_ = (("message", c_char * 1024),)


class COptions(ctypes.Structure):
    """tk_options"""

    _fields_ = (
        ("size", c_size_t),
        ("threads", c_int32),
        ("isa", c_char_p),
        ("engine", c_char_p),
        ("code_limit", c_int64),
        ("tuned", c_char_p),
    )


class CTensor(ctypes.Structure):
    """tk_tensor"""

    _fields_ = (("data", c_void_p), ("dtype", c_int32), ("rank", c_int32), ("dims", _Dims))


class CValueInfo(ctypes.Structure):
    """tk_value_info"""

    _fields_ = (("name", c_char_p), ("dtype", c_int32), ("rank", c_int32), ("dims", _Dims))


class CStepInfo(ctypes.Structure):
    """tk_step_info"""

    _fields_ = (
        ("name", c_char_p),
        ("op", c_char_p),
        ("kernel", c_char_p),
        ("input_rank", c_int32),
        ("output_rank", c_int32),
        ("input_dims", _Dims),
        ("output_dims", _Dims),
        ("weights", c_int64),
        ("nonzero", c_int64),
        ("packed_bytes", c_int64),
        ("macs", c_int64),
        ("code_bytes", c_int64),
        ("dense_nanoseconds", c_int64),
        ("unpacked_nanoseconds", c_int64),
        ("gather_nanoseconds", c_int64),
        ("winograd_nanoseconds", c_int64),
        ("baked_nanoseconds", c_int64),
    )


_SIGNATURES: dict[str, tuple[object, list[object]]] = {
    "tk_version": (c_char_p, []),
    "tk_session_open": (c_int32, [c_char_p, POINTER(COptions), POINTER(c_void_p), POINTER(CError)]),
    "tk_session_open_memory": (c_int32, [c_char_p, c_size_t, POINTER(COptions), POINTER(c_void_p), POINTER(CError)]),
    "tk_session_close": (None, [c_void_p]),
    "tk_session_tuned": (c_char_p, [c_void_p]),
    "tk_session_threads": (c_int32, [c_void_p]),
    "tk_session_input_count": (c_size_t, [c_void_p]),
    "tk_session_output_count": (c_size_t, [c_void_p]),
    "tk_session_input": (c_int32, [c_void_p, c_size_t, POINTER(CValueInfo), POINTER(CError)]),
    "tk_session_output": (c_int32, [c_void_p, c_size_t, POINTER(CValueInfo), POINTER(CError)]),
    "tk_session_metadata_count": (c_size_t, [c_void_p]),
    "tk_session_metadata": (c_int32, [c_void_p, c_size_t, POINTER(c_char_p), POINTER(c_char_p), POINTER(CError)]),
    "tk_session_step_count": (c_size_t, [c_void_p]),
    "tk_session_step": (c_int32, [c_void_p, c_size_t, POINTER(CStepInfo), POINTER(CError)]),
    "tk_session_step_predicted": (c_int64, [c_void_p, c_size_t]),
    "tk_session_arena_bytes": (c_int64, [c_void_p, c_int64]),
    "tk_session_run": (
        c_int32,
        [c_void_p, POINTER(CTensor), c_size_t, POINTER(CTensor), c_size_t, POINTER(CError)],
    ),
    "tk_session_profile": (
        c_int32,
        [c_void_p, POINTER(CTensor), c_size_t, POINTER(CTensor), c_size_t, POINTER(c_int64), POINTER(CError)],
    ),
    "tk_kernel_count": (c_size_t, []),
    "tk_kernel": (c_int32, [c_size_t, POINTER(c_char_p), POINTER(c_char_p), POINTER(CError)]),
}


def library_path() -> Path:
    """The library that is (or would be) loaded: TRITKIT_LIBRARY, else the one installed with the package.

    Raises TritkitError where there is none.
    """
    given = os.environ.get("TRITKIT_LIBRARY")
    if given:
        return Path(given)
    # an editable install keeps the library apart from the sources: the package then has two folders
    spec = importlib.util.find_spec("tritkit.runtime")
    installed = spec.submodule_search_locations if spec else None
    folders = [Path(__file__).parent, *(Path(p) for p in installed or ())]
    found = [folder / _NAME for folder in folders if (folder / _NAME).is_file()]
    if found:
        # the one of scripts/build may be newer than the installed one, or older
        return max(found, key=lambda path: path.stat().st_mtime)
    raise TritkitError(f"{_NAME} was not found; install tritkit from its wheel, or run scripts/build in a checkout")


@cache
def library() -> ctypes.CDLL:
    """The loaded library with its signatures set."""
    path = library_path()
    try:
        lib = ctypes.CDLL(str(path))
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(lib, name)
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError) as e:
        raise TritkitError(f"{path} cannot be loaded ({e}); reinstall tritkit or unset TRITKIT_LIBRARY") from e
    return lib


def check(status: int, error: CError) -> None:
    """Raise what a call of the library reported."""
    if status:
        message = error.message.decode("utf-8", "replace")
        raise _EXCEPTIONS.get(status, TritkitError)(message)


def text(value: bytes | None) -> str:
    """A string of the library; names in a file need not be sound UTF-8."""
    return (value or b"").decode("utf-8", "replace")


class Handle:
    """Owns a tk_session, to be passed to the library as it is. It closes with its last reference, so a call in progress
    on another thread keeps it open."""

    def __init__(self, session: c_void_p) -> None:
        self._as_parameter_ = session
        self._close = library().tk_session_close

    def __del__(self) -> None:
        self._close(self._as_parameter_)


class Kernel(NamedTuple):
    """A convolution kernel that this build has and this CPU can run."""

    name: str
    isa: str


def kernels() -> list[Kernel]:
    """The convolution kernels this machine can run, preferred first."""
    lib, error, found = library(), CError(), []
    for i in range(lib.tk_kernel_count()):
        name, isa = c_char_p(), c_char_p()
        check(lib.tk_kernel(i, byref(name), byref(isa), byref(error)), error)
        found.append(Kernel(text(name.value), text(isa.value)))
    return found


def library_version() -> str:
    """The version the library was built as."""
    return text(library().tk_version())
