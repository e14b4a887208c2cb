"""One small graph of every operation: NumPy reference == torch simulation == ONNX Runtime, and the writer's file."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnxruntime as ort
import pytest
import torch

from tritkit.deploy import graph as g
from tritkit.deploy.onnx_writer import to_onnx
from tritkit.deploy.reference import Reference
from tritkit.deploy.simulate import Simulation
from tritkit.errors import UserError

LEVELS = [ort.GraphOptimizationLevel.ORT_DISABLE_ALL, ort.GraphOptimizationLevel.ORT_ENABLE_ALL]


def _f32(x: float) -> float:
    return float(np.float32(x))


class _Builder:
    """Strings nodes together on random weights."""

    def __init__(self, shape: tuple[int, ...], seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.values = {"image": g.Value("image", shape)}
        self.nodes: list[g.Node] = []

    def add(
        self, kind: type[g.Node], inputs: list[str], shape: tuple[int, ...], quant: g.Quant | None, **fields: object
    ) -> str:
        name = f"{kind.__name__.lower()}{len(self.nodes)}"
        self.values[name] = g.Value(name, shape, quant)
        self.nodes.append(kind(name=f"n.{name}", inputs=tuple(inputs), output=name, **fields))  # type: ignore[arg-type]
        return name

    def quant(self) -> g.Quant:
        return g.Quant(_f32(self.rng.uniform(0.02, 0.2)), int(self.rng.integers(0, 256)))

    def weight(self, shape: tuple[int, ...], ternary: bool) -> g.Weight:
        if not ternary:
            return g.Int8Weight(self.rng.integers(-64, 65, shape).astype(np.int8))
        p, n = self.rng.integers(1, 65, (2, shape[0])).astype(np.int8)
        return g.TernaryWeight(self.rng.integers(-1, 2, shape).astype(np.int8), p, n, "ttq")

    def layer(self, shape: tuple[int, ...], ternary: bool) -> dict[str, object]:
        scale = self.rng.uniform(1e-3, 5e-3, shape[0]).astype(np.float32)
        bias = self.rng.integers(-3000, 3000, shape[0]).astype(np.int32)
        return {"weight": self.weight(shape, ternary), "w_scale": scale, "bias": bias}

    def graph(self, output: str) -> g.Graph:
        return g.Graph(("image",), (output,), self.values, tuple(self.nodes), {"tritkit.format": "1"})


def _everything(seed: int) -> g.Graph:
    b = _Builder((3, 9, 7), seed)
    q1, q2 = b.quant(), b.quant()
    x = b.add(g.Quantize, ["image"], (3, 9, 7), b.quant())
    x = b.add(g.QConv, [x], (6, 9, 7), q1, **b.layer((6, 3, 3, 3), False), pads=(1, 1, 1, 1))
    y = b.add(g.QConv, [x], (8, 5, 4), q2, **b.layer((8, 3, 3, 3), True), pads=(1, 1, 1, 1), strides=(2, 2), group=2)
    s = b.add(g.Slice, [x], (6, 5, 4), q1, starts=(0, 0, 0), stops=(6, 9, 7), steps=(1, 2, 2))
    s = b.add(g.Pad, [s], (8, 5, 4), q1, before=(1, 0, 0), after=(1, 0, 0))
    x = b.add(g.QAdd, [y, s], (8, 5, 4), b.quant())
    x = b.add(g.Clip, [x], (8, 5, 4), b.values[x].quant, low=20, high=230)
    m = b.add(g.MaxPool, [x], (8, 5, 4), b.values[x].quant, kernel=(3, 3), strides=(1, 1), pads=(1, 1, 1, 1))
    z = b.add(g.QConv, [x], (5, 5, 4), q2, **b.layer((5, 8, 3, 3), True), pads=(2, 2, 2, 2), dilations=(2, 2))
    m = b.add(g.QRescale, [m], (8, 5, 4), q2)
    x = b.add(g.Concat, [m, z], (13, 5, 4), q2, axis=1)
    rows = np.array([[1, 1, 0, 0, 0], [0, 0, 1, 1, 1]], np.float32)
    cols = np.array([[1, 1, 0, 0], [0, 1, 1, 1]], np.float32)
    count = np.array([[4, 6], [6, 9]], np.float32)
    x = b.add(g.QAveragePool, [x], (13, 2, 2), b.quant(), rows=rows, cols=cols, count=count)
    x = b.add(g.Reshape, [x], (52,), b.values[x].quant)
    x = b.add(g.QGemm, [x], (11,), b.quant(), **b.layer((11, 52), True))
    x = b.add(g.QGemm, [x], (9,), b.quant(), **b.layer((9, 11), False))
    return b.graph(b.add(g.QGemm, [x], (4,), None, **b.layer((4, 9), bool(seed % 2))))


def _images(graph: g.Graph, n: int = 5) -> np.ndarray:
    shape = graph.values["image"].shape
    return np.random.default_rng(99).normal(0, 4, (n, *shape)).astype(np.float32)


def _onnxruntime(graph: g.Graph, x: np.ndarray) -> list[np.ndarray]:
    data, results = to_onnx(graph).SerializeToString(), []
    for level in LEVELS:
        options = ort.SessionOptions()
        options.graph_optimization_level, options.log_severity_level = level, 3
        results.append(ort.InferenceSession(data, options, ["CPUExecutionProvider"]).run(None, {"image": x})[0])
    return results


@pytest.mark.parametrize("seed", [0, 1, 3, 4, 5, 6])
def test_all_engines_agree_on_every_operation(seed: int) -> None:
    graph = _everything(seed)
    x = _images(graph)
    expected = Reference(graph).run(x)
    assert len(np.unique(expected)) > 5
    assert np.array_equal(Simulation(graph)(torch.from_numpy(x)).numpy(), expected)
    for result in _onnxruntime(graph, x):
        assert np.array_equal(result, expected)


def test_simulation_and_reference_agree_on_every_tensor() -> None:
    graph = _everything(3)
    x = _images(graph)
    ours, theirs = Simulation(graph).values(torch.from_numpy(x)), Reference(graph).values({"image": x})
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert np.array_equal(ours[name].numpy(), value), name


def test_float_layers_agree_to_rounding() -> None:
    b = _Builder((3, 8, 8), 1)
    weight, bias = b.rng.normal(size=(4, 3, 3, 3)).astype(np.float32), b.rng.normal(size=4).astype(np.float32)
    x = b.add(g.FloatConv, ["image"], (4, 6, 6), None, weight=weight, bias=bias)
    x = b.add(g.FloatClip, [x], (4, 6, 6), None, low=0.0, high=float("inf"))
    x = b.add(g.FloatClip, [x], (4, 6, 6), None, low=0.0, high=6.0)
    x = b.add(g.Quantize, [x], (4, 6, 6), g.Quant(_f32(6 / 255), 0))
    x = b.add(g.Reshape, [x], (144,), g.Quant(_f32(6 / 255), 0))
    x = b.add(g.Dequantize, [x], (144,), None)
    weight = b.rng.normal(size=(3, 144)).astype(np.float32)
    graph = b.graph(b.add(g.FloatGemm, [x], (3,), None, weight=weight, bias=np.zeros(3, np.float32)))
    images = _images(graph)
    expected = Reference(graph).run(images)
    for result in [*_onnxruntime(graph, images), Simulation(graph)(torch.from_numpy(images)).numpy()]:
        # one u8 step of one input may flip where float sums differ in the last bit
        np.testing.assert_allclose(result, expected, atol=6 / 255 * np.abs(weight).max() * 2)


def test_ties_round_to_even_and_saturate() -> None:
    b = _Builder((8,), 0)
    x = b.add(g.Quantize, ["image"], (8,), g.Quant(1.0, 10))
    graph = b.graph(b.add(g.Dequantize, [x], (8,), None))
    image = np.array([[0.5, 1.5, 2.5, -0.5, -1.5, -11.0, 244.5, 300.0]], np.float32)
    expected = [[0.0, 2.0, 2.0, 0.0, -2.0, -10.0, 244.0, 245.0]]
    assert Reference(graph).run(image).tolist() == expected
    assert Simulation(graph)(torch.from_numpy(image)).tolist() == expected
    assert all(result.tolist() == expected for result in _onnxruntime(graph, image))


def test_the_same_graph_gives_the_same_bytes() -> None:
    assert to_onnx(_everything(2)).SerializeToString() == to_onnx(_everything(2)).SerializeToString()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"bias": np.full(4, 2**30 + 1, np.int32)}, "bias"),
        ({"w_scale": np.zeros(4, np.float32)}, "w_scale"),
        ({"weight": g.Int8Weight(np.full((4, 9), 65, np.int8))}, "64"),
        ({"inputs": ("nothing",)}, "undefined"),
    ],
)
def test_a_broken_rule_names_the_node(change: dict[str, object], says: str) -> None:
    graph = _everything(0)
    last = dataclasses.replace(graph.nodes[-1], **change)
    broken = dataclasses.replace(graph, nodes=(*graph.nodes[:-1], last))
    with pytest.raises(UserError, match=rf"{last.name}.*{says}"):
        broken.validate()
