"""Layers that miss the engine's fast paths on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tritkit.deploy import Graph
from tritkit.deploy import graph as g
from tritkit.diagnosis.finding import Finding, percent, share
from tritkit.errors import UnsupportedError
from tritkit.runtime import Session, StepInfo, kernels

_LANES = 16  # outputs that a vector of the dense kernels computes at once
_IDLE = 0.25  # share of them in use, at and below which lanes idle
_WORTH = 0.05  # share of the network's multiply-adds
_REPEAT = 3


def speed_findings(path: Path, graph: Graph) -> Iterator[Finding]:
    """Layers that run in plain loops or leave most lanes of a vector idle; or the operation that our engine refuses."""
    try:
        session = Session(path, threads=1)
    except UnsupportedError as error:
        yield _refused(error)
        return
    with session:
        steps = session.summary()
        slow = {step.name: said for step in steps if (said := _slow(step, steps, graph)) is not None}
        times = _times(session) if slow else {}
        for name, (kind, what, fix) in slow.items():
            yield _finding(kind, name, what, fix, times)


def _refused(error: UnsupportedError) -> Finding:
    what = str(error)
    cost = "it runs in stock ONNX Runtime only, at the speed of int8"
    fix = "take another operation there, or run the file with onnxruntime"
    return Finding("not-run", "file", f"our engine does not run it: {what}", cost, fix)


def _slow(step: StepInfo, steps: list[StepInfo], graph: Graph) -> tuple[str, str, str] | None:
    """Kind, what and fix; None for a step that runs as it should."""
    if share(step.macs, sum(s.macs for s in steps)) < _WORTH or len(kernels()) < 2:
        return None
    if step.kernel == "reference":
        fix = "split the kernel: the fast kernels take up to 1,024 taps (kernel height × width)"
        return "slow-kernel", "the layer runs in plain loops: no fast kernel takes its shape", fix
    node = next((n for n in graph.nodes if isinstance(n, g.QConv) and n.name == step.name.split(" + ")[0]), None)
    if node is None or node.group == 1 or node.group == graph.values[node.inputs[0]].shape[0] == node.weight.shape[0]:
        return None
    outputs = node.weight.shape[0] // node.group
    used = share(outputs, -(-outputs // _LANES) * _LANES)
    if used > _IDLE:
        return None
    what = f"{node.group} groups of {outputs} outputs fill {percent(used)} of a vector of {_LANES}"
    return "idle-lanes", what, "use fewer groups, or as many as channels (depthwise, which has kernels of its own)"


def _times(session: Session) -> dict[str, float]:
    """Share of an image's time of each step."""
    shape = tuple(side or 1 for side in session.inputs[0].shape)
    image = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    return {step.name: step.share for step in session.profile(image, repeat=_REPEAT)}


def _finding(kind: str, name: str, what: str, fix: str, times: dict[str, float]) -> Finding:
    part = times.get(name, 0.0)
    return Finding(kind, name, what, f"{percent(part)} of an image's time, measured", fix, {"share_of_time": part})
