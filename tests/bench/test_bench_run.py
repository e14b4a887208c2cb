"""A plan from beginning to end with fake engines: what is timed, what is not, and what is said of it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tritkit.bench import Plan, run, running, timing
from tritkit.bench.networks import ternary_network
from tritkit.bench.rewriting import without_groups, without_norms, without_strided_slices
from tritkit.bench.twin import FloatTwin
from tritkit.bench.workload import make
from tritkit.deploy import from_onnx
from tritkit.errors import TritkitError, UserError

Use = Callable[..., None]
LAYER = "conv:8x8x6x6k3"
CPU = sorted(os.sched_getaffinity(0))[0]
TIMED = {"median_ms", "p10_ms", "p90_ms", "min_ms", "runs", "ratio", "file_bytes", "model_bytes", "resident_bytes"}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "SLICE_SECONDS", 0.001)
    monkeypatch.setattr(timing, "WARM_SECONDS", 0.0)
    monkeypatch.setattr(timing, "_SLICE_LIMIT", 2.0)


def _rows(facts: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["engine"]: row for row in facts["cells"][0]["rows"]}


def _plan(**changes: Any) -> Plan:
    return Plan(**{"network": LAYER, "seconds": 0.01} | changes)


def test_engines_that_behave_are_timed_and_compared(fakes: Use) -> None:
    fakes("Right", "Noisy")
    facts = run(_plan(density=0.25, scales="asymmetric"))
    rows = _rows(facts)
    assert [row["status"] for row in rows.values()] == ["timed"] * 3
    for row in rows.values():
        assert row.keys() >= TIMED
        assert row["min_ms"] <= row["p10_ms"] <= row["median_ms"] <= row["p90_ms"]
        assert row["runs"] >= timing.LEAST_RUNS * timing.LEAST_ROUNDS
    assert rows["Noisy"]["ratio"] == rows["tritkit"]["median_ms"] / rows["Noisy"]["median_ms"]
    assert facts["ratio_to_fastest_int8"] == rows["Noisy"]["ratio"]
    assert facts["ratio_to_fastest_float"] == rows["Right"]["ratio"]
    assert rows["Right"]["checked"] == f"pinned to [{CPU}], OMP_NUM_THREADS 1"
    assert rows["Noisy"]["correlation"] > 0.98
    assert (facts["density"], facts["scales"]) == (0.25, "asymmetric")
    assert facts["workload"]["macs"] == 8 * 8 * 9 * 36
    assert json.loads(json.dumps(facts)) == facts


def test_engines_that_do_not_behave_are_named_and_never_timed(fakes: Use) -> None:
    names = ("WrongLayout", "NotFinite", "WrongShape", "Unconvertible", "NotInstalled", "NotForThis", "NotWhatItSays")
    fakes("Right", *names)
    said: list[str] = []
    rows = _rows(run(_plan(), said.append))
    assert {name: rows[name]["status"] for name in names} == {
        "WrongLayout": "wrong",
        "NotFinite": "wrong",
        "WrongShape": "wrong",
        "Unconvertible": "failed",
        "NotInstalled": "missing",
        "NotForThis": "unsupported",
        "NotWhatItSays": "failed",
    }
    assert rows["Right"]["status"] == "timed"
    for name in names:
        assert "median_ms" not in rows[name]
    assert "correlates" in rows["WrongLayout"]["note"]
    assert rows["Unconvertible"]["note"] == "RuntimeError: no such operation"
    assert "pip install a-package-that-nobody-has" in rows["NotInstalled"]["note"]
    assert rows["NotForThis"]["note"] == "takes no conv"
    assert any(line.startswith("batch 1: WrongLayout wrong") for line in said)


@pytest.mark.parametrize(("name", "words"), [("Crashes", "SIGSEGV"), ("Hangs", "did not answer within 2 s")])
def test_an_engine_that_falls_over_while_timed_costs_no_other(fakes: Use, name: str, words: str) -> None:
    fakes(name, "Right")
    facts = run(_plan())
    rows = _rows(facts)
    assert (rows[name]["status"], rows["Right"]["status"], rows["tritkit"]["status"]) == ("failed", "timed", "timed")
    assert words in rows[name]["note"]
    assert facts["ratio_to_fastest_int8"] is None


def test_the_worst_of_several_batches_stands_on_top(fakes: Use) -> None:
    fakes("Right")
    facts = run(_plan(batches=(1, 3)))
    assert [cell["batch"] for cell in facts["cells"]] == [1, 3]
    assert facts["ratio_to_fastest_float"] == max(cell["ratio_to_fastest_float"] for cell in facts["cells"])


def test_our_own_wrong_result_is_an_error(fakes: Use, monkeypatch: pytest.MonkeyPatch) -> None:
    fakes("Right")
    work = make(_plan(seed=5))
    reference = np.load(work.folder / "reference.npy")
    reference.reshape(-1)[0] += np.float32(1e-3)
    np.save(work.folder / "reference.npy", reference)
    with pytest.raises(TritkitError, match="not the reference's, bit for bit"):
        run(_plan(seed=5))


def test_named_peers_must_be_there(fakes: Use) -> None:
    fakes("Right", "NotInstalled")
    with pytest.raises(UserError, match=r"NotInstalled cannot run: .*pip install"):
        run(_plan(peers=("NotInstalled",)))
    with pytest.raises(UserError, match="no peer 'Nobody'; allowed: Right, NotInstalled"):
        run(_plan(peers=("Right", "Nobody")))
    with pytest.raises(UserError, match="no peer 'tritkit'"):
        run(_plan(peers=("tritkit",)))
    assert list(_rows(run(_plan(peers=("Right",))))) == ["tritkit", "Right"]


def test_a_conversion_is_made_once(fakes: Use, monkeypatch: pytest.MonkeyPatch) -> None:
    fakes("Right")
    run(_plan())
    asked: list[str] = []
    ask = running.WorkerProcess.ask

    def listen(self: Any, seconds: float, do: str, **message: Any) -> dict[str, Any]:
        asked.append(do)
        return ask(self, seconds, do, **message)

    monkeypatch.setattr(running.WorkerProcess, "ask", listen)
    run(_plan())
    assert "prepare" not in asked
    assert "slice" in asked


@pytest.mark.parametrize(
    "changes",
    [
        {"density": 0},
        {"density": 1.5},
        {"density": float("nan")},
        {"scales": "round"},
        {"batches": ()},
        {"batches": (0,)},
        {"threads": 0},
        {"threads": 4097},
        {"seconds": 0},
        {"seconds": float("inf")},
    ],
)
def test_a_bad_plan_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        _plan(**changes)


@pytest.mark.parametrize(
    "network", ["", "resnet", "resnet19", "conv:0x8x6x6k3", "conv:8x8x6x6", "linear:4096", "no/such.onnx", "/tmp"]
)
def test_a_network_that_is_none_is_refused(fakes: Use, network: str) -> None:
    fakes("Right")
    with pytest.raises(UserError):
        run(_plan(network=network))


def test_networks_by_name_have_the_density_and_scales_asked_for() -> None:
    net, shape = ternary_network("resnet8", 0.3, "asymmetric", 0)
    weights = [m.weight for m in net.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)]
    assert shape.input == (3, 32, 32)
    for weight in weights[1:-1]:
        assert len(weight.unique()) == 3
        assert abs(float((weight != 0).float().mean()) - 0.3) < 0.001
        assert weight.max() / -weight.min() == pytest.approx(1.2 / 0.7)
    for weight in (weights[0], weights[-1]):
        assert len(weight.unique()) > 100
    assert float(net(torch.from_numpy(shape.images(4, 0))).std()) > 0.1


def test_a_file_is_taken_as_it_is_and_its_float_twin_is_the_network(fakes: Use, tmp_path: Path) -> None:
    fakes("Right")
    work = make(_plan(network="resnet8"))
    images = torch.from_numpy(work.images(2))
    twin = FloatTwin(from_onnx(work.ternary_file))
    correlation = np.corrcoef(twin(images).ravel(), work.network()(images).ravel())[0, 1]
    assert correlation > 0.99
    path = tmp_path / "net.onnx"
    path.write_bytes(work.ternary_file.read_bytes())
    facts = run(_plan(network=str(path), density=1.0))
    assert facts["density"] == pytest.approx(0.5, abs=0.001)
    assert facts["workload"]["kind"] == "file"
    assert _rows(facts)["Right"]["status"] == "timed"


@pytest.mark.parametrize("rewrite", [without_groups, without_norms, without_strided_slices])
def test_another_form_of_a_network_is_the_same_network(rewrite: Callable[[torch.nn.Module], torch.nn.Module]) -> None:
    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv2d(6, 9, 3, stride=2, padding=1, groups=3)
            self.norm = torch.nn.BatchNorm2d(9)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.norm(self.conv(x))[:, :, ::2, ::2]

    torch.manual_seed(0)
    net = Net()
    x = torch.randn(2, 6, 14, 14)
    net(x)  # sets the running statistics
    with torch.no_grad():
        other = rewrite(net.eval())
        assert torch.allclose(other(x), net(x), atol=1e-5)
    groups = [m.groups for m in other.modules() if isinstance(m, torch.nn.Conv2d)]
    if rewrite is without_groups:
        assert groups == [1, 1, 1]
    elif rewrite is without_norms:
        assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in other.children())
    else:
        assert "getitem" not in str(other.graph)
