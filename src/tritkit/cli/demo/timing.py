"""Milliseconds a picture: all engines in turn, round after round, so that each meets the machine in the same moods."""

from __future__ import annotations

import io
import time
import warnings
from typing import Any

import numpy as np
import torch

from tritkit.cli.demo.engines import onnx_runtime
from tritkit.cli.demo.networks import Made
from tritkit.runtime import Session

_BATCHES = (1, 64)
_LEAST = 3  # calls of an engine in a round
_ROUND = 0.1  # seconds an engine and round
_BUDGET = 30.0  # seconds a batch size: on a busy machine fewer rounds must do


def speeds(made: Made, threads: int, quick: bool) -> list[dict[str, Any]]:
    """A row an engine: the median milliseconds a picture for batches of 1 and of 64."""
    runners = _runners(made, threads)
    rows = [{"engine": name, "threads": used, "ms_per_image": {}} for name, used, _ in runners]
    for batch in _BATCHES:
        images = made.inputs(batch)
        medians = _medians([run for _, _, run in runners], images, rounds=3 if quick else 7)
        for row, seconds in zip(rows, medians, strict=True):
            row["ms_per_image"][str(batch)] = 1000 * seconds / batch  # type: ignore[index]
    return rows


def _runners(made: Made, threads: int) -> list[tuple[str, int, Any]]:
    net = made.net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def in_torch(images: np.ndarray[Any, Any]) -> Any:
        with torch.inference_mode():
            return net(torch.from_numpy(images))

    found = [
        ("PyTorch, float32", threads, in_torch),
        ("ONNX Runtime, float32", threads, onnx_runtime(_float_onnx(made), threads)),
        ("ONNX Runtime, ternary file", threads, onnx_runtime(made.trained, threads)),
    ]
    counts = sorted({1, threads})
    return found + [("tritkit, ternary file", n, Session(made.trained, threads=n).run) for n in counts]


def _float_onnx(made: Made) -> bytes:
    """The float network as torch's own exporter writes it."""
    buffer, example = io.BytesIO(), torch.from_numpy(made.inputs(1))
    target: Any = buffer  # a buffer will do, though the exporter's annotation only names paths
    axes = {"images": {0: "N"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter that needs no further package is deprecated
        torch.onnx.export(
            made.net, (example,), target, dynamo=False, opset_version=18, input_names=["images"], dynamic_axes=axes
        )
    return buffer.getvalue()


def _medians(runners: list[Any], images: np.ndarray[Any, Any], rounds: int) -> list[float]:
    """Median seconds of a call."""
    calls = [max(_LEAST, min(200, int(_ROUND / _once(run, images)))) for run in runners]
    taken: list[list[float]] = [[] for _ in runners]
    end = time.perf_counter() + _BUDGET
    for done in range(rounds):
        if done and time.perf_counter() > end:
            break
        for run, count, seconds in zip(runners, calls, taken, strict=True):
            run(images)  # back in the caches
            seconds.extend(_once(run, images) for _ in range(count))
    return [float(np.median(seconds)) for seconds in taken]


def _once(run: Any, images: np.ndarray[Any, Any]) -> float:
    start = time.perf_counter()
    run(images)
    return max(time.perf_counter() - start, 1e-7)
