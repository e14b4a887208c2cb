"""The same images through every engine, compared bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from tritkit.cli.demo.networks import Made
from tritkit.deploy.onnx_reader import from_onnx
from tritkit.deploy.reference import Reference
from tritkit.deploy.simulate import Simulation
from tritkit.runtime import Session, kernels

Logits = NDArray[np.float32]
_BATCH = 100


class _Engine(NamedTuple):
    name: str
    slow: bool  # plain loops: a few images must do
    run: Any  # float32 images to float32 logits


def compare(made: Made, threads: int, quick: bool) -> list[dict[str, Any]]:
    """A row an engine and network: on how many images, and whether every bit was that of the first engine."""
    rows = []
    for network, path in {"not trained": made.post_training, "trained": made.trained}.items():
        expected: Logits | None = None
        for engine in _engines(path, threads):
            images = made.inputs(_count(engine, len(made.images), quick))
            logits = np.concatenate([engine.run(images[i : i + _BATCH]) for i in range(0, len(images), _BATCH)])
            expected = logits if expected is None else expected
            same = logits.tobytes() == expected[: len(logits)].tobytes()
            rows.append({"network": network, "engine": engine.name, "images": len(images), "same_bits": same})
    return rows


def _count(engine: _Engine, available: int, quick: bool) -> int:
    wanted = (5 if quick else 20) if engine.slow else (100 if quick else 1000)
    return min(wanted, available)


def _engines(path: Path, threads: int) -> Iterator[_Engine]:
    graph = from_onnx(path)
    simulation, reference = Simulation(graph), Reference(graph)
    yield _Engine("PyTorch simulation", False, lambda x: _simulate(simulation, x))
    yield _Engine("NumPy reference", True, reference.run)
    yield _Engine("ONNX Runtime", False, onnx_runtime(path, threads))
    for count in sorted({1, 2, threads}):
        yield _Engine(f"tritkit, {count} thread{'s'[: count > 1]}", False, Session(path, threads=count).run)
    for isa in dict.fromkeys(kernel.isa for kernel in kernels()):
        yield _Engine(f"tritkit, {isa}", isa == "scalar", Session(path, threads=threads, isa=isa).run)
    yield _Engine("tritkit, reference", True, Session(path, threads=threads, engine="reference").run)


def _simulate(simulation: torch.nn.Module, images: Logits) -> Logits:
    return simulation(torch.from_numpy(images)).numpy()  # type: ignore[no-any-return]


def onnx_runtime(model: Path | bytes, threads: int) -> Any:
    """Stock ONNX Runtime as a function from images to its first output."""
    import onnxruntime  # type: ignore[import-untyped]  # it ships no types

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 3
    source = model if isinstance(model, bytes) else str(model)
    session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda images: session.run(None, {name: images})[0]
