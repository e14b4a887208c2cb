"""Group scales on their way into integers: codebooks, batch norm, the file and what it says of itself."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import tritkit
from tritkit.deploy import Reference, from_onnx, graph, lower
from tritkit.deploy.onnx_writer import to_onnx
from tritkit.errors import UserError
from tritkit.inspection import inspect_file
from tritkit.methods import FGQ
from tritkit.observers import MinMax
from tritkit.runtime import Session
from tritkit.surgery import named_ternary

IMAGES = torch.rand(4, 4, 5, 5, generator=torch.Generator().manual_seed(0))


def conv_1x1(weight: list[list[float]], method: FGQ, factor: list[float]) -> graph.QConv:
    """The lowered 1x1 convolution with a batch norm of this factor behind it."""
    rows = torch.tensor(weight)
    conv, norm = nn.Conv2d(rows.shape[1], len(rows), 1, bias=False), nn.BatchNorm2d(len(rows), eps=0.0)
    with torch.no_grad():
        conv.weight.copy_(rows[:, :, None, None])
        norm.weight.copy_(torch.tensor(factor))
    net = nn.Sequential(conv, norm).eval()
    tritkit.ternarize_(net, method)
    images = IMAGES[:, : rows.shape[1]]
    (layer,) = (n for n in lower(net, images, calibration=[images], observer=MinMax()).nodes if hasattr(n, "weight"))
    assert isinstance(layer, graph.QConv)
    return layer


def test_multipliers_are_the_scales_in_units_of_a_64th_of_the_channels_largest() -> None:
    layer = conv_1x1([[2.0, -2.0, 0.5, 0.5], [1.0, 0.0, -4.0, 4.0]], FGQ(2), [1.0, 1.0])
    assert isinstance(layer.weight, graph.TernaryWeight)
    assert layer.weight.group_size == 2
    assert layer.weight.codes[:, :, 0, 0].tolist() == [[1, -1, 1, 1], [1, 0, -1, 1]]
    assert layer.weight.p[:, :, 0, 0].tolist() == layer.weight.n[:, :, 0, 0].tolist() == [[64, 16], [16, 64]]
    np.testing.assert_array_equal(layer.w_scale, np.float32([2 / 64, 4 / 64]))


def test_a_negative_factor_flips_codes_and_swaps_the_sides_of_its_channel() -> None:
    rows = [[2.0, -1.0, 0.5, -4.0]] * 2
    layer = conv_1x1(rows, FGQ(2, scales="separate"), [0.5, -0.5])
    assert isinstance(layer.weight, graph.TernaryWeight)
    assert layer.weight.codes[:, :, 0, 0].tolist() == [[1, -1, 1, -1], [-1, 1, -1, 1]]
    assert layer.weight.p[:, :, 0, 0].tolist() == [[32, 8], [16, 64]]
    assert layer.weight.n[:, :, 0, 0].tolist() == [[16, 64], [32, 8]]
    assert layer.weight.integers()[:, :, 0, 0].tolist() == [[32, -16, 8, -64], [-32, 16, -8, 64]]


def test_a_vanishing_factor_removes_its_channels_codes() -> None:
    layer = conv_1x1([[2.0, -1.0, 0.5, -4.0]] * 2, FGQ(2), [1.0, 0.0])
    assert isinstance(layer.weight, graph.TernaryWeight)
    assert layer.weight.codes[0].any()
    assert not layer.weight.codes[1].any()


def test_groups_of_one_scale_a_channel_are_no_groups() -> None:
    layer = conv_1x1([[2.0, -1.0, 2.0, 0.5]] * 3, FGQ(64), [1.0, 2.0, 3.0])
    assert isinstance(layer.weight, graph.TernaryWeight)
    assert layer.weight.group_size is None
    assert layer.weight.p.tolist() == layer.weight.n.tolist() == [1, 1, 1]


def deep_network(**fields: object) -> nn.Module:
    torch.manual_seed(1)
    net = nn.Sequential(
        nn.Conv2d(4, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 24, 3, groups=2), nn.ReLU(),
        nn.Flatten(), nn.Linear(216, 10),
    )  # fmt: skip
    tritkit.ternarize_(net, FGQ(**fields), exclude=["0"])
    return net.eval()


@pytest.mark.parametrize("fields", [{}, {"group_size": 7, "scales": "separate"}, {"group": "kernels"}], ids=str)
def test_every_flavour_is_written_and_engines_agree(fields: dict[str, object], tmp_path: Path) -> None:
    net, path = deep_network(**fields), tmp_path / "net.onnx"
    for flavour in ("inlined", "qdq", "function"):
        report = tritkit.export(net, path, IMAGES, calibration=[IMAGES], flavour=flavour)
        assert "onnxruntime" in report.checked
    assert "libtritkit" in report.checked
    size = fields.get("group_size", 4)
    assert [(row["kind"], row["group_size"]) for row in report.layers] == [
        ("int8", None), ("ternary", min(8, size)), ("ternary", size),
    ]  # fmt: skip
    read, images = from_onnx(path), IMAGES.numpy()
    with Session(path, threads=1) as session:
        assert np.array_equal(session.run(images), Reference(read).run(images))
    assert to_onnx(read).SerializeToString() == to_onnx(lower(net, IMAGES, calibration=[IMAGES])).SerializeToString()


def test_the_file_takes_two_bits_a_weight_and_one_byte_a_group(tmp_path: Path) -> None:
    path, net = tmp_path / "net.onnx", deep_network()
    tritkit.export(net, path, IMAGES, calibration=[IMAGES], check=False)
    facts = inspect_file(path)
    rows = {row["name"]: row for row in facts["layers"]}
    json.dumps(facts, allow_nan=False)
    assert rows["0"]["group_size"] is None
    for name, _, value in named_ternary(net):
        row, outputs = rows[name], value.codes.shape[0]
        assert (row["kind"], row["method"], row["group_size"]) == ("ternary", "fgq", 4)
        assert row["density"] == value.density
        packed = outputs * -(-value.codes[0].numel() // 4)
        assert row["bytes"] == packed + value.scale_pos.numel() + outputs * 8  # and w_scale and bias


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"group_size": 0}, "group_size must be 1 to its 4 channels, got 0"),
        ({"group_size": 5}, "got 5"),
        ({"group_size": 4}, r"p and n must be \[2, 1, 1, 1\], got \[2, 2, 1, 1\]"),
        ({"group_size": None}, r"p and n must be \[2\]"),
        ({"p": np.zeros((2, 2, 1, 1), np.int8)}, "p and n must be 1 to 64, got 0"),
        ({"n": np.full((2, 2, 1, 1), 65, np.int8)}, "beyond ±64"),
    ],
)
def test_a_broken_rule_names_the_layer(change: dict[str, object], says: str) -> None:
    layer = conv_1x1([[2.0, -1.0, 0.5, -4.0]] * 2, FGQ(2), [1.0, 1.0])
    quant = graph.Quant(1.0, 0)
    values = {n: graph.Value(n, s, quant) for n, s in ((layer.inputs[0], (4, 5, 5)), (layer.output, (2, 5, 5)))}
    broken = dataclasses.replace(layer, weight=dataclasses.replace(layer.weight, **change))
    with pytest.raises(UserError, match=f"layer 0: .*{says}"):
        graph.Graph(layer.inputs, (layer.output,), values, (broken,)).validate()


def test_a_file_with_wrong_groups_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    tritkit.export(deep_network(), path, IMAGES, calibration=[IMAGES], check=False)
    model = onnx.load(path)
    node = next(n for n in model.graph.node if n.op_type == "TernaryGroupQConv")
    next(a for a in node.attribute if a.name == "group_size").i = 3
    with pytest.raises(tritkit.errors.ModelFileError, match="p and n must be"):
        from_onnx(model)
