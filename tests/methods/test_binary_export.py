"""Binary networks, and those with drawn codes, export like any ternary one and run to the same bits everywhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import tritkit
from tritkit.deploy import Reference, Simulation, from_onnx, lower
from tritkit.errors import UnsupportedError
from tritkit.low_bit import PRESETS, dorefa_
from tritkit.methods import BWN, BinaryConnect, DoReFa, Method, TernaryConnect

IMAGES = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(3))


def network() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 5, 3, 2, 1), nn.BatchNorm2d(5), nn.ReLU(),
        nn.AvgPool2d(2), nn.Flatten(), nn.Linear(5, 4),
    )  # fmt: skip


def train(net: nn.Module) -> None:
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(IMAGES), torch.tensor([0, 1, 2, 3])).backward()
        optimizer.step()
        tritkit.after_step_(net)


def check_bits(net: nn.Module, path: Path, kinds: list[str]) -> None:
    """Exports and compares the reference, the simulation and our engine (`export` itself asks ONNX Runtime)."""
    report = tritkit.export(net, path, IMAGES[:1], calibration=[IMAGES])
    assert "onnxruntime" in report.checked
    assert [row["kind"] for row in report.layers] == kinds
    expected = Reference(from_onnx(path)).run(IMAGES.numpy())
    assert np.array_equal(Simulation(lower(net, IMAGES, calibration=[IMAGES]))(IMAGES).numpy(), expected)
    with tritkit.Session(path) as session:
        assert np.array_equal(session.run(IMAGES.numpy()), expected)


@pytest.mark.parametrize(
    "method", [BinaryConnect(scale="data"), TernaryConnect(scale="data"), BWN(), DoReFa()], ids=str
)
def test_trained_networks_run_bit_for_bit(method: Method, tmp_path: Path) -> None:
    net = network()
    tritkit.ternarize_(net, method, exclude=["0"])
    train(net)
    check_bits(net, tmp_path / "net.onnx", ["int8", "ternary", "ternary"])
    density = [value.density for _, _, value in tritkit.named_ternary(net)]
    assert all(d == 1 for d in density) != isinstance(method, TernaryConnect)


def test_low_bit_gradients_do_not_matter_to_the_file(tmp_path: Path) -> None:
    net = network()
    dorefa_(net, 1, 32, 6)
    train(net)
    check_bits(net, tmp_path / "net.onnx", ["int8", "ternary", "int8"])


def test_more_bits_are_refused_with_the_reason(tmp_path: Path) -> None:
    net = network()
    tritkit.ternarize_(net, DoReFa(weight_bits=8), exclude=["0"])
    train(net)
    reason = r"layer '3': DoReFa weights of 8 bits have 256 levels and no zero; .* give it a policy, int8 or float32"
    with pytest.raises(UnsupportedError, match=reason):
        tritkit.export(net, tmp_path / "net.onnx", IMAGES[:1], calibration=[IMAGES])
    assert not list(tmp_path.iterdir())


def test_low_bit_activations_are_refused(tmp_path: Path) -> None:
    net = network()
    dorefa_(net, *PRESETS["1-2-6"])
    with pytest.raises(UnsupportedError, match="not an operation of the integer network"):
        tritkit.export(net, tmp_path / "net.onnx", IMAGES[:1], calibration=[IMAGES])
