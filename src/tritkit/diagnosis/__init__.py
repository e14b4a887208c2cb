"""What went wrong with a network, found before its user does.

    report = diagnose("net.onnx", images)
    for finding in report.findings:
        print(finding.severity, finding.place, finding.what, finding.cost, finding.fix)

Weights and bytes are looked at in every file that `tritkit.inspection` reads; activations and speed in files of
tritkit. A file that a trained, calibrated network was exported to has no findings.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tritkit.diagnosis.finding import FAULT, KINDS, WASTE, Finding, Group, grouped
from tritkit.diagnosis.weights import byte_findings, weight_findings
from tritkit.errors import UnsupportedError, UserError
from tritkit.inspection import inspect_file, read_weights

if TYPE_CHECKING:
    from tritkit.deploy import Graph

__all__ = ["FAULT", "KINDS", "WASTE", "Diagnosis", "Finding", "Group", "diagnose", "grouped"]

_BATCH = 16


@dataclass(frozen=True)
class Diagnosis:
    """findings: faults first. looked_at: what was checked. not_looked_at: what was not, and why. images: that ran."""

    file: str
    findings: tuple[Finding, ...]
    looked_at: tuple[str, ...]
    not_looked_at: dict[str, str]
    images: int = 0

    @property
    def healthy(self) -> bool:
        """No fault: the answers do not suffer. There may be waste."""
        return not any(finding.severity == FAULT for finding in self.findings)

    def facts(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "file": self.file,
            "healthy": self.healthy,
            "images": self.images,
            "looked_at": list(self.looked_at),
            "not_looked_at": self.not_looked_at,
            "findings": [finding.facts() for finding in self.findings],
        }


def diagnose(path: str | Path, images: NDArray[np.float32] | None = None) -> Diagnosis:
    """Examine a model file: ONNX, safetensors, or a run's checkpoint.pt.

    images: float32 [N, C, H, W], normalised as the network wants them; without them activations are not looked at.
        Fewer than 16 say too little and are not looked at; large networks are tried on some of them, 16 at least.
    Raises UserError for a missing file or images that do not fit, ModelFileError for a damaged file.
    """
    path = Path(path)
    facts = inspect_file(path)
    found = list(weight_findings(read_weights(path)))
    looked, skipped, ran = ["weights"], {}, 0
    if facts["format"] in ("onnx", "tritkit-onnx"):
        found += byte_findings(facts["layers"], facts["bytes"])
        looked.append("bytes")
    graph = _graph(path, facts["format"])
    if isinstance(graph, str):
        skipped = {"activations": graph, "speed": graph}
    else:
        tried, skipped, ran = _activations(graph, images)
        found += [*tried, *_speed(path, graph)]
        looked += ["speed", "activations"] if ran else ["speed"]
    ordered = sorted(found, key=lambda finding: finding.severity != FAULT)
    return Diagnosis(str(path), tuple(ordered), tuple(looked), skipped, ran)


def _activations(graph: Graph, images: NDArray[Any] | None) -> tuple[list[Finding], dict[str, str], int]:
    """Findings, what was not looked at and why, images that ran."""
    from tritkit.diagnosis.activations import FEWEST_IMAGES, activation_findings, observe, some_images

    if images is None:
        return [], {"activations": "no images given"}, 0
    chosen = some_images(_fitting(images, graph), _macs(graph))
    if len(chosen) < FEWEST_IMAGES:
        few = f"{len(chosen)} image{'s say' if len(chosen) > 1 else ' says'} too little"
        return [], {"activations": f"{few}; give {FEWEST_IMAGES} or more"}, 0
    seen = observe(graph, _batches(chosen))
    return list(activation_findings(graph, seen)), {}, seen.images


def _graph(path: Path, kind: str) -> Graph | str:
    """The integer graph, or why there is none."""
    if kind != "tritkit-onnx":
        return "not an integer network of tritkit"
    if find_spec("torch") is None or find_spec("onnx") is None:
        return "torch and onnx are not installed"
    from tritkit.deploy.onnx_reader import from_onnx

    try:
        return from_onnx(path)
    except UnsupportedError as error:
        return str(error)


def _speed(path: Path, graph: Graph) -> Iterator[Finding]:
    from tritkit.diagnosis.speed import speed_findings

    return speed_findings(path, graph)


def _macs(graph: Graph) -> int:
    total = 0
    for node in graph.layers():
        shape = graph.values[node.output].shape
        weight = node.weight if isinstance(node.weight, np.ndarray) else node.weight.integers()
        total += weight.size * int(np.prod(shape[1:]))
    return total


def _fitting(images: NDArray[Any], graph: Graph) -> NDArray[np.float32]:
    wanted = graph.values[graph.inputs[0]].shape
    if len(graph.inputs) != 1 or images.dtype != np.float32 or images.shape[1:] != wanted or not len(images):
        given = f"{images.dtype} {list(images.shape)}"
        raise UserError(f"the network takes float32 images [N, {', '.join(map(str, wanted))}], given were {given}")
    return images


def _batches(images: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    for start in range(0, len(images), _BATCH):
        yield images[start : start + _BATCH]
