"""`doctor`: finds each planted fault where it was planted, says nothing about healthy networks."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from planting import PLANTED, Planted, silenced, small_images

import tritkit
from tritkit.cli.app import run_app
from tritkit.deploy import from_onnx, to_onnx
from tritkit.deploy import graph as g
from tritkit.diagnosis import FAULT, KINDS, Finding, diagnose, grouped
from tritkit.errors import ModelFileError, UserError
from tritkit.methods import BWN, FGQ, TTQ
from tritkit.models import build, load_float
from tritkit.post import FAITHFUL
from tritkit.train import make_recipe
from tritkit.zoo import hub, sample

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def _images(count: int) -> np.ndarray:
    pixels = sample("test").images[:: 1000 // count][:count].astype(np.float32) / np.float32(255)
    mean, std = (np.array(v, np.float32).reshape(1, 3, 1, 1) for v in (MEAN, STD))
    return np.ascontiguousarray((pixels - mean) / std)


IMAGES = _images(32)


def _images_for(planted: Planted, path: Path) -> np.ndarray:
    if planted.place.startswith(("conv", "hidden")):
        side = tritkit.Session(path).inputs[0].shape[-1]
        assert side is not None
        return small_images(side).numpy()
    return IMAGES


@pytest.mark.parametrize("planted", PLANTED, ids=lambda p: p.kind)
def test_finds_what_was_planted(planted: Planted, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    planted.write(path)
    found = diagnose(path, _images_for(planted, path))
    assert (planted.kind, planted.place) in {(f.kind, f.place) for f in found.findings}
    assert {f.kind for f in found.findings} <= {planted.kind, *planted.with_it}
    assert found.healthy == (KINDS[planted.kind] != FAULT and all(f.severity != FAULT for f in found.findings))
    finding = next(f for f in found.findings if f.kind == planted.kind)
    assert finding.what and finding.cost and finding.fix  # noqa: PT018
    assert finding.numbers


def test_costs_are_those_of_the_plant(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    by_kind = {p.kind: p for p in PLANTED}
    by_kind["empty-filters"].write(path)
    (finding,) = diagnose(path).findings
    # layer3.0.conv1 has 64 filters of 288 weights; every third was emptied, one of the others was empty before
    assert finding.numbers["filters"] in (22, 23, 24)
    assert finding.numbers["bytes"] == finding.numbers["filters"] * 288 / 4
    by_kind["dead-layer"].write(path)
    (finding,) = diagnose(path).findings
    assert finding.numbers["density"] == 0


@pytest.mark.parametrize("images", [None, IMAGES])
def test_packaged_network_is_healthy(images: np.ndarray | None) -> None:
    report = diagnose(hub("resnet20-cifar10-ternary"), images)
    assert report.findings == ()
    assert report.healthy
    assert ("activations" in report.looked_at) == (images is not None)


def test_network_made_without_training_is_healthy(tmp_path: Path) -> None:
    net = build("cifar-resnet20")
    load_float(hub("resnet20-cifar10-float"), net)
    calibration = [torch.from_numpy(_images(250)[:128])]
    quantized = tritkit.quantize(net.eval(), FGQ(group_size=4), calibration, steps=FAITHFUL)
    tritkit.export(quantized, tmp_path / "net.onnx", calibration[0][:1], check=False)
    assert diagnose(tmp_path / "net.onnx", IMAGES).findings == ()


def test_binary_methods_are_dense_by_design(tmp_path: Path) -> None:
    net = build("cifar-resnet8").eval()
    tritkit.ternarize_(net, BWN(), exclude=["conv1", "linear"])
    example = torch.from_numpy(IMAGES[:16])
    tritkit.export(net, tmp_path / "net.onnx", example, calibration=[example], check=False)
    assert "dense-layer" not in {f.kind for f in diagnose(tmp_path / "net.onnx").findings}


def test_a_quarter_of_dead_channels_is_no_fault(tmp_path: Path) -> None:
    """The published float ResNet-56 has as many in its layer1.0.conv1."""
    for dead, kinds in ((16, set()), (22, {"dead-channels"})):
        path = tmp_path / f"{dead}.onnx"
        silenced("layer3.0.conv1", dead)(path)
        assert {f.kind for f in diagnose(path, IMAGES).findings} == kinds


def test_negative_scale_in_trained_weights(tmp_path: Path) -> None:
    torch.manual_seed(0)
    values = {"name": "t", "model": "cifar-resnet8", "dataset": "cifar10", "method": {"name": "ttq"}}
    net = build("cifar-resnet8")
    tritkit.ternarize_(net, TTQ(), exclude=list(make_recipe(values).exclude))
    path = tmp_path / "final.safetensors"
    safetensors.torch.save_file(net.state_dict(), path, {"recipe": json.dumps(values)})
    assert diagnose(path).findings == ()
    with torch.no_grad():
        net.layer2[0].conv1.parametrizations.weight[0].scale_neg.fill_(-0.03)
    safetensors.torch.save_file(net.state_dict(), path, {"recipe": json.dumps(values)})
    (finding,) = diagnose(path).findings
    assert (finding.kind, finding.place) == ("scale-sign", "layer2.0.conv1")
    assert "-0.03" in finding.what


# ---- the command


@pytest.fixture
def doctor(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str, str]]:
    monkeypatch.setenv("COLUMNS", "80")

    def call(*words: object) -> tuple[int, str, str]:
        capfd.readouterr()
        code = run_app(["doctor", *map(str, words)])
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return call


def test_exit_codes_and_json(doctor: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    by_kind = {p.kind: p for p in PLANTED}
    path = tmp_path / "net.onnx"
    by_kind["dead-layer"].write(path)
    code, out, _ = doctor(path, "--data", "sample", "--json")
    facts = json.loads(out)
    assert code == 1
    assert facts["healthy"] is False
    assert [f["kind"] for f in facts["findings"]] == ["dead-layer"]
    code, out, _ = doctor(path)
    assert code == 1
    assert "1 fault;" in out
    assert max(map(len, out.replace(str(path), "").splitlines())) <= 80
    by_kind["int8-bytes"].write(path)
    code, out, _ = doctor(path)
    assert code == 0
    assert "healthy, but 1 waste of bytes or time" in out
    code, out, _ = doctor("resnet20-cifar10-ternary")
    assert code == 0
    assert "healthy; looked at weights" in out


def test_findings_of_one_kind_are_one_group_with_the_sum_of_their_costs() -> None:
    costs = {"a": (10, 0.5), "b": (30, 0.25), "c": (20, 0.75)}
    found = [
        Finding("collapsed-scale", at, f"what {at}", f"cost {at}", "fix", {"weights": n, "share_of_nonzero": part})
        for at, (n, part) in costs.items()
    ]
    found.insert(1, Finding("wide-range", "x", "what x", "cost x", "fix", {"codes_used": 60.0, "bits_lost": 2.1}))
    found.append(Finding("wide-range", "y", "what y", "cost y", "fix", {"codes_used": 8.0, "bits_lost": 5.0}))
    scales, ranges = grouped(found)
    assert (scales.places, scales.worst.place, scales.cost) == (("b", "c", "a"), "b", "60 weights in all; in b cost b")
    assert (ranges.places, ranges.cost) == (("y", "x"), "in y cost y")
    (alone,) = grouped(found[:1])
    assert alone.cost == "cost a"


def test_the_command_groups_what_its_json_lists(doctor: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    graph = from_onnx(hub("resnet20-cifar10-ternary"))
    dead = ("layer1.0.conv1", "layer2.1.conv2", "layer3.0.conv1")
    nodes = tuple(
        replace(n, weight=replace(n.weight, codes=np.zeros_like(n.weight.codes)))
        if isinstance(n, g.QConv) and n.name in dead
        else n
        for n in graph.nodes
    )
    path = tmp_path / "net.onnx"
    path.write_bytes(to_onnx(replace(graph, nodes=nodes)).SerializeToString())
    _, out, _ = doctor(path, "--json")
    assert sorted(f["place"] for f in json.loads(out)["findings"]) == sorted(dead)
    code, out, _ = doctor(path)
    assert code == 1
    assert out.count("dead-layer") == 1
    assert "3 layers" in out
    assert all(name in out for name in dead)
    share = (16 * 16 * 9 + 32 * 32 * 9 + 32 * 64 * 9) / 270_896  # of all weights, first layer and classifier too
    assert f"{100 * share:.0f} % of the network's weights in all" in " ".join(out.split())
    assert "3 faults;" in out


def test_few_images_are_not_judged_by() -> None:
    report = diagnose(hub("resnet20-cifar10-ternary"), np.zeros((15, 3, 32, 32), np.float32))
    assert report.findings == ()
    assert report.looked_at == ("weights", "bytes", "speed")
    assert "15 images say too little" in report.not_looked_at["activations"]


def test_images_of_a_folder(doctor: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    """CIFAR-10, whose files may be pictures themselves, or pictures, of all folders alike."""
    pixels, labels, _ = sample("test")
    records = np.concatenate([labels.astype(np.uint8)[:, None], pixels.reshape(1000, -1)], axis=1)
    (tmp_path / "cifar").mkdir()
    (tmp_path / "cifar" / "test_batch.bin").write_bytes(records.tobytes() * 10)
    Image.new("RGB", (64, 64)).save(tmp_path / "cifar" / "cover.png")
    code, out, _ = doctor("resnet20-cifar10-ternary", "--data", tmp_path / "cifar", "--json")
    assert (code, json.loads(out)["images"]) == (0, 256)
    for k in range(10):
        (tmp_path / "pictures" / str(k)).mkdir(parents=True)
        for i in range(60):
            place = tmp_path / "pictures" / str(k) / f"{i}.png"
            Image.fromarray(pixels[100 * k + i].transpose(1, 2, 0)).save(place)
    code, out, _ = doctor("resnet20-cifar10-ternary", "--data", tmp_path / "pictures", "--json")
    assert (code, json.loads(out)["findings"]) == (0, [])
    (tmp_path / "empty").mkdir()
    code, _, err = doctor("resnet20-cifar10-ternary", "--data", tmp_path / "empty")
    assert code == 2
    assert "neither pictures nor CIFAR-10" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["none.onnx"], "no file none.onnx"),
        (["--data", "sample"], "--data is for a model"),
        (["resnet20-cifar10-ternary", "--data", "/nowhere.npy"], "no image /nowhere.npy"),
        (["resnet20-cifar10-float", "--data", "sample"], "--data needs a network exported by tritkit"),
    ],
)
def test_mistakes_are_one_sentence(words: list[str], said: str, doctor: Callable[..., tuple[int, str, str]]) -> None:
    code, out, err = doctor(*words)
    assert (code, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1


def test_bad_files_and_images(tmp_path: Path) -> None:
    path = tmp_path / "cut.onnx"
    path.write_bytes(hub("resnet20-cifar10-ternary").read_bytes()[:5000])
    with pytest.raises(ModelFileError, match=r"cut\.onnx"):
        diagnose(path)
    for wrong in (IMAGES[:0], IMAGES[:, :2], IMAGES.astype(np.float64)):
        with pytest.raises(UserError, match=r"takes float32 images \[N, 3, 32, 32\]"):
            diagnose(hub("resnet20-cifar10-ternary"), wrong)
    with pytest.raises(UserError, match="NaN"):
        diagnose(hub("resnet20-cifar10-ternary"), np.full_like(IMAGES, np.nan))
