"""Every function body against the formula of docs/format.md in NumPy, in ONNX Runtime with and without optimisation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from tritkit.deploy.functions import DOMAIN, DOMAIN_VERSION, IR_VERSION, OPSET, function_names, make_functions

LEVELS = [ort.GraphOptimizationLevel.ORT_DISABLE_ALL, ort.GraphOptimizationLevel.ORT_ENABLE_ALL]
F = np.float32
TYPES = {np.dtype(np.uint8): TensorProto.UINT8, np.dtype(np.float32): TensorProto.FLOAT}


def _run(
    op: str, inputs: Mapping[str, np.ndarray], constants: Mapping[str, np.ndarray], result: type, **attrs: Any
) -> np.ndarray:
    """The op's result, required to be the same at both optimisation levels."""
    names = list(make_functions([op])[0].input)
    node = helper.make_node(op, names, ["y"], domain=DOMAIN, **attrs)
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info(k, TYPES[v.dtype], [None] * v.ndim) for k, v in inputs.items()],
        [helper.make_tensor_value_info("y", TYPES[np.dtype(result)], [None] * next(iter(inputs.values())).ndim)],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, DOMAIN_VERSION)]
    model = helper.make_model(graph, opset_imports=opsets, functions=make_functions([op]), ir_version=IR_VERSION)
    onnx.checker.check_model(model, full_check=True)
    results = []
    for level in LEVELS:
        options = ort.SessionOptions()
        options.graph_optimization_level, options.log_severity_level = level, 3
        session = ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
        results.append(session.run(None, dict(inputs))[0])
    assert np.array_equal(*results)
    return results[0]


def _pack(codes: np.ndarray) -> np.ndarray:
    """[O, K] codes in −1, 0, 1 → 2-bit fields, the first in the low bits."""
    fields = np.select([codes == 1, codes == -1], [1, 3], 0).astype(np.uint8)
    fields = np.pad(fields, ((0, 0), (0, -codes.shape[1] % 4))).reshape(len(codes), -1, 4)
    return (fields << np.array([0, 2, 4, 6], np.uint8)).sum(-1).astype(np.uint8)


def _clip(y: np.ndarray) -> np.ndarray:
    return np.clip(y, 0, 255).astype(np.uint8)


def _layer(rng: np.random.Generator, o: int, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """codes [O, K], codebook [O, 4], int8 weights [O, K]."""
    codes = rng.integers(-1, 2, (o, k))
    p, n = rng.integers(1, 65, (2, o))
    book = np.stack([0 * p, p, 0 * p, -n], 1).astype(np.int8)
    return codes, book, np.where(codes > 0, p[:, None], np.where(codes < 0, -n[:, None], 0))


def _groups(
    rng: np.random.Generator, shape: tuple[int, ...], size: int
) -> tuple[dict[str, np.ndarray], np.ndarray, dict[str, Any]]:
    """Inputs w, plus, minus of weights [O, I, ...] in groups of `size` channels, the int8 weights, the attributes."""
    codes = rng.integers(-1, 2, shape)
    plus, minus = rng.integers(1, 65, (2, shape[0], -(-shape[1] // size), *shape[2:])).astype(np.int8)
    weight = np.empty(shape, np.int8)
    for i in range(shape[1]):
        p, n = plus[:, i // size], minus[:, i // size]
        weight[:, i] = np.where(codes[:, i] > 0, p, np.where(codes[:, i] < 0, -n, 0))
    constants = {"w": _pack(codes.reshape(shape[0], -1)), "plus": plus, "minus": minus}
    return constants, weight, {"w_shape": list(shape), "group_size": size}


def _scale(value: float) -> np.ndarray:
    return np.array(value, F)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", ["Ternary", "TernaryGroup", "Int8"])
@pytest.mark.parametrize("quantized", [True, False])
def test_gemm(seed: int, kind: str, quantized: bool) -> None:
    rng = np.random.default_rng(seed)
    n, k, o = int(rng.integers(1, 9)), int(rng.integers(1, 70)), int(rng.integers(1, 40))
    codes, book, w = _layer(rng, o, k)
    constants: dict[str, np.ndarray] = {"w": w.astype(np.int8)}
    attrs: dict[str, Any] = {}
    if kind == "Ternary":
        constants, attrs = {"w": _pack(codes), "codebook": book}, {"w_shape": [o, k]}
    elif kind == "TernaryGroup":
        constants, w, attrs = _groups(rng, (o, k), int(rng.integers(1, k + 1)))
    x, xz, yz = rng.integers(0, 256, (n, k)).astype(np.uint8), int(rng.integers(0, 256)), int(rng.integers(0, 256))
    xs, ys, ws = F(rng.uniform(0.001, 0.1)), F(rng.uniform(0.01, 1)), rng.uniform(1e-3, 1e-1, o).astype(F)
    bias = rng.integers(-5000, 5000, o).astype(np.int32)
    acc = ((x.astype(np.int64) - xz) @ w.T.astype(np.int64) + bias).astype(F)
    constants |= {"x_scale": _scale(xs), "x_zero": np.uint8(xz), "w_scale": ws, "bias": bias}
    name = kind + ("QGemm" if quantized else "Gemm")
    if not quantized:
        assert np.array_equal(_run(name, {"x": x}, constants, np.float32, **attrs), acc * (xs * ws))
        return
    constants |= {"y_scale": _scale(ys), "y_zero": np.uint8(yz)}
    assert np.array_equal(
        _run(name, {"x": x}, constants, np.uint8, **attrs), _clip(np.rint(acc * ((xs * ws) / ys)) + yz)
    )


@pytest.mark.parametrize("group_size", [None, 1, 2, 4, 5])
def test_conv_is_the_product_of_unpacked_weights(group_size: int | None) -> None:
    rng = np.random.default_rng(7)
    codes, book, w = _layer(rng, 6, 5 * 9)
    weight, attrs = {"w": _pack(codes), "codebook": book}, {"w_shape": [6, 5, 3, 3]}
    if group_size is not None:
        weight, w, attrs = _groups(rng, (6, 5, 3, 3), group_size)
    x, xz, yz = rng.integers(0, 256, (2, 5, 7, 6)).astype(np.uint8), 11, 130
    xs, ys, ws = F(0.02), F(0.7), rng.uniform(1e-3, 1e-1, 6).astype(F)
    bias = rng.integers(-5000, 5000, 6).astype(np.int32)
    padded = np.pad(x.astype(np.int64) - xz, ((0, 0), (0, 0), (1, 1), (1, 1)))
    acc = np.zeros((2, 6, 7, 6), np.int64) + bias[None, :, None, None]
    for ky in range(3):
        for kx in range(3):
            tap = w.reshape(6, 5, 3, 3)[:, :, ky, kx]
            acc += np.einsum("nchw,oc->nohw", padded[:, :, ky : ky + 7, kx : kx + 6], tap)
    expected = _clip(np.rint(acc.astype(F) * ((xs * ws) / ys)[None, :, None, None]) + yz)
    constants = {
        "x_scale": _scale(xs), "x_zero": np.uint8(xz), **weight, "w_scale": ws, "bias": bias,
        "y_scale": _scale(ys), "y_zero": np.uint8(yz),
    }  # fmt: skip
    attrs |= {"strides": [1, 1], "pads": [1, 1, 1, 1], "dilations": [1, 1], "group": 1}
    name = "TernaryQConv" if group_size is None else "TernaryGroupQConv"
    assert np.array_equal(_run(name, {"x": x}, constants, np.uint8, **attrs), expected)


def test_add_over_all_pairs_of_codes() -> None:
    a, b = (v.astype(np.uint8).reshape(1, 1, 256, 256) for v in np.meshgrid(np.arange(256), np.arange(256)))
    for az, bz, yz, sa, sb, sy in [
        (0, 0, 0, 0.5, 0.5, 1.0),
        (128, 3, 0, 0.031, 0.0173, 0.0411),
        (0, 255, 77, 1.1, 0.3, 0.9),
    ]:
        constants = {
            "a_scale": _scale(sa), "a_zero": np.uint8(az), "b_scale": _scale(sb), "b_zero": np.uint8(bz),
            "y_scale": _scale(sy), "y_zero": np.uint8(yz),
        }  # fmt: skip
        ra, rb = F(sa) / F(sy), F(sb) / F(sy)
        expected = _clip(np.rint((a.astype(F) - F(az)) * ra + (b.astype(F) - F(bz)) * rb) + yz)
        assert np.array_equal(_run("QAdd", {"a": a, "b": b}, constants, np.uint8), expected)


@pytest.mark.parametrize("seed", range(3))
def test_average_pool_of_any_windows(seed: int) -> None:
    rng = np.random.default_rng(seed)
    h, w, oh, ow = 7, 9, 3, 4
    x, xz, yz, xs, ys = rng.integers(0, 256, (3, 5, h, w)).astype(np.uint8), 9, 20, F(0.3), F(0.21)
    rows, cols = np.zeros((oh, h), F), np.zeros((ow, w), F)
    for i, (matrix, size) in enumerate([(rows, h)] * 1 + [(cols, w)] * 1):
        for row in matrix:
            start = int(rng.integers(0, size - i))
            row[start : int(rng.integers(start + 1, size + 1))] = 1
    count = rng.integers(1, 30, (oh, ow)).astype(F)
    acc = np.einsum("ih,nchw,jw->ncij", rows, x.astype(np.int64) - xz, cols).astype(F)
    constants = {
        "x_scale": _scale(xs), "x_zero": np.uint8(xz), "rows": rows, "cols": cols, "count": count,
        "y_scale": _scale(ys), "y_zero": np.uint8(yz),
    }  # fmt: skip
    expected = _clip(np.rint(acc * ((xs / ys) / count)) + yz)
    assert np.array_equal(_run("QAveragePool", {"x": x}, constants, np.uint8), expected)


def test_rescale_of_every_code() -> None:
    x = np.arange(256, dtype=np.uint8).reshape(1, 256)
    for xz, yz, xs, ys in [(0, 0, 0.5, 1.0), (100, 128, 0.013, 0.01), (255, 0, 3.0, 0.1)]:
        constants = {"x_scale": _scale(xs), "x_zero": np.uint8(xz), "y_scale": _scale(ys), "y_zero": np.uint8(yz)}
        expected = _clip(np.rint((x.astype(F) - F(xz)) * (F(xs) / F(ys))) + yz)
        assert np.array_equal(_run("QRescale", {"x": x}, constants, np.uint8), expected)


def test_functions_are_sorted_and_unique() -> None:
    names = [f.name for f in make_functions([*function_names(), "QAdd"])]
    assert names == function_names()
