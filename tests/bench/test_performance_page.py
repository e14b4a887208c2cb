"""The page of speeds is what the records say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
MACHINE = {"cpu": "A CPU", "cpus": 2, "caches": {"L1 data": "32K"}, "memory_bytes": 2**34, "system": "Linux 6"}


def _row(engine: str, family: str, median: float, ours: float) -> dict[str, Any]:
    times = {"median_ms": median, "p10_ms": median / 2, "p90_ms": median * 2, "ratio": ours / median}
    sizes = {"file_bytes": 1500, "model_bytes": 2_500_000, "checked": "looked|at", "versions": {engine: "1.0"}}
    return {"engine": engine, "family": family, "status": "timed", "macs_per_cycle": 12.4} | times | sizes


def _record(network: str, others_busy: float) -> dict[str, Any]:
    absent = {"engine": "ncnn-float32", "family": "float", "status": "missing", "note": "pip install ncnn"}
    never = {"engine": "onnxruntime-2bit", "family": "int8", "status": "unsupported", "note": "linear only"}
    rows = [_row("tritkit", "ours", 0.5, 0.5), _row("openvino-int8", "int8", 1.0, 0.5), absent, never]
    cell = {"batch": 1, "threads": 2, "hertz": 3e9, "others_busy": others_busy, "rows": rows}
    cell |= {"fastest_int8": "openvino-int8", "fastest_float": None}
    facts = {"network": network, "scales": "symmetric", "density": 0.3499, "commit": "abc123", "cells": [cell]}
    return facts | {"machine": MACHINE | {"date": "2026-01-02"}, "limit_macs_per_cycle": 64.0}


def _write(results: Path, others_busy: float) -> None:
    (results / "a-cpu").mkdir()
    text = json.dumps(_record("resnet20", others_busy))
    (results / "a-cpu" / "resnet20-b1-t2-symmetric-d35.json").write_text(text)


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import performance_page

    monkeypatch.setattr(performance_page, "RESULTS", tmp_path)
    return performance_page


def test_a_record_becomes_its_rows(page: Any, tmp_path: Path) -> None:
    _write(tmp_path, 0.0)
    (folder,) = page.machines()
    text = page.page([folder]) + page.details(folder)
    assert "| resnet20 | 1 | 2 | symmetric | 35 % | 0.500 | openvino | 1.00 | **0.50** | – | – | – |" in text
    assert "| tritkit | **0.500** (0.250 – 1.00), 12 |" in text
    assert "| openvino-int8 | 1.5 | 2.5 | looked/at |" in text
    assert "| ncnn-float32 | – | – | missing: pip install ncnn |" in text
    assert "onnxruntime-2bit |" not in text
    assert "A CPU, 2 CPUs, 64 int8 products a cycle and core; L1 data 32K; 16 GiB; Linux 6." in text
    assert "at commit abc123, with openvino-int8 1.0, tritkit 1.0." in text
    assert "measure it again" not in text


def test_a_noisy_record_is_marked(page: Any, tmp_path: Path) -> None:
    _write(tmp_path, 0.5)
    text = page.page(page.machines())
    assert "| symmetric | 35 % \\* |" in text
    assert "measure it again" in text


def test_every_cell_has_a_name_of_its_own(page: Any) -> None:
    names = [cell.name for cell in page.cells()]
    assert len(names) == len(set(names)) == 57
    assert "resnet20-b64-t1-asymmetric-d50" in names


def test_without_records_there_is_no_page(page: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert page.main() == 2
    assert "run benchmarks/performance.py first" in capsys.readouterr().err
