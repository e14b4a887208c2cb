"""Folding empty kernels: random graphs with planted ones give the same integers in every engine, and lose them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_nets import graphs

from tritkit.cli.app import run_app
from tritkit.deploy import Reference, from_onnx, to_onnx
from tritkit.deploy import graph as g
from tritkit.deploy.empty import fold_empty
from tritkit.runtime import Session
from tritkit.zoo import hub


def _planted(graph: g.Graph, seed: int) -> g.Graph:
    """The graph with rows and columns of weights emptied at random."""
    rng = np.random.default_rng(seed)
    return replace(graph, nodes=tuple(_emptied(node, rng) for node in graph.nodes))


def _emptied(node: g.Node, rng: np.random.Generator) -> g.Node:
    if not isinstance(node, (g.QConv, g.QGemm)) or rng.random() < 0.2:
        return node
    name = "codes" if isinstance(node.weight, g.TernaryWeight) else "values"
    values = getattr(node.weight, name).copy()
    values[rng.random(len(values)) < 0.4] = 0
    values[:, rng.random(values.shape[1]) < 0.4] = 0
    return replace(node, weight=replace(node.weight, **{name: values}))


@settings(max_examples=120, derandomize=True, deadline=None)
@given(graphs(), st.integers(0, 2**32 - 1))
def test_the_integers_stay(case: tuple[g.Graph, np.ndarray], seed: int) -> None:
    graph, images = _planted(case[0], seed), case[1]
    folded = fold_empty(graph)
    expected = Reference(graph).run(images)
    assert np.array_equal(Reference(folded.graph).run(images), expected)
    assert folded.weights[1] <= folded.weights[0]
    data = to_onnx(folded.graph).SerializeToString()
    options = ort.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    stock = ort.InferenceSession(data, options, ["CPUExecutionProvider"])
    assert np.array_equal(stock.run(None, {"image": images})[0], expected)
    with Session(data, threads=1) as ours:
        assert np.array_equal(ours.run(images), expected)
    again = fold_empty(folded.graph)
    assert again.weights[0] == again.weights[1], "nothing is left to fold"


def _layer(shape: tuple[int, ...], seed: int, empty: tuple[int, ...] = (), bias: int = 0) -> dict[str, object]:
    codes = np.random.default_rng(seed).choice([-1, 1], shape).astype(np.int8)
    codes[list(empty)] = 0
    ones = np.ones(shape[0], np.int8)
    scale = np.full(shape[0], 0.05, np.float32)
    return {"weight": g.TernaryWeight(codes, ones, ones), "w_scale": scale, "bias": np.full(shape[0], bias, np.int32)}


def _chain(zero: int, bias: int, pads: tuple[int, int, int, int]) -> g.Graph:
    """Two convolutions and a classifier; output channels 1 and 2 of the first are empty, so constant."""
    q = g.Quant(float(np.float32(0.1)), zero)
    values = {"image": g.Value("image", (3, 6, 6)), "x": g.Value("x", (3, 6, 6), q), "a": g.Value("a", (4, 6, 6), q)}
    sides = 6 - 2 + pads[0] + pads[2]
    values |= {"b": g.Value("b", (5, sides, sides), q), "flat": g.Value("flat", (5 * sides * sides,), q)}
    values["y"] = g.Value("y", (2,))
    nodes = (
        g.Quantize(name="q", inputs=("image",), output="x"),
        g.QConv(name="first", inputs=("x",), output="a", pads=(1, 1, 1, 1), **_layer((4, 3, 3, 3), 0, (1, 2), bias)),
        g.QConv(name="second", inputs=("a",), output="b", pads=pads, **_layer((5, 4, 3, 3), 1)),
        g.Reshape(name="flatten", inputs=("b",), output="flat"),
        g.QGemm(name="linear", inputs=("flat",), output="y", **_layer((2, 5 * sides * sides), 2)),
    )
    graph = g.Graph(("image",), ("y",), values, nodes, {"tritkit.format": "1"})
    graph.validate()
    return graph


@pytest.mark.parametrize(
    ("zero", "bias", "pads", "removed"),
    [
        (0, 0, (1, 1, 1, 1), {"first": 2}),  # the constant is the zero point: padding adds the same
        (0, 300, (1, 1, 1, 1), {}),  # another constant behind padding: not the same at the border, so it stays
        (0, 300, (0, 0, 0, 0), {"first": 2}),  # and without padding it goes into the bias
        (128, 0, (1, 1, 1, 1), {"first": 2}),
    ],
)
def test_a_constant_goes_where_the_border_allows(
    zero: int, bias: int, pads: tuple[int, int, int, int], removed: dict[str, int]
) -> None:
    graph = _chain(zero, bias, pads)
    folded = fold_empty(graph)
    assert folded.removed == removed
    images = np.random.default_rng(3).normal(size=(5, 3, 6, 6)).astype(np.float32)
    assert np.array_equal(Reference(folded.graph).run(images), Reference(graph).run(images))


def test_one_removal_exposes_another() -> None:
    graph = _chain(0, 0, (0, 0, 0, 0))
    second = graph.nodes[2]
    assert isinstance(second, g.QConv)
    assert isinstance(second.weight, g.TernaryWeight)
    codes = second.weight.codes.copy()
    codes[3] = 0
    codes[3, 1:3] = 1  # this output reads only the constant channels, so it is constant itself
    nodes = (*graph.nodes[:2], replace(second, weight=replace(second.weight, codes=codes)), *graph.nodes[3:])
    folded = fold_empty(replace(graph, nodes=nodes))
    assert folded.removed == {"first": 2, "second": 1}
    assert folded.graph.values["flat"].shape == (4 * 16,)


def test_the_command(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run: Callable[..., int] = lambda *words: run_app([str(word) for word in words])  # noqa: E731
    out = tmp_path / "folded.onnx"
    assert run("fold", "resnet20-cifar10-ternary", "-o", out, "--json") == 0
    facts = json.loads(capfd.readouterr().out)
    assert facts["bytes"] == out.stat().st_size < facts["bytes_before"]
    assert facts["same_bits_in"] == ["onnxruntime", "libtritkit"]
    assert sum(row["channels"] for row in facts["removed"]) > 0
    images = np.random.default_rng(0).normal(size=(3, 3, 32, 32)).astype(np.float32)
    assert np.array_equal(Session(out).run(images), Session(hub("resnet20-cifar10-ternary")).run(images))
    assert from_onnx(out).metadata == from_onnx(hub("resnet20-cifar10-ternary")).metadata
    assert run("fold", "none.onnx", "-o", out) == 2
    assert run("fold", "resnet20-cifar10-ternary", "-o", tmp_path / "no" / "folded.onnx") == 2
