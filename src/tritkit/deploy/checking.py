"""Run a written file in the engines at hand and hold their results to the simulation's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tritkit.deploy import graph as g
from tritkit.deploy.simulate import Simulation
from tritkit.errors import TritkitError, UnsupportedError, UserError

__all__ = ["check_file"]

Outputs = list[NDArray[np.float32]]

_LOOSE = 0.1  # share of the largest output that engines may differ by where floats are in play


def check_file(graph: g.Graph, path: Path, example: Tensor, flavour: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(engines that agreed, notes). Raises TritkitError where one disagrees, with the size of the difference.

    Bits must be equal unless a layer is float32 or the flavour is "qdq".
    """
    batch = torch.cat([example, _random_like(example)])
    simulation = Simulation(graph).values(batch)
    expected = [simulation[name].numpy() for name in graph.outputs]
    exact = flavour != "qdq" and not any(isinstance(n, (g.FloatConv, g.FloatGemm)) for n in graph.nodes)
    _compare("ONNX Runtime", expected, _onnxruntime(path, graph, batch.numpy()), exact)
    checked, notes = ["onnxruntime"], []
    if not exact:
        notes.append("results compared loosely: float32 layers and the qdq flavour round differently in each engine")
    reason = "it reads flavour 'function' only"
    if flavour == "function":
        reason = _check_session(path, batch.numpy(), expected, exact)
    checked += [] if reason else ["libtritkit"]
    notes += [f"not run in libtritkit: {reason}"] if reason else []
    return tuple(checked), tuple(notes)


def _random_like(example: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(2, *example.shape[1:], generator=generator)
    spread = float(example.std(correction=0))
    return noise * (spread if spread > 0 else 1.0) + float(example.mean())


def _compare(engine: str, expected: Outputs, found: Outputs, exact: bool) -> None:
    for want, got in zip(expected, found, strict=True):
        if exact and np.array_equal(want, got):
            continue
        worst = float(np.abs(want - got).max()) if want.shape == got.shape else float("inf")
        if exact or not worst <= _LOOSE * max(float(np.abs(want).max()), 1e-6):
            raise TritkitError(
                f"{engine} and the simulation disagree by up to {worst:.3g} on the exported file; nothing was written. "
                "Please report this with the network"
            )


def _onnxruntime(path: Path, graph: g.Graph, images: NDArray[Any]) -> Outputs:
    try:
        import onnxruntime  # type: ignore[import-untyped]
    except ImportError as e:
        raise UserError(
            f"checking the file needs onnxruntime ({e}); pip install 'tritkit[onnx]' or pass check=False"
        ) from e
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    results: Outputs = session.run(list(graph.outputs), {graph.inputs[0]: images})
    return results


def _check_session(path: Path, images: NDArray[Any], expected: Outputs, exact: bool) -> str:
    """Empty if our engine agrees, else why it did not run."""
    from tritkit.runtime import Session

    try:
        with Session(path, threads=1) as session:
            found = session.run(images)
    except UnsupportedError as e:
        return str(e)
    except TritkitError as e:
        if "librar" in str(e).lower():  # not built
            return str(e)
        raise
    outputs = [np.asarray(v) for v in found.values()] if isinstance(found, dict) else [np.asarray(found)]
    _compare("libtritkit", expected, outputs, exact)
    return ""
