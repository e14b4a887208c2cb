"""`tritkit bench`: options become a plan, mistakes are one sentence, facts become a table or JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tritkit.bench
from tritkit.bench import Plan

Cli = Callable[..., tuple[int, str, str]]

TIMED = {"p10_ms": 0.09, "p90_ms": 0.2, "min_ms": 0.08, "runs": 100, "note": "", "status": "timed"}
SIZES = {"file_bytes": 88_000, "model_bytes": 1_000_000, "resident_bytes": 40_000_000}
OURS = {"engine": "tritkit", "family": "ours", "median_ms": 0.1, "ratio": 1.0, **TIMED, **SIZES}
PEER = {"engine": "onnxruntime-int8", "family": "int8", "median_ms": 0.25, "ratio": 0.4, **TIMED, **SIZES}
CYCLES = {"macs_per_cycle": 83.4, "share_of_limit": 0.65}
ABSENT = {"engine": "openvino-int8", "family": "int8", "status": "missing", "note": "pip install openvino nncf"}


def _facts(*rows: dict[str, Any], others_busy: float = 0.0) -> dict[str, Any]:
    cell = {"batch": 1, "threads": 2, "rounds": 9, "hertz": 4e9, "others_busy": others_busy, "rows": list(rows)}
    cell |= {"fastest_int8": "onnxruntime-int8", "ratio_to_fastest_int8": 0.4}
    cell |= {"fastest_float": None, "ratio_to_fastest_float": None}
    facts: dict[str, Any] = {"format": 1, "network": "resnet20", "density": 0.5, "scales": "symmetric", "threads": 2}
    facts |= {"ratio_to_fastest_int8": 0.4, "ratio_to_fastest_float": None, "cells": [cell]}
    return facts | {"limit_macs_per_cycle": 128.0, "machine": {}, "workload": {}}


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> list[Plan]:
    """The plans that were run; nothing is measured."""
    seen: list[Plan] = []

    def fake(plan: Plan, say: Callable[[str], None]) -> dict[str, Any]:
        seen.append(plan)
        return _facts(OURS | CYCLES, PEER)

    monkeypatch.setattr(tritkit.bench, "run", fake)
    return seen


def test_options_become_a_plan(cli: Cli, plans: list[Plan]) -> None:
    words = ["--batch", "1,64", "--density", "0.35", "--scales", "asymmetric", "--seconds", 3, "--isa", "avx2"]
    code, _, err = cli("bench", "resnet20", *words, "--peers", "onnxruntime-int8, openvino-int8")
    assert (code, err) == (0, "")
    peers = ("onnxruntime-int8", "openvino-int8")
    assert plans == [Plan("resnet20", 0.35, "asymmetric", (1, 64), 1, peers, 3.0, 0, "avx2")]


def test_json_has_the_ratios_on_top_and_out_writes_the_same(cli: Cli, plans: list[Plan], tmp_path: Path) -> None:
    code, out, _ = cli("bench", "resnet20", "--json", "-o", tmp_path / "bench.json")
    facts = json.loads(out)
    assert code == 0
    assert (facts["ratio_to_fastest_int8"], facts["ratio_to_fastest_float"]) == (0.4, None)
    assert json.loads((tmp_path / "bench.json").read_text()) == facts


def test_the_table_says_it_all(cli: Cli, plans: list[Plan]) -> None:
    code, out, _ = cli("bench", "resnet20")
    assert code == 0
    lines = out.splitlines()
    assert lines[0].strip() == "resnet20, batch 1, 2 threads, density 0.50, symmetric scales"
    (ours,) = (line for line in lines if line.startswith("tritkit "))
    assert " ".join(ours.split()) == "tritkit 0.100 0.090 0.200 1.00 83.4 65 % 88.0 kB 1.0 MB 40.0 MB"
    (peer,) = (line for line in lines if line.startswith("onnxruntime-int8 "))
    assert " ".join(peer.split()) == "onnxruntime-int8 0.250 0.090 0.200 0.40 – – 88.0 kB 1.0 MB 40.0 MB"
    assert "tritkit takes 0.40 of the time of onnxruntime-int8" in out


def test_what_is_missing_is_said_and_fails_only_where_it_was_asked_for(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tritkit.bench, "run", lambda plan, say: _facts(OURS, ABSENT, others_busy=1.25))
    code, out, _ = cli("bench", "resnet20")
    assert code == 0
    assert "openvino-int8 missing: pip install openvino nncf" in out
    assert "Other programs kept 1.2 CPUs busy" in out
    assert cli("bench", "resnet20", "--peers", "openvino-int8")[0] == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["no-such-network"], "is no network of the bench and no file"),
        (["no/such.onnx"], "no file no/such.onnx"),
        (["resnet20", "--batch", "one"], "whole numbers with commas"),
        (["resnet20", "--batch", "0"], "batches must be 1 to 4096"),
        (["resnet20", "--density", "0"], "density must be above 0"),
        (["resnet20", "--threads", "0"], "threads must be 1 to"),
        (["resnet20", "--threads", "100000"], "threads must be 1 to"),
        (["resnet20", "--scales", "round"], "symmetric"),
        (["resnet20", "--peers", "onnx"], "there is no peer 'onnx'; allowed: onnxruntime-int8"),
        (["resnet20", "--peers", ""], "there is no peer ''"),
        (["resnet20", "--seconds", "-1"], "seconds must be above 0"),
        (["resnet20", "--isa", "neon"], "isa must be one of scalar, avx2"),
        (["resnet20", "-o", "no/such/folder/x.json"], "does not exist"),
        ([], "Missing argument"),
    ],
)
def test_a_mistake_is_one_sentence(
    cli: Cli, words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITKIT_CACHE", str(tmp_path))
    code, out, err = cli("bench", *words)
    assert (code, out) == (2, "")
    lines = [line for line in err.splitlines() if line.startswith("tritkit: ")]
    assert len(lines) == 1
    assert said in lines[0]
