"""DoReFa from a recipe: what the network has, the same bits after a kill, and what does not go together."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny import images, recipe, run

import tritkit
from tritkit import low_bit
from tritkit.errors import TritkitError, UserError
from tritkit.train import evaluate, load_trained

_TINY = Path(__file__).with_name("tiny.py")
LOW: dict[str, Any] = {"dorefa": {"weight_bits": 1, "activation_bits": 2, "gradient_bits": 6}, "epochs": 2}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("low")
    run(out, LOW)
    return out


def test_the_trained_network_comes_back_with_its_bits(finished: Path) -> None:
    net, loaded = load_trained(finished / "final.safetensors")
    assert loaded == recipe(**LOW)
    inputs = [m.bits for m in net.modules() if isinstance(m, low_bit.QuantizeActivation)]
    gradients = [m.bits for m in net.modules() if isinstance(m, low_bit.QuantizeGradient)]
    assert (inputs, gradients) == ([2] * 6, [6] * 6)  # all convolutions but the first
    seen: list[torch.Tensor] = []
    net.layer1[0].conv1.input_quantizer.register_forward_hook(lambda module, args, output: seen.append(output))
    final = json.loads((finished / "record.jsonl").read_text().splitlines()[-1])
    assert evaluate(net, images(64, 1), loaded.mean, loaded.std) == final["test_error"]
    assert set((seen[0] * 3).unique().tolist()) == {0.0, 1.0, 2.0, 3.0}
    assert {row["density"] for row in final["layers"].values()} == {1.0}


def test_killed_and_resumed(finished: Path, tmp_path: Path) -> None:
    """The gradients' noise goes on where it stopped."""
    package = str(Path(tritkit.__file__).parents[1])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": package}
    command = [sys.executable, str(_TINY), str(tmp_path), "5", json.dumps(LOW)]
    assert subprocess.run(command, env=environment, check=False).returncode == -signal.SIGKILL
    run(tmp_path, LOW)
    ours, whole = (load_file(folder / "final.safetensors") for folder in (tmp_path, finished))
    assert all(torch.equal(ours[key], whole[key]) for key in whole)


def test_low_bit_activations_are_not_exported(finished: Path, tmp_path: Path) -> None:
    net, _ = load_trained(finished / "final.safetensors")
    with pytest.raises(TritkitError, match="quantize"):
        tritkit.export(net, tmp_path / "net.onnx", torch.zeros(1, 3, 32, 32))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dorefa": {"weight_bits": 0}}, "dorefa.weight_bits is 0"),
        ({"dorefa": {"activation_bits": 17}}, "dorefa.activation_bits is 17; it must be 1 to 16, or 32 for float"),
        ({"dorefa": {"gradient_bits": 0}}, "dorefa.gradient_bits is 0; it must be"),
        ({"dorefa": {"bits": 2}}, "unknown key 'dorefa.bits'; allowed: activation_bits, gradient_bits, weight_bits"),
        ({**LOW, "method": {"name": "ttq"}}, "set one of them"),
        ({**LOW, "deep_compression": {"sparsity": 0.5, "share_epoch": 1}}, "set one of them"),
        ({**LOW, "activations": {}}, "dorefa.activation_bits must be 32"),
    ],
)
def test_mistakes(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        recipe(**changes)
