"""`tritkit report` and `tritkit compare`: outputs, mistakes, and other networks than the packaged one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import safetensors.torch
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from report_examples import Page

import tritkit
from tritkit.methods import FGQ, TTQ
from tritkit.models import build, load_float
from tritkit.zoo import hub, sample

Cli = Callable[..., tuple[int, str, str]]
NAME = "resnet20-cifar10-ternary"


def test_report_prints_json_and_writes_pages(cli: Cli, tmp_path: Path) -> None:
    page, text = tmp_path / "r.html", tmp_path / "r.md"
    code, out, err = cli("report", NAME, "--data", "sample", "-o", page, "--markdown", text, "--threads", 1, "--json")
    assert code == 0, err
    facts = json.loads(out)
    assert facts["accuracy"]["images"] == 1000
    assert facts["accuracy"]["wrong"] == 82
    for key, exact, _, _ in Page(page.read_text()).facts:
        value: Any = facts
        for part in key.split("."):
            value = value[int(part)] if isinstance(value, list) else value[part]
        assert json.loads(exact) == value
    assert facts["verdict"]["sentence"].split(" (")[0] in text.read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r.html", "r.md"]


def test_the_float_parent_sees_images_normalised_as_its_own_file_says(cli: Cli) -> None:
    """Not as the ternary file says: 9.7 % of the sample, as every other command counts."""
    code, out, err = cli("report", NAME, "--data", "sample", "--float", "resnet20-cifar10-float", "--json")
    assert code == 0, err
    found = json.loads(out)["accuracy"]
    net = build("cifar-resnet20").eval()
    metadata = load_float(hub("resnet20-cifar10-float"), net)
    mean, std = (
        np.array(metadata[key].split(","), np.float32).reshape(1, 3, 1, 1)
        for key in ("normalize_mean", "normalize_std")
    )
    pixels, labels, _ = sample("test")
    with torch.no_grad():
        says = net(torch.from_numpy((pixels / np.float32(255) - mean) / std)).numpy().argmax(1)
    assert found["float_wrong"] == np.count_nonzero(says != labels) == 97


def test_report_without_outputs_says_the_verdict(cli: Cli) -> None:
    code, out, _ = cli("report", NAME, "--threads", 1)
    assert code == 0
    assert out.startswith(f"{NAME} is 12.5 times smaller than as float32")
    assert "not measured: how much faster it is than other engines" in out
    assert "?" not in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nothing.onnx",), "no file nothing.onnx"),
        ((NAME, "-o", "/no/such/folder/r.html"), "create it first"),
        ((NAME, "-o", "/dev/null"), "no plain file"),
        ((NAME, "--float", "weights.safetensors"), "give --data"),
        ((NAME, "--data", "sample", "--float", "weights.safetensors"), "no weights at weights.safetensors"),
        ((NAME, "--run", "no-run"), "no run record no-run"),
        ((NAME, "--bench", "no.json"), "no bench no.json"),
        ((NAME, "--data", "/no/such/data"), "/no/such/data"),
        (("resnet20-cifar10-float",), "tritkit export"),
    ],
)
def test_mistakes_are_one_sentence(cli: Cli, words: tuple[str, ...], said: str) -> None:
    code, out, err = cli("report", *words)
    assert (code, out) == (2, "")
    assert said in err
    assert err.count("\n") <= 3


def test_a_float_network_of_another_depth_is_refused(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    tensors = {key: value.contiguous() for key, value in build("cifar-resnet8").state_dict().items()}
    safetensors.torch.save_file(tensors, path, {"normalize_mean": "0.5,0.5,0.5", "normalize_std": "1,1,1"})
    code, _, err = cli("report", NAME, "--data", "sample", "--float", path, "--threads", 1)
    assert code == 2
    assert "another network" in err
    assert "'layer1.1.conv1'" in err


def test_the_network_itself_is_not_overwritten(cli: Cli, network: Path, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    shutil.copyfile(network, path)
    for command in ("report", "pack"):
        code, _, err = cli(command, path, "-o", path)
        assert (code, "give another name" in err) == (2, True)
    assert path.read_bytes() == network.read_bytes()


def test_damaged_files_are_refused_and_write_nothing(cli: Cli, network: Path, tmp_path: Path) -> None:
    whole = network.read_bytes()
    path, page = tmp_path / "cut.onnx", tmp_path / "r.html"
    for cut in (whole[: len(whole) // 2], whole[:7], b"", b"\x00" * 100):
        path.write_bytes(cut)
        code, _, err = cli("report", path, "-o", page)
        assert code == 2, err
        assert not page.exists()


class Small(torch.nn.Module):
    """A grouped convolution, a 1 × 1 one, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Conv2d(3, 8, 3, padding=1)
        self.second = torch.nn.Conv2d(8, 8, 3, groups=2, padding=1)
        self.third = torch.nn.Conv2d(8, 4, 1)
        self.fc = torch.nn.Linear(4 * 36, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.second(torch.relu(self.first(x))))
        return self.fc(torch.relu(self.third(x)).flatten(1))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The same network ternary by TTQ and in groups, an all-zero filter in each."""
    made = []
    for i, method in enumerate((TTQ(init="data"), FGQ(group_size=2))):
        torch.manual_seed(i)
        net = Small().eval()
        with torch.no_grad():
            net.second.weight[3] = 0
        tritkit.ternarize_(net, method, exclude=["first"])
        example = torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(1))
        path = tmp_path_factory.mktemp("small") / f"small{i}.onnx"
        tritkit.export(net, path, example, calibration=[example])
        made.append(path)
    return made


def test_report_of_networks_of_other_forms(cli: Cli, small: list[Path], tmp_path: Path) -> None:
    for path in small:
        code, out, err = cli("report", path, "--json", "-o", tmp_path / "r.html", "--threads", 1)
        assert code == 0, err
        facts = json.loads(out)
        assert [row["name"] for row in facts["kernels"]["layers"]] == ["second"]
        assert facts["kernels"]["empty_outputs"] == 1
        assert [row["name"] for row in facts["operations"]["layers"]] == ["first", "second", "third", "fc"]


def test_data_of_another_shape_is_refused(cli: Cli, small: list[Path]) -> None:
    code, _, err = cli("report", small[0], "--data", "sample")
    assert code == 2
    assert "CIFAR-10" in err


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Five classes of four pictures, in ImageNet's layout, and a file that is none."""
    for k in range(20):
        for split in ("train", "val"):
            folder = tmp_path / "photographs" / split / f"n{k // 4}"
            folder.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(k).integers(0, 256, (9, 12, 3), np.uint8)
            Image.fromarray(pixels).save(folder / f"{k}.png")
    (tmp_path / "photographs" / "val" / "n3" / "broken.png").write_bytes(b"no picture")
    return tmp_path / "photographs"


def test_data_may_be_a_folder_of_pictures(cli: Cli, photographs: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = Small().eval()
    tritkit.ternarize_(net, TTQ(init="data"), exclude=["first"])
    example = torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    info = {"mean": [0.5] * 3, "std": [0.25] * 3, "classes": [f"c{k}" for k in range(5)], "short_side": 8}
    path = tmp_path / "net.onnx"
    tritkit.export(net, path, example, calibration=[example], input_info=info)
    code, out, _ = cli("eval", path, "--data", photographs, "--bad-pictures", "skip", "--workers", 0, "--json")
    assert code == 0
    wrong = json.loads(out)["wrong"]
    code, out, err = cli("report", path, "--data", photographs, "--threads", 1, "-o", tmp_path / "r.html", "--json")
    assert code == 0, err
    found = json.loads(out)["accuracy"]
    assert (found["images"], found["wrong"]) == (20, wrong)
    assert [row["name"] for row in found["classes"]] == info["classes"]
    assert "left out: " in err
    assert "broken.png" in err
    code, out, _ = cli("compare", path, path, "--data", photographs, "--threads", 1, "--seconds", 0, "--json")
    assert code == 0
    assert json.loads(out)["accuracy"]["a_error"] == wrong / 20
    code, _, err = cli("report", path, "--data", "/no/such/folder")
    assert code == 2
    assert "no folder /no/such/folder" in err


@pytest.mark.parametrize("ternary", [False, True])
def test_report_of_a_network_of_another_tool(cli: Cli, tmp_path: Path, ternary: bool) -> None:
    """Not ours, floats that may be ternary: sizes and codes remain, the engine's word stands for the rest."""
    random = np.random.default_rng(0)
    weight = random.choice([-0.5, 0, 0.25], (4, 3, 3, 3)) if ternary else random.standard_normal((4, 3, 3, 3))
    weight = weight.astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"], name="c"), helper.make_node("Sigmoid", ["y"], ["z"], name="s")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, [1, 4, 6, 6])],
        [numpy_helper.from_array(weight, "w")],
    )
    path = tmp_path / "float.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
    code, out, err = cli("report", path, "--json", "-o", tmp_path / "r.html")
    assert code == 0, err
    facts = json.loads(out)
    assert facts["times"] is None
    assert (facts["kernels"] is not None) == ternary
    assert facts["densities"]["layers"][0]["density"] == np.count_nonzero(weight) / weight.size
    assert (
        facts["verdict"]["sentence"]
        == f"float is no smaller than as float32 ({path.stat().st_size} B instead of 448 B)."
    )
    assert any("does not run it" in row["how"] for row in facts["verdict"]["missing"])


# ---- compare


def test_a_file_is_like_itself(cli: Cli) -> None:
    code, out, err = cli("compare", NAME, NAME, "--data", "sample", "--threads", 1, "--seconds", "0.05", "--json")
    assert code == 0, err
    facts = json.loads(out)
    assert facts["accuracy"]["same_bits"]
    assert facts["accuracy"]["agree"] == 1
    assert facts["accuracy"]["a_error"] == facts["accuracy"]["b_error"] == pytest.approx(0.082)
    assert facts["accuracy"]["chance"] == 1
    assert facts["bytes_ratio"] == 1
    assert 0.2 < facts["time_ratio"] < 5
    assert len(facts["layers"]) == 20
    assert {row["same_codes"] for row in facts["layers"]} == {1.0, None}
    assert all(row["a"]["microseconds"] > 0 for row in facts["layers"])


def test_compare_models_by_layer(cli: Cli, small: list[Path]) -> None:
    code, out, err = cli("compare", *small, "--seconds", 0, "--json")
    assert code == 0, err
    facts = json.loads(out)
    rows = {row["name"]: row for row in facts["layers"]}
    assert rows["second"]["a"]["method"] == "ttq"
    assert rows["second"]["b"]["method"] == "fgq"
    assert 0 < rows["second"]["same_codes"] < 1
    assert facts["time_ratio"] is None
    code, out, _ = cli("compare", *small, "--seconds", "0.01", "--threads", 1)
    assert code == 0
    assert "same codes" in out


def test_compare_layers_that_only_one_has(cli: Cli, small: list[Path]) -> None:
    code, out, _ = cli("compare", NAME, small[0], "--seconds", 0, "--json")
    assert code == 0
    rows = {row["name"]: row for row in json.loads(out)["layers"]}
    assert rows["linear"]["b"] is None
    assert rows["fc"]["a"] is None
    assert rows["fc"]["same_codes"] is None


def test_compare_runs(cli: Cli, run_folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(run_folder, other)
    text = (other / "record.jsonl").read_text()
    changed = text.replace('"name": "small"', '"name": "big"').replace('"test_error": 0.125', '"test_error": 0.5')
    (other / "record.jsonl").write_text(changed)
    code, out, err = cli("compare", run_folder, other / "record.jsonl", "--json")
    assert code == 0, err
    facts = json.loads(out)
    assert facts["differences"] == [{"key": "name", "a": "small", "b": "big"}]
    assert (facts["a"]["test_error"], facts["b"]["test_error"]) == (0.125, 0.5)
    assert facts["layers"][0]["a"] == {"wp": pytest.approx(0.3), "wn": 0.2, "threshold": 0.05, "density": 0.5 / 3}
    code, out, _ = cli("compare", run_folder, other)
    assert code == 0
    assert "Their recipes differ in:" in out


@pytest.mark.parametrize("sides", [("RUN", NAME), (NAME, "RUN"), (NAME, "no.onnx"), ("RUN", "none/record.jsonl")])
def test_what_cannot_be_compared(cli: Cli, sides: tuple[str, str], run_folder: Path) -> None:
    code, out, err = cli("compare", *(str(run_folder) if side == "RUN" else side for side in sides), "--seconds", 0)
    assert (code, out) == (2, "")
    assert err.startswith("tritkit: ")
