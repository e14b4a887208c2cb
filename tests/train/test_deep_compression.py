"""Deep Compression as a recipe: its stages, its record, and the same bits after being killed in any of them."""

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
from safetensors.torch import load_file, save_file
from tiny import images, recipe, run

import tritkit
from tritkit import compress
from tritkit.errors import ModelFileError, UserError
from tritkit.models import build
from tritkit.train import evaluate, load_trained, read_record
from tritkit.train.stages import make_optimizer

_TINY = Path(__file__).with_name("tiny.py")
_LAYERS = [f"layer{k}.0.conv{c}" for k in (1, 2, 3) for c in (1, 2)]
DEEP: dict[str, Any] = {"deep_compression": {"sparsity": 0.75, "share_epoch": 2, "bits_conv": 4}}
WHOLE: dict[str, Any] = {  # all layers, and activations before and after sharing
    "deep_compression": {"quality": 0.8, "share_epoch": 2, "bits_conv": 3, "bits_fc": 2},
    "exclude": [],
    "activations": {"from_epoch": 1, "calibration_images": 64, "freeze_epoch": 3},
    "bn_images": 64,
    "held_out": 16,
}


def _killed(out: Path, at: int, changes: dict[str, Any]) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(tritkit.__file__).parents[1])}
    command = [sys.executable, str(_TINY), str(out), str(at), json.dumps(changes)]
    assert subprocess.run(command, env=environment, check=False).returncode == -signal.SIGKILL


def _bits(out: Path) -> dict[str, bytes]:
    return {key: value.numpy().tobytes() for key, value in load_file(out / "final.safetensors").items()}


def _rows(out: Path) -> list[dict[str, Any]]:
    apart = ("seconds", "commit")  # the checkout may change while a test runs
    return [{k: v for k, v in row.items() if k not in apart} for row in read_record(out / "record.jsonl")]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("deep")
    run(out, DEEP)
    return out


def test_the_record(finished: Path) -> None:
    _, first, second, third, final = _rows(finished)
    for row in (first, second, third, final):
        assert list(row["layers"]) == _LAYERS
        assert all(layer == {"density": pytest.approx(0.25, abs=1e-3)} for layer in row["layers"].values())
    assert third["train_error"] < first["train_error"]
    sizes = final["sizes"]
    assert list(sizes["layers"]) == _LAYERS
    assert sizes["dense"] > sizes["pruned"] > sizes["shared"] > sizes["huffman"]
    state = load_trained(finished / "final.safetensors")[0].state_dict()
    plain = sum(v.nbytes for key, v in state.items() if "parametrizations" not in key)
    assert sizes["rest"] == plain
    assert sizes["dense"] == sum(v.nbytes for v in build("cifar-resnet8").state_dict().values())


def test_the_weights_come_back(finished: Path) -> None:
    net, loaded = load_trained(finished / "final.safetensors")
    assert loaded == recipe(**DEEP)
    final = _rows(finished)[-1]
    assert evaluate(net, images(64, 1), loaded.mean, loaded.std) == final["test_error"]
    compressed = compress.compress(net)
    assert len(compressed.data) == final["sizes"]["huffman"]
    layers = compress.shared_layers(net)
    assert list(layers) == _LAYERS
    for name in layers:
        values = net.get_submodule(name).weight.unique()
        assert len(values) <= 16
        assert 0 in values
    plain = build("cifar-resnet8")
    plain.load_state_dict(compress.decompress(compressed))
    assert evaluate(plain, images(64, 1), loaded.mean, loaded.std) == final["test_error"]


def test_centroids_train_and_indices_stay(tmp_path: Path, finished: Path) -> None:
    run(tmp_path, {**DEEP, "epochs": 4})
    longer, shorter = load_file(tmp_path / "final.safetensors"), load_file(finished / "final.safetensors")
    key = "layer2.0.conv1.parametrizations.weight"
    assert longer[f"{key}.original"].shape == (15,)
    assert not torch.equal(longer[f"{key}.original"], shorter[f"{key}.original"])


@pytest.mark.parametrize(
    ("changes", "kills"),
    [(DEEP, (4, 14)), (WHOLE, (14,))],  # pruned; two steps after a checkpoint with shared weights
    ids=["plain", "with activations"],
)
def test_killed_in_each_stage(tmp_path: Path, changes: dict[str, Any], kills: tuple[int, ...]) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    result = run(whole, changes)
    for at in kills:
        _killed(cut, at, changes)
    resumed = run(cut, changes)
    assert _bits(cut) == _bits(whole)
    assert _rows(cut) == _rows(whole)
    assert resumed.test_error == result.test_error


def test_the_optimizer_knows_the_centroids() -> None:
    settings = recipe(deep_compression={"sparsity": 0.5, "share_epoch": 1, "centroid_lr": 0.25}, scale_lr=None)
    net = build("cifar-resnet8")
    compress.share_(net, 3, 3, exclude=settings.exclude)
    groups = {group["name"]: group for group in make_optimizer(net, settings).param_groups}
    assert {id(p) for p in groups["centroids"]["params"]} == {id(p) for p in compress.centroids_of(net).values()}
    assert (groups["centroids"]["peak"], groups["centroids"]["weight_decay"]) == (0.25, 0)
    every = [id(p) for group in groups.values() for p in group["params"]]
    assert sorted(every) == sorted(id(p) for p in net.parameters())


def test_it_exports_as_int8_as_its_stripped_network_does(finished: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    example = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    written = []
    for strip in (False, True):
        net, _ = load_trained(finished / "final.safetensors")
        if strip:
            compress.strip_(net)
        report = tritkit.export(net, tmp_path / f"{strip}.onnx", example, calibration=[example])
        assert {row["kind"] for row in report.layers} == {"int8"}
        written.append((tmp_path / f"{strip}.onnx").read_bytes())
    assert len(written[0]) == pytest.approx(len(written[1]), rel=0.05)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"deep_compression": {"sparsity": 0.5}}, "deep_compression.share_epoch is missing"),
        ({"deep_compression": {"share_epoch": 1}}, "either sparsity or quality"),
        ({"deep_compression": {"share_epoch": 1, "quality": 1, "sparsity": 0.1}}, "either sparsity or quality"),
        ({"deep_compression": {"share_epoch": 4, "quality": 1}}, "share_epoch is 4; the run has 3 epochs"),
        ({"deep_compression": {"share_epoch": 1, "sparsity": 1}}, "sparsity is 1"),
        ({"deep_compression": {"share_epoch": 1, "sparsity": 0.5, "bits_conv": 9}}, "bits_conv is 9"),
        (
            {"deep_compression": {"share_epoch": 1, "bits": 5}},
            "unknown key 'deep_compression.bits'; allowed: bits_conv",
        ),
        ({**DEEP, "method": {"name": "twn"}}, "method and deep_compression"),
        ({**DEEP, "snap_scales": True}, "set method"),
        ({**DEEP, "exclude": ["fc"]}, "'fc' matches no"),
        ({"deep_compression": {"share_epoch": 1, "quality": 50}}, "would lose all"),
    ],
)
def test_mistakes(tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        run(tmp_path, changes)
    assert not list(tmp_path.iterdir())


def test_weights_that_do_not_fit_are_refused(finished: Path, tmp_path: Path) -> None:
    from safetensors import safe_open

    with safe_open(finished / "final.safetensors", framework="pt") as file:
        metadata = file.metadata()
    key = "layer1.0.conv1.parametrizations.weight"
    good = load_file(finished / "final.safetensors")
    index, centroids = good[f"{key}.0.index"], good[f"{key}.original"]
    for name, value, sentence in [
        (f"{key}.0.index", index + 15, "but only 15 centroids"),
        (f"{key}.0.index", index[:1].clone(), "needs uint8 values of the shape"),
        (f"{key}.0.index", index.float(), "needs uint8 values"),
        (f"{key}.original", centroids[:14].clone(), "14 centroids; there must be"),
    ]:
        save_file({**good, name: value}, tmp_path / "w.safetensors", metadata)
        with pytest.raises(ModelFileError, match=sentence):
            load_trained(tmp_path / "w.safetensors")
