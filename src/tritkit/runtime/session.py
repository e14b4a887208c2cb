"""`Session`: a network file, loaded and ready to run."""

from __future__ import annotations

import ctypes
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from ctypes import addressof, byref, c_char, c_char_p, c_int64, c_void_p
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tritkit.errors import UserError
from tritkit.runtime._library import (
    FLOAT32,
    CError,
    COptions,
    CStepInfo,
    CTensor,
    CValueInfo,
    Handle,
    check,
    library,
    text,
)

Array = NDArray[np.float32]


@dataclass(frozen=True)
class ValueInfo:
    """An input or output: shape[0] is None, the free batch; all are float32."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str = "float32"


@dataclass(frozen=True)
class StepInfo:
    """One step of the plan (several nodes may be fused into one). Shapes are of one image.

    code_bytes: machine code made for the step, 0 where it has none.
    dense_microseconds, unpacked_microseconds, gather_microseconds, winograd_microseconds, baked_microseconds: an image
        on one thread in each way to run a ternary convolution, as timed when the session was opened; None where it was
        not tried.
    measured_microseconds, predicted_microseconds: the same of the kernel that runs a single image, and what the cost
        model says of it; None for steps that are no ternary layers.
    """

    name: str
    op: str
    kernel: str
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    weights: int
    density: float | None
    packed_bytes: int
    macs: int
    code_bytes: int
    dense_microseconds: float | None
    unpacked_microseconds: float | None
    gather_microseconds: float | None
    winograd_microseconds: float | None
    baked_microseconds: float | None
    measured_microseconds: float | None
    predicted_microseconds: float | None


@dataclass(frozen=True)
class StepTime:
    """What a step took: median microseconds a run, and its share of all steps (0..1)."""

    name: str
    op: str
    kernel: str
    microseconds: float
    share: float
    gmac_per_second: float | None


class Session:
    """A network ready to run on this CPU.

    model: path of an ONNX file as docs/format.md describes it, or its bytes.
    threads: 1 to 1024; None takes TRITKIT_THREADS, else all CPUs this process may use.
    engine: "auto" takes the fastest way for each layer, tried while the session opens; "dense" takes only kernels
        that do not skip zeros, from weights of 2 bits; "unpacked" these with their weights as bytes, where that can
        pay; "gather" and "baked" those that skip zeros, without and with machine code made for the weights; "winograd"
        those that save products of 3x3 convolutions; each for every ternary convolution that it can run; "reference"
        the plain loops that define the result.
    code_limit: bytes of machine code that the session may make; None: 64 MiB, 0: none.
    tuned: a file that keeps what "auto" found, so that the next session opens without trying. It is made where it is
        missing, and made anew where it belongs to another network, CPU, version or number of threads; `session.tuned`
        says in a sentence what became of it. The result never depends on it.
    isa: use no newer instructions than these ("scalar", "avx2", "avxvnni", "avx512vnni", "amx"); None: all this CPU
        has; TRITKIT_ISA overrides it. The result never depends on it.

    Raises ModelFileError for a damaged file, UnsupportedError for an operation we do not run, UserError for bad
    options.
    Runs of one session happen one after another; sessions may be used from several threads and after fork.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | bytes,
        *,
        threads: int | None = None,
        engine: str = "auto",
        isa: str | None = None,
        code_limit: int | None = None,
        tuned: str | os.PathLike[str] | None = None,
    ) -> None:
        self._handle: Handle | None = None
        self._lib, opened = library(), c_void_p()
        options = COptions(
            ctypes.sizeof(COptions),
            _thread_count(threads),
            isa.encode() if isa else None,
            engine.encode(),
            _code_limit(code_limit),
            os.fsencode(Path(tuned)) if tuned is not None else None,
        )
        error = CError()
        if isinstance(model, bytes):
            status = self._lib.tk_session_open_memory(model, len(model), byref(options), byref(opened), byref(error))
        else:
            status = self._lib.tk_session_open(os.fsencode(Path(model)), byref(options), byref(opened), byref(error))
        check(status, error)
        self._handle, lib = Handle(opened), self._lib
        self.inputs = self._infos(lib.tk_session_input_count(self._handle), lib.tk_session_input)
        self.outputs = self._infos(lib.tk_session_output_count(self._handle), lib.tk_session_output)
        self.metadata = self._metadata()
        self.threads = int(lib.tk_session_threads(self._handle))
        self.tuned = text(lib.tk_session_tuned(self._handle))
        self._output_sides = [tuple(d or 1 for d in v.shape[1:]) for v in self.outputs]
        self._calls: list[_Call] = []  # arguments of calls that are over, one for each thread that ran

    # ---- running

    def run(self, images: Array | Mapping[str, Array]) -> Array | dict[str, Array]:
        """The network's outputs for a batch.

        images: float32 [N, C, H, W] (or the shape of the network's input), N ≥ 1, normalised as in training; a
        mapping from input names for a network with several inputs. Returns float32 [N, ...], or a dict where there are
        several outputs.
        Raises UserError for a wrong type or shape, or NaN.
        """
        arrays = self._arrays(images)
        outputs = self._outputs_for(arrays[0].shape[0])
        call = self._calls.pop() if self._calls else _Call(len(arrays), len(outputs))
        _point(call.tensors, [*arrays, *outputs])
        status = self._lib.tk_session_run(self._open(), call.ins, len(arrays), call.outs, len(outputs), call.error)
        check(status, call.error)
        self._calls.append(call)
        return outputs[0] if len(outputs) == 1 else dict(zip((o.name for o in self.outputs), outputs, strict=True))

    def profile(self, images: Array | Mapping[str, Array], repeat: int = 20) -> list[StepTime]:
        """The time of every step, as the median of `repeat` runs after two that do not count."""
        if repeat < 1:
            raise UserError(f"repeat must be at least 1, got {repeat}")
        arrays = self._arrays(images)
        outputs, steps, error = self._outputs_for(arrays[0].shape[0]), self.summary(), CError()
        ins, outs = (CTensor * len(arrays))(), (CTensor * len(outputs))()
        _point(ins, arrays)
        _point(outs, outputs)
        rows = np.zeros((repeat + 2, len(steps)), np.int64)
        for row in rows:
            times = row.ctypes.data_as(ctypes.POINTER(c_int64))
            check(
                self._lib.tk_session_profile(self._open(), ins, len(ins), outs, len(outs), times, byref(error)), error
            )
        median = np.median(rows[2:], axis=0)
        total = max(float(median.sum()), 1.0)
        batch = arrays[0].shape[0]
        return [
            StepTime(
                s.name,
                s.op,
                s.kernel,
                float(ns) / 1e3,
                float(ns) / total,
                s.macs * batch / float(ns) if s.macs and ns else None,
            )
            for s, ns in zip(steps, median, strict=True)
        ]

    # ---- looking inside ----------------------------------------------------------------------------------

    def summary(self) -> list[StepInfo]:
        """The plan: one row a step."""
        rows, error, info = [], CError(), CStepInfo()
        for i in range(self._lib.tk_session_step_count(self._open())):
            check(self._lib.tk_session_step(self._handle, i, byref(info), byref(error)), error)
            rows.append(
                StepInfo(
                    name=text(info.name),
                    op=text(info.op),
                    kernel=text(info.kernel),
                    input_shape=tuple(info.input_dims[: info.input_rank]),
                    output_shape=tuple(info.output_dims[: info.output_rank]),
                    weights=info.weights,
                    density=info.nonzero / info.weights if info.weights else None,
                    packed_bytes=info.packed_bytes,
                    macs=info.macs,
                    code_bytes=info.code_bytes,
                    dense_microseconds=info.dense_nanoseconds / 1e3 or None,
                    unpacked_microseconds=info.unpacked_nanoseconds / 1e3 or None,
                    gather_microseconds=info.gather_nanoseconds / 1e3 or None,
                    winograd_microseconds=info.winograd_nanoseconds / 1e3 or None,
                    baked_microseconds=info.baked_nanoseconds / 1e3 or None,
                    measured_microseconds=_measured(info) / 1e3 or None,
                    predicted_microseconds=self._lib.tk_session_step_predicted(self._handle, i) / 1e3 or None,
                )
            )
        return rows

    def arena_bytes(self, batch: int = 1) -> int:
        """Bytes of working memory for a batch of this size."""
        size = int(self._lib.tk_session_arena_bytes(self._open(), batch))
        if size < 0:
            raise UserError(f"a batch of {batch} is not possible; give at least 1 and at most what fits in memory")
        return size

    # ---- life --------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Free the network; the session cannot run afterwards. Safe to call twice, and while another thread runs it:
        that run ends as if nothing had happened."""
        self._handle = None

    def __enter__(self) -> Session:
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        shapes = ", ".join(f"{v.name}{list(v.shape)}" for v in (*self.inputs, *self.outputs))
        return f"Session({shapes}, threads={self.threads})"

    # ---- helpers -----------------------------------------------------------------------------------------

    def _open(self) -> Handle:
        handle = self._handle
        if handle is None:
            raise UserError("this session is closed; open the model again")
        return handle

    def _infos(self, count: int, get: Callable[..., int]) -> list[ValueInfo]:
        found, error, info = [], CError(), CValueInfo()
        for i in range(count):
            check(get(self._handle, i, byref(info), byref(error)), error)
            shape = tuple(None if d < 0 else d for d in info.dims[: info.rank])
            found.append(ValueInfo(text(info.name), shape))
        return found

    def _metadata(self) -> dict[str, str]:
        found, error, key, value = {}, CError(), c_char_p(), c_char_p()
        for i in range(self._lib.tk_session_metadata_count(self._handle)):
            check(self._lib.tk_session_metadata(self._handle, i, byref(key), byref(value), byref(error)), error)
            found[text(key.value)] = text(value.value)
        return found

    def _arrays(self, images: Array | Mapping[str, Array]) -> list[Array]:
        if isinstance(images, Mapping):
            names = [v.name for v in self.inputs]
            if set(images) != set(names):
                raise UserError(f"the network's inputs are {names}, given were {sorted(images)}")
            given = [images[name] for name in names]
        elif len(self.inputs) == 1:
            given = [images]
        else:
            raise UserError(
                f"the network has {len(self.inputs)} inputs; give a dict with {[v.name for v in self.inputs]}"
            )
        arrays = [self._checked(x, info) for x, info in zip(given, self.inputs, strict=True)]
        if len({x.shape[0] for x in arrays}) > 1:
            raise UserError(f"all inputs must have one batch size, given were {[x.shape[0] for x in arrays]}")
        return arrays

    def _checked(self, x: Array, info: ValueInfo) -> Array:
        if not isinstance(x, np.ndarray):
            raise UserError(f"input {info.name} must be a NumPy array, given was {type(x).__name__}")
        if x.dtype != np.float32:
            raise UserError(f"input {info.name} must be float32, given was {x.dtype}; {self._advice(x.dtype)}")
        if x.ndim != len(info.shape) or x.shape[1:] != info.shape[1:] or x.shape[0] < 1:
            wanted = "[N, " + ", ".join(str(d) for d in info.shape[1:]) + "]"
            raise UserError(f"input {info.name} must have shape {wanted} with N ≥ 1, given was {list(x.shape)}")
        return x if x.flags.c_contiguous else np.ascontiguousarray(x)

    def _advice(self, dtype: np.dtype[Any]) -> str:
        if dtype != np.uint8:
            return "call .astype(numpy.float32)"
        try:
            facts = json.loads(self.metadata.get("tritkit.input", "{}"))
            return f"normalise pixels first: (pixel / 255 - mean) / std with mean {facts['mean']}, std {facts['std']}"
        except (ValueError, KeyError, TypeError):
            return "normalise pixels as in training first"

    def _outputs_for(self, batch: int) -> list[Array]:
        return [np.empty((batch, *sides), np.float32) for sides in self._output_sides]


def as_table(rows: Sequence[StepInfo | StepTime]) -> str:
    """Rows of `summary` or `profile` as text with aligned columns."""
    if not rows:
        return "(no steps)"
    names = list(vars(rows[0]))
    lines = [names, *([_cell(v) for v in vars(row).values()] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(names))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def _measured(info: CStepInfo) -> int:
    """Nanoseconds of the kernel that runs a single image; 0 where none was timed."""
    way = text(info.kernel).split(" / ")[0].rsplit("_", 1)[-1]
    return int(getattr(info, f"{way}_nanoseconds", info.dense_nanoseconds))


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.3g}"
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _code_limit(given: int | None) -> int:
    """As tk_options has it: 0 is the default, -1 none."""
    if given is None:
        return 0
    if isinstance(given, bool) or not isinstance(given, int) or not 0 <= given < 2**63:
        raise UserError(f"code_limit must be a number of bytes, 0 or more, got {given!r}")
    return given or -1


def _thread_count(threads: int | None) -> int:
    if threads is None:
        return 0
    if not isinstance(threads, int) or not 1 <= threads <= 1024:
        raise UserError(f"threads must be 1 to 1024, given was {threads!r}")
    return threads


class _Call:
    """The arguments of a call, kept for the next one: making them takes longer than a small layer."""

    def __init__(self, inputs: int, outputs: int) -> None:
        self.ins, self.outs = (CTensor * inputs)(), (CTensor * outputs)()
        self.tensors = [*self.ins, *self.outs]  # the same memory: every look into the arrays makes an object
        self.error = CError()


def _point(tensors: Iterable[CTensor], arrays: Sequence[Array]) -> None:
    """Let the tensors describe the arrays."""
    for tensor, array in zip(tensors, arrays, strict=True):
        if tensor.rank == 0:  # new: type and sides are always those of the network
            tensor.dtype, tensor.rank = FLOAT32, array.ndim
            tensor.dims[: array.ndim] = array.shape
        tensor.dims[0] = array.shape[0]
        tensor.data = _address(array)


def _address(array: Array) -> int:
    """Of the first element; NumPy's own answer takes three times as long, but read-only arrays have no other."""
    return addressof(c_char.from_buffer(array.data)) if array.flags.writeable else array.ctypes.data
