"""Writes the files of a workload."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

import tritkit.deploy
from tritkit.bench.networks import ternary_network
from tritkit.bench.plan import Plan
from tritkit.bench.shape import Shape
from tritkit.bench.workload import CALIBRATION_IMAGES, CALIBRATION_SEED, IMAGE_SEED
from tritkit.deploy import Reference, from_onnx
from tritkit.deploy.graph import Graph, TernaryWeight
from tritkit.errors import TritkitError, UserError
from tritkit.runtime import Session
from tritkit.zoo import hub


def make_files(plan: Plan, folder: Path) -> None:
    """Write `ternary.onnx`, `facts.json`, `reference.npy` and, for a network by name, `weights.safetensors`."""
    target = folder / "ternary.onnx"
    source = _file_of(plan.network)
    if source is not None:
        shutil.copyfile(source, target)
        graph = from_onnx(target)
        shape = _input_of(graph)
    else:
        net, shape = ternary_network(plan.network, plan.density, plan.scales, plan.seed)
        save_file({key: value.contiguous() for key, value in net.state_dict().items()}, folder / "weights.safetensors")
        _export(net, shape, target)
        graph = from_onnx(target)
    np.save(folder / "reference.npy", Reference(graph).run(shape.images(1, IMAGE_SEED)))
    (folder / "facts.json").write_text(json.dumps(_facts(plan.network, shape, graph, target)))


def _file_of(network: str) -> Path | None:
    """A path, or the file of a packaged network; None for a network of the bench."""
    path = Path(network)
    if path.is_dir():
        raise UserError(f"{path} is a folder; give an .onnx file")
    if path.is_file():
        return path
    if path.suffix == ".onnx":
        raise UserError(f"no file {network}; give an .onnx file of tritkit or a network's name")
    try:
        packaged = hub(network)
    except TritkitError:
        return None
    return packaged if packaged.suffix == ".onnx" else None


def _export(net: nn.Module, shape: Shape, target: Path) -> None:
    images = torch.from_numpy(shape.images(CALIBRATION_IMAGES, CALIBRATION_SEED))
    example = torch.from_numpy(shape.images(1, IMAGE_SEED))
    tritkit.deploy.export(net, target, example, calibration=list(torch.split(images, 8)))


def _input_of(graph: Graph) -> Shape:
    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        raise UserError("the bench runs networks of one input and one output; this file has others")
    return Shape("file", graph.values[graph.inputs[0]].shape)


def _facts(name: str, shape: Shape, graph: Graph, target: Path) -> dict[str, Any]:
    ternary = [node.weight for node in graph.layers() if isinstance(node.weight, TernaryWeight)]
    weights, nonzero = (sum(int(count(w.codes)) for w in ternary) for count in (np.size, np.count_nonzero))
    with Session(target, threads=1) as session:
        macs = sum(step.macs for step in session.summary())
    return {
        "name": name,
        "kind": shape.kind,
        "input": list(shape.input),
        "positive": shape.positive,
        "macs": macs,
        "ternary_weights": weights,
        "density": nonzero / weights if weights else None,
        "symmetric": all(bool((w.p == w.n).all()) for w in ternary),
        "bytes": target.stat().st_size,
    }
