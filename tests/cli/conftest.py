"""A small exported network, and the command line as a function."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from cli_example import CLASSES, MEAN, STD

import tritkit
from tritkit.cli.app import run_app
from tritkit.methods import TTQ
from tritkit.models import build


class Result(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs `tritkit` with the given words at 100 columns."""
    monkeypatch.setenv("COLUMNS", "100")

    def call(*words: object) -> Result:
        capfd.readouterr()
        code = run_app([str(word) for word in words])
        captured = capfd.readouterr()
        return Result(code, captured.out, captured.err)

    return call


@pytest.fixture(scope="session")
def ternary_net() -> torch.nn.Module:
    torch.manual_seed(0)
    net = build("cifar-resnet8").eval()
    tritkit.ternarize_(net, TTQ(init="data"), exclude=["conv1", "linear"])
    return net


@pytest.fixture(scope="session")
def net_file(ternary_net: torch.nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("net") / "net.onnx"
    example = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    facts = {"mean": MEAN, "std": STD, "classes": CLASSES}
    tritkit.export(ternary_net, path, example, calibration=[example], input_info=facts)
    return path
