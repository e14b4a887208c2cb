"""`inspect`: ternary weights are recognised in files of other tools, and come out of every file as they are."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import tritkit
from tritkit.cli.app import run_app
from tritkit.deploy import from_onnx
from tritkit.deploy import graph as g
from tritkit.errors import ModelFileError
from tritkit.inspection import inspect_file, read_weights
from tritkit.inspection.saving import c_header, npz
from tritkit.methods import FGQ, TTQ
from tritkit.models import build
from tritkit.train import make_recipe
from tritkit.zoo import hub

RNG = np.random.default_rng(0)
CODES = RNG.choice([-1, 0, 1], (6, 4, 3, 3)).astype(np.int8)
PLUS, MINUS = RNG.uniform(0.1, 1, 6).astype(np.float32), RNG.uniform(0.1, 1, 6).astype(np.float32)
EACH = (6, 1, 1, 1)


def _dequantized(plus: np.ndarray, minus: np.ndarray) -> np.ndarray:
    p, n = (np.reshape(v, EACH if np.size(v) == 6 else (1, 1, 1, 1)) for v in (plus, minus))
    return np.where(CODES > 0, p, np.where(CODES < 0, -n, 0)).astype(np.float32)


def _file(
    path: Path, node: onnx.NodeProto, *tensors: onnx.TensorProto, before: tuple[onnx.NodeProto, ...] = ()
) -> Path:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, None)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([*before, node], "other", [x], [y], list(tensors))
    path.write_bytes(helper.make_model(graph, producer_name="other tool").SerializeToString())
    return path


@pytest.mark.parametrize("form", ["raw", "float_data", "float16"])
@pytest.mark.parametrize("per", ["tensor", "channel"])
def test_float_convolution_of_another_tool(form: str, per: str, tmp_path: Path) -> None:
    plus, minus = (PLUS, MINUS) if per == "channel" else (PLUS[:1], MINUS[:1])
    weight = _dequantized(plus, minus)
    if form == "raw":
        tensor = numpy_helper.from_array(weight, "w")
    elif form == "float_data":
        tensor = helper.make_tensor("w", TensorProto.FLOAT, weight.shape, weight.reshape(-1).tolist())
    else:
        weight = weight.astype(np.float16).astype(np.float32)
        tensor = helper.make_tensor("w", TensorProto.FLOAT16, weight.shape, weight.reshape(-1).tolist())
    path = _file(tmp_path / "m.onnx", helper.make_node("Conv", ["x", "w"], ["y"], "conv"), tensor)
    (layer,) = read_weights(path)
    assert layer.kind == "ternary"
    assert np.array_equal(layer.values, CODES)
    assert np.array_equal(layer.dequantized(), weight)
    (row,) = inspect_file(path)["layers"]
    assert row["density"] == np.count_nonzero(CODES) / CODES.size
    assert row["bits"] == (16 if form == "float16" else 32)
    assert np.allclose(row["wp"], plus if per == "channel" else plus[0], rtol=1e-3)


def test_matmul_and_gemm_are_read_with_outputs_first(tmp_path: Path) -> None:
    weight = _dequantized(PLUS, MINUS).reshape(6, -1)
    for node, stored in (
        (helper.make_node("MatMul", ["x", "w"], ["y"], "fc"), weight.T),
        (helper.make_node("Gemm", ["x", "w"], ["y"], "fc"), weight.T),
        (helper.make_node("Gemm", ["x", "w"], ["y"], "fc", transB=1), weight),
    ):
        tensor = numpy_helper.from_array(np.ascontiguousarray(stored), "w")
        (layer,) = read_weights(_file(tmp_path / "m.onnx", node, tensor))
        assert np.array_equal(layer.dequantized(), weight)
        assert layer.kind == "ternary"


@pytest.mark.parametrize("zero", [0, 7])
def test_int8_behind_dequantize(zero: int, tmp_path: Path) -> None:
    stored = (CODES * 50 + zero).astype(np.int8)
    tensors = [
        numpy_helper.from_array(stored, "q"),
        numpy_helper.from_array(PLUS, "s"),
        numpy_helper.from_array(np.full(6, zero, np.int8), "z"),
    ]
    before = (helper.make_node("DequantizeLinear", ["q", "s", "z"], ["w"], axis=0),)
    node = helper.make_node("Conv", ["x", "w"], ["y"], "conv")
    (layer,) = read_weights(_file(tmp_path / "m.onnx", node, *tensors, before=before))
    assert layer.kind == "ternary"
    assert np.array_equal(layer.values, CODES)
    assert np.allclose(layer.dequantized(), CODES * 50 * PLUS.reshape(EACH), rtol=1e-6)


def test_what_is_not_ternary_is_not_called_so(tmp_path: Path) -> None:
    others = [
        RNG.normal(size=(6, 4, 3, 3)).astype(np.float32),
        np.full((6, 4, 3, 3), 0.5, np.float32),  # one value, no zero
        _dequantized(PLUS, MINUS) + (np.arange(9).reshape(3, 3) == 4) * np.float32(0.01),
        np.where(CODES > 0, np.float32(np.nan), np.float32(0)),
    ]
    for values in others:
        node = helper.make_node("Conv", ["x", "w"], ["y"], "conv")
        (layer,) = read_weights(_file(tmp_path / "m.onnx", node, numpy_helper.from_array(values, "w")))
        assert layer.kind == "float"


def test_a_scale_that_changed_its_sign_is_seen(tmp_path: Path) -> None:
    weight = _dequantized(np.float32(0.3), np.float32(-0.1))  # both values above zero
    node = helper.make_node("Conv", ["x", "w"], ["y"], "conv")
    path = _file(tmp_path / "m.onnx", node, numpy_helper.from_array(weight, "w"))
    (layer,) = read_weights(path)
    assert np.array_equal(layer.values, CODES)
    assert np.array_equal(layer.dequantized(), weight)
    from tritkit.diagnosis import diagnose

    assert {f.kind for f in diagnose(path).findings} == {"scale-sign", "float-bytes"}


def test_our_file_gives_what_the_graph_has() -> None:
    path = hub("resnet20-cifar10-ternary")
    found = {layer.name: layer for layer in read_weights(path)}
    nodes = [node for node in from_onnx(path).layers() if isinstance(node, (g.QConv, g.QGemm))]
    assert len(nodes) == len(found) == 20
    for node in nodes:
        layer = found[node.name]
        scale = node.w_scale.reshape(-1, *[1] * (layer.values.ndim - 1))
        assert np.array_equal(layer.dequantized(), (node.weight.integers() * scale).astype(np.float32))


def test_training_files_give_the_codes_of_the_network(tmp_path: Path) -> None:
    torch.manual_seed(0)
    values = {"name": "t", "model": "cifar-resnet8", "dataset": "cifar10", "method": {"name": "ttq"}}
    recipe, net = make_recipe(values), build("cifar-resnet8")
    tritkit.ternarize_(net, TTQ(init="data"), exclude=list(recipe.exclude))
    final, checkpoint = tmp_path / "final.safetensors", tmp_path / "checkpoint.pt"
    safetensors.torch.save_file(net.state_dict(), final, {"recipe": json.dumps(values)})
    state = {"recipe": recipe.model_dump(mode="json"), "net": net.state_dict(), "quantized": False, "step": 7}
    torch.save(state, checkpoint)
    expected = {name: value for name, _, value in tritkit.named_ternary(net)}
    for path in (final, checkpoint):
        found = {layer.name: layer for layer in read_weights(path) if layer.kind == "ternary"}
        assert found.keys() == expected.keys()
        for name, layer in found.items():
            assert np.array_equal(layer.values, expected[name].codes.numpy())
            assert np.array_equal(layer.dequantized(), expected[name].dequantize().numpy())
            assert layer.method == "ttq"
    assert inspect_file(checkpoint)["metadata"] == {"recipe": "t", "step": "7"}
    checkpoint.write_bytes(checkpoint.read_bytes()[:-200])
    with pytest.raises(ModelFileError, match="checkpoint"):
        inspect_file(checkpoint)


class _Harmful:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("harm"),)  # type: ignore[return-value]


def test_a_checkpoint_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"recipe": _Harmful()}, tmp_path / "checkpoint.pt")
    with pytest.raises(ModelFileError):
        inspect_file(tmp_path / "checkpoint.pt")
    assert not (tmp_path / "harm").exists()


# ---- saving


def _grouped(path: Path) -> Path:
    net = torch.nn.Sequential(torch.nn.Conv2d(6, 5, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(180, 3))
    tritkit.ternarize_(net, FGQ(4), include=["0"])
    x = torch.randn(4, 6, 8, 8, generator=torch.Generator().manual_seed(0))
    tritkit.export(net.eval(), path, x, calibration=[x], check=False)
    return path


def test_npz_holds_the_weights(tmp_path: Path) -> None:
    path = _grouped(tmp_path / "g.onnx")
    layer = next(layer for layer in read_weights(path) if layer.name == "0")
    (tmp_path / "w.npz").write_bytes(npz(layer))
    saved = np.load(tmp_path / "w.npz", allow_pickle=False)
    plus, minus = (np.repeat(saved[side], 4, axis=1)[:, :6].astype(np.float32) for side in ("plus", "minus"))
    codes, scale = saved["codes"], saved["scale"].reshape(-1, 1, 1, 1)
    weight = np.where(codes > 0, plus, np.where(codes < 0, -minus, 0)) * scale
    assert np.array_equal(weight.astype(np.float32), layer.dequantized())
    assert saved["plus"].dtype == np.int8
    assert saved["group_size"] == 4


_PROGRAM = """#include <stdio.h>
#include "w.h"
int main(void) {
  const int row = %(row)d;
  for (int o = 0; o < %(name)s_outputs; ++o) {
    for (int k = 0; k < row; ++k) {
      const int code = %(name)s_codes[o * %(name)s_row_bytes + k / 4] >> (k %% 4 * 2) & 3;
      const float side = code == 1 ? %(name)s_plus[o] : code == 3 ? -%(name)s_minus[o] : 0;
      printf("%%.9g\\n", (double)(side * %(name)s_scale[o]));
    }
  }
  return 0;
}
"""


def test_c_header_compiles_and_holds_the_weights(tmp_path: Path) -> None:
    layers = {layer.name: layer for layer in read_weights(hub("resnet20-cifar10-ternary"))}
    layer = layers["layer1.0.conv1"]
    (tmp_path / "w.h").write_text(c_header(layer))
    (tmp_path / "int8.h").write_text(c_header(layers["conv1"]))
    source = '#include "int8.h"\n' + _PROGRAM % {"row": layer.rows().shape[1], "name": "w_layer1_0_conv1"}
    (tmp_path / "p.c").write_text(source)
    cc = shutil.which("cc")
    assert cc, "there is no C compiler"
    words = [cc, "-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "p.c", "-o", "p"]
    subprocess.run(words, cwd=tmp_path, check=True)
    out = subprocess.run([str(tmp_path / "p")], capture_output=True, text=True, check=True).stdout
    assert np.array_equal(np.array(out.split(), np.float32), layer.dequantized().reshape(-1))


def test_names_from_a_file_cannot_leave_the_comment() -> None:
    (layer, *_) = read_weights(hub("resnet20-cifar10-ternary"))
    from dataclasses import replace

    text = c_header(replace(layer, name='a*/\n#include "/etc/passwd"\\\n??/'))
    assert [line for line in text.splitlines() if line.startswith("#include")] == ["#include <stdint.h>"]
    assert text.splitlines()[0].count("*/") == 1


def test_the_command(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    name = "resnet20-cifar10-ternary"
    assert run_app(["inspect", name, "--weights", "layer1.0.conv1"]) == 0
    out = capfd.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    assert "more filters" in out
    assert run_app(["inspect", name, "--weights", "linear", "--json"]) == 0
    facts = json.loads(capfd.readouterr().out)
    assert np.array(facts["values"]).shape == (10, 64)
    for words, said in (
        (["--weights", "nothing"], "no layer 'nothing'"),
        (["--weights", "conv1", "-o", str(tmp_path / "w.txt")], "allowed: .npz (NumPy), .h (C)"),
        (["-o", str(tmp_path / "w.npz")], "--weights LAYER"),
        (["--weights", "conv1", "-o", str(tmp_path / "no" / "w.npz")], "does not exist"),
    ):
        assert run_app(["inspect", name, *words]) == 2
        error = capfd.readouterr().err
        assert said in error
        assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=200, derandomize=True, deadline=None)
@given(st.data())
def test_damaged_files_of_other_tools_are_refused_or_read(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "other.onnx"
    tensors = [helper.make_tensor("q", TensorProto.INT8, CODES.shape, CODES.reshape(-1).tolist())]
    tensors += [numpy_helper.from_array(PLUS, "s")]
    before = (helper.make_node("DequantizeLinear", ["q", "s"], ["w"], axis=0),)
    _file(path, helper.make_node("Conv", ["x", "w"], ["y"], "conv"), *tensors, before=before)
    damaged = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(damaged))
    with contextlib.suppress(ModelFileError):  # anything else fails the test
        read_weights(path)
        json.dumps(inspect_file(path), allow_nan=False)
