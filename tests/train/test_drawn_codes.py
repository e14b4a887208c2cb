"""Recipes with methods that draw their codes: a run that was cut short goes on with the same draws."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny import run

from tritkit.surgery import latent_of, named_ternary
from tritkit.train import Silent, load_trained, read_record

SHORT = {"epochs": 1, "schedule": {"name": "cosine", "warmup_epochs": 0}}


class _Stop(Silent):
    def step(self, done: int) -> None:
        if done == 5:  # two steps after a checkpoint
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    "method", [{"name": "binary-connect"}, {"name": "ternary-connect", "scale": "data"}], ids=lambda m: m["name"]
)
def test_a_resumed_run_draws_the_same_codes(method: dict[str, Any], tmp_path: Path) -> None:
    changes = {**SHORT, "method": method, "bn_images": 64}
    whole = run(tmp_path / "whole", changes)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", changes, _Stop())
    cut = run(tmp_path / "cut", changes)
    assert cut.test_error == whole.test_error
    expected = load_file(whole.weights)
    for key, value in load_file(cut.weights).items():
        assert torch.equal(value, expected[key]), key
    net, _ = load_trained(cut.weights)
    layers = read_record(cut.record)[-1]["layers"]
    for name, layer, value in named_ternary(net):
        assert layers[name]["density"] == pytest.approx(value.density)
        assert float(latent_of(layer).detach().abs().max()) <= float(value.scale_pos)


def test_weights_of_more_bits_train_too(tmp_path: Path) -> None:
    result = run(tmp_path, {**SHORT, "method": {"name": "dorefa", "weight_bits": 4}})
    assert read_record(result.record)[-1]["layers"] == {}
    net, _ = load_trained(result.weights)
    assert len(net.get_submodule("layer1.0.conv1").weight.unique()) <= 16
