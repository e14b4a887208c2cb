"""Training that simulates int8 weights ends with those that the integer network has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from tiny import TERNARY, run

from tritkit.deploy.lower_weights import int8_weight
from tritkit.train import load_trained, read_record


def _others(out: Path, **activations: Any) -> list[torch.Tensor]:
    """The weights of the layers that are not ternary, after training."""
    run(out, {**TERNARY, "activations": {"calibration_images": 64, **activations}})
    net, _ = load_trained(out / "final.safetensors")
    return [net.get_submodule(name).weight for name in ("conv1", "linear")]  # type: ignore[misc]


def _off_grid(weight: torch.Tensor) -> float:
    """How far a weight is from a unit a channel times integers of which the largest is 64, in units."""
    rows = weight.detach().double().flatten(1)
    integers = rows / (rows.abs().amax(1, keepdim=True) / 64)
    return float((integers - integers.round()).abs().max())


def test_the_weights_are_those_of_the_integer_network(tmp_path: Path) -> None:
    for weight in _others(tmp_path, from_epoch=2, int8_weights=True):
        assert _off_grid(weight) < 1e-4
        integers, unit = int8_weight(weight)
        made = integers.values * unit.reshape(-1, *[1] * (weight.dim() - 1))
        assert np.allclose(made, weight.detach().numpy(), rtol=1e-5, atol=0)


def test_by_itself_nothing_is_rounded(tmp_path: Path) -> None:
    assert all(_off_grid(weight) > 0.1 for weight in _others(tmp_path, from_epoch=2))


def test_they_are_simulated_with_the_activations(tmp_path: Path) -> None:
    losses = []
    for simulated in (True, False):
        out = tmp_path / str(simulated)
        _others(out, from_epoch=2, int8_weights=simulated)
        losses.append([row["loss"] for row in read_record(out / "record.jsonl") if row["kind"] == "epoch"])
    same = [one == other for one, other in zip(*losses, strict=True)]
    assert same == [True, False, False]
