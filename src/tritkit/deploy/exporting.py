"""`export`: lower a network, write its file, run it in every engine at hand, and only then put it in its place."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from tritkit.deploy import graph as g
from tritkit.deploy.checking import check_file
from tritkit.deploy.lower import lower
from tritkit.deploy.trace import check_example
from tritkit.errors import TritkitError, UserError
from tritkit.observers import Observer

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["FLAVOURS", "ExportReport", "export", "make_model", "write_atomically"]

FLAVOURS = ("function", "inlined", "qdq")
"""function: 2-bit weights, model-local functions. inlined: the same without functions. qdq: int8 weights between
DequantizeLinear and QuantizeLinear, for tools that read neither; its results may differ by a rounding step."""


@dataclass(frozen=True)
class ExportReport:
    """What was written.

    path, bytes: the file and its size.  flavour: see FLAVOURS.
    layers: a dict for each weighted layer, as in the file's metadata `tritkit.layers`.
    checked: the engines that ran the file and agreed ("onnxruntime", "libtritkit"), empty with check=False.
    notes: what was not checked and why.
    """

    path: Path
    bytes: int
    flavour: str
    layers: tuple[dict[str, Any], ...]
    checked: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def density(self) -> float:
        """Share of non-zero weights over the ternary layers (0 without one)."""
        rows = [row for row in self.layers if row["kind"] == "ternary"]
        sizes = [_size(row["shape"]) for row in rows]
        return sum(r["density"] * n for r, n in zip(rows, sizes, strict=True)) / sum(sizes) if rows else 0.0


def _size(shape: Iterable[int]) -> int:
    size = 1
    for n in shape:
        size *= n
    return size


def export(
    net: nn.Module,
    path: str | Path,
    example: Tensor,
    *,
    calibration: Iterable[Any] | None = None,
    policies: Mapping[str, str] | None = None,
    observer: Observer | None = None,
    flavour: str = "function",
    input_info: Mapping[str, Any] | None = None,
    check: bool = True,
) -> ExportReport:
    """Write `net` as an ONNX file of integers (docs/format.md) and return what was written.

    example: float32 [N, ...] as the network takes it; its shape becomes the file's, its values check the file.
    calibration, policies, observer: see `tritkit.deploy.lower`.
    flavour: one of FLAVOURS.
    input_info: what the file keeps about its input, JSON values: mean and std a channel, classes.
    check: run the file in stock ONNX Runtime, and in libtritkit where it is built, and compare with the simulation.

    The file appears whole or not at all: after any error an older file is as it was. Raises UserError for what cannot
    be done as asked, UnsupportedError for a network without an integer form, TritkitError if an engine disagrees
    or the disk is full.
    """
    if flavour not in FLAVOURS:
        raise UserError(f"flavour must be one of {', '.join(FLAVOURS)}, got {flavour!r}")
    check_example(example)
    path = Path(path)
    check_target(path)
    info = _json(input_info or {})
    graph = lower(net, example, calibration=calibration, policies=policies, observer=observer, input_info=info)
    data = make_model(graph, flavour).SerializeToString(deterministic=True)
    with write_atomically(path, data) as temporary:
        checked, notes = check_file(graph, temporary, example.detach().cpu(), flavour) if check else ((), ())
    layers = tuple(json.loads(graph.metadata["tritkit.layers"]))
    return ExportReport(path, len(data), flavour, layers, checked, notes)


def make_model(graph: g.Graph, flavour: str = "function") -> ModelProto:
    """The ONNX model of a graph. Raises UserError where the onnx package is missing."""
    try:
        import onnx.inliner

        from tritkit.deploy.onnx_qdq import to_qdq
        from tritkit.deploy.onnx_writer import to_onnx
    except ImportError as e:
        raise UserError(f"writing ONNX files needs the onnx package ({e}); pip install 'tritkit[onnx]'") from e
    if flavour == "qdq":
        return to_qdq(graph)
    model = to_onnx(graph)
    return model if flavour == "function" else onnx.inliner.inline_local_functions(model)


def _json(info: Mapping[str, Any]) -> Mapping[str, Any]:
    try:
        json.dumps(dict(info), allow_nan=False)
    except (TypeError, ValueError) as e:
        raise UserError(f"input_info must hold JSON values (numbers, strings, lists): {e}") from e
    return info


# ---- files -----------------------------------------------------------------------------------------------------


def check_target(path: Path) -> None:
    """Fail before the work, not after it."""
    if path.is_dir():
        raise UserError(f"{path} is a folder; give the name of the file to write")
    if not path.parent.is_dir():
        raise UserError(f"the folder {path.parent} does not exist; create it first")
    if path.exists() and not path.is_file():
        raise UserError(f"{path} is no plain file; give the name of the file to write")
    if not os.access(path.parent, os.W_OK):
        raise UserError(f"the folder {path.parent} cannot be written to; choose another place")


@contextmanager
def write_atomically(path: Path, data: bytes) -> Iterator[Path]:
    """Write `data` beside `path`, give the temporary file to the caller for checks, then rename it into place."""
    temporary: Path | None = None
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        temporary = Path(name)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as e:
        raise TritkitError(f"{path} could not be written: {e.strerror or e}; nothing was changed") from e
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable, where the system can."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
