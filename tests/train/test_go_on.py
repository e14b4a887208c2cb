"""A run that trains on from the final weights of another run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_resume import _killed
from tiny import TERNARY, recipe, run

from tritkit.errors import ModelFileError, UserError
from tritkit.surgery import named_ternary
from tritkit.train.network import build_network, load_trained


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The final weights of a ternary run with 8-bit activations and snapped scales."""
    return run(tmp_path_factory.mktemp("first"), TERNARY).weights


def test_it_begins_with_all_of_the_earlier_weights(first: Path) -> None:
    earlier = load_file(first)
    net = build_network(recipe(**TERNARY, init=str(first))).state_dict()
    assert net.keys() == {key for key in earlier if not key.startswith("activation_quantizers.")}
    assert all(torch.equal(value, earlier[key]) for key, value in net.items())


def test_a_killed_run_goes_on_to_the_same_bits(tmp_path: Path, first: Path) -> None:
    changes: dict[str, Any] = TERNARY | {"init": str(first)}
    run(tmp_path / "whole", changes)
    _killed(tmp_path / "cut", 2, changes)
    run(tmp_path / "cut", changes)
    whole, cut = (load_file(tmp_path / name / "final.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(whole[key], cut[key]) for key in whole)


LSQ = {"method": {"name": "lsq", "per": "channel"}, "epochs": 2, "bn_images": 64}
TTQ = {"method": TERNARY["method"] | {"threshold": 0.4}}


def test_another_method_begins_with_the_codes_of_the_earlier_one(tmp_path: Path) -> None:
    """One scale a layer in place of one a channel: the batch norms behind take the rest."""
    first = run(tmp_path / "lsq", LSQ).weights
    earlier, other = load_trained(first)[0], build_network(recipe(**TTQ, init=str(first))).eval()
    before, after = ({name: value for name, _, value in named_ternary(net)} for net in (earlier, other))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name].codes, after[name].codes) for name in before)
    assert {value.granularity for value in after.values()} == {"tensor"}
    x = torch.randn(4, 3, 32, 32)
    torch.testing.assert_close(other(x), earlier(x), rtol=1e-3, atol=1e-3)


def test_a_killed_run_of_another_method_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    changes: dict[str, Any] = TTQ | {"init": str(run(tmp_path / "lsq", LSQ).weights), "epochs": 2}
    run(tmp_path / "whole", changes)
    _killed(tmp_path / "cut", 2, changes)
    run(tmp_path / "cut", changes)
    whole, cut = (load_file(tmp_path / name / "final.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(whole[key], cut[key]) for key in whole)


def test_codes_that_the_other_method_cannot_have_are_refused_by_layer(first: Path) -> None:
    with pytest.raises(UserError, match=r"layer 'layer1\.0\.conv1': lsq has one scale for both signs"):
        build_network(recipe(init=str(first), method={"name": "lsq"}))


def test_other_layers_are_refused(first: Path) -> None:
    with pytest.raises(UserError, match=r"excludes \['conv1', 'linear'\]; another method must exclude the same"):
        build_network(recipe(init=str(first), exclude=["conv1"], **TTQ))


@pytest.mark.parametrize("change", [{"model": "cifar-resnet14"}, {"model": "cifar-resnet14", **TTQ}, {"method": None}])
def test_another_model_is_refused(first: Path, change: dict[str, Any]) -> None:
    changes = TERNARY | {"init": str(first)} | change
    if change.get("method", 0) is None:
        changes |= {"snap_scales": False, "scale_lr": None, "freeze_codes_epoch": None}
    with pytest.raises(ModelFileError, match=r"does not fit this recipe .* take its model, or float weights"):
        build_network(recipe(**changes))


def test_post_training_has_nothing_to_start_from(first: Path) -> None:
    with pytest.raises(UserError, match="is ternary already; leave out post_training_images"):
        build_network(recipe(**TERNARY, init=str(first), post_training_images=64))


def test_a_damaged_run_is_no_start(tmp_path: Path, first: Path) -> None:
    (tmp_path / "cut.safetensors").write_bytes(first.read_bytes()[:1000])
    with pytest.raises(ModelFileError, match="not a readable safetensors file"):
        build_network(recipe(**TERNARY, init=str(tmp_path / "cut.safetensors")))


def test_the_weights_of_a_float_run_are_float_weights(tmp_path: Path) -> None:
    weights = run(tmp_path, {"epochs": 1, "schedule": {"name": "cosine", "warmup_epochs": 0}}).weights
    net = build_network(recipe(method={"name": "twn"}, init=str(weights)))
    latent = net.state_dict()["layer1.0.conv1.parametrizations.weight.original"]
    assert torch.equal(latent, load_file(weights)["layer1.0.conv1.weight"])


def test_the_file_of_another_program_needs_no_recipe(tmp_path: Path, first: Path) -> None:
    save_file(load_file(first), tmp_path / "bare.safetensors")
    with pytest.raises(ModelFileError, match="does not fit this network"):
        build_network(recipe(**TERNARY, init=str(tmp_path / "bare.safetensors")))
