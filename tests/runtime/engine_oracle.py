"""The arithmetic of docs/format.md in NumPy, node by node in float32 and int64: shares no code with any engine."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

F = np.float32


def requantize(values: np.ndarray, zero: int) -> np.ndarray:
    return np.clip(np.rint(values.astype(np.float64)) + zero, 0, 255).astype(np.uint8)


def unpack(packed: np.ndarray, book: np.ndarray, shape: list[int]) -> np.ndarray:
    codes = (packed[:, :, None] >> np.array([0, 2, 4, 6], np.uint8)) & 3
    codes = codes.reshape(len(packed), -1)[:, : int(np.prod(shape[1:]))]
    return np.take_along_axis(book, codes.astype(np.int64), axis=1).reshape(shape).astype(np.int64)


def correlate(x: np.ndarray, w: np.ndarray, a: dict[str, Any]) -> np.ndarray:
    """x [N, C, H, W] of any number type with padding 0, one tap at a time."""
    top, left, bottom, right = a.get("pads", [0, 0, 0, 0])
    (sh, sw), (dh, dw), group = a.get("strides", [1, 1]), a.get("dilations", [1, 1]), a.get("group", 1)
    x = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    oh = (x.shape[2] - dh * (w.shape[2] - 1) - 1) // sh + 1
    ow = (x.shape[3] - dw * (w.shape[3] - 1) - 1) // sw + 1
    out = np.zeros((x.shape[0], w.shape[0], oh, ow), np.result_type(x, w))
    per_in, per_out = w.shape[1], w.shape[0] // group
    for g in range(group):
        xs, ws = x[:, g * per_in : (g + 1) * per_in], w[g * per_out : (g + 1) * per_out]
        for ky in range(w.shape[2]):
            for kx in range(w.shape[3]):
                tap = xs[:, :, ky * dh :, kx * dw :][:, :, : (oh - 1) * sh + 1 : sh, : (ow - 1) * sw + 1 : sw]
                out[:, g * per_out : (g + 1) * per_out] += np.einsum("nchw,oc->nohw", tap, ws[:, :, ky, kx])
    return out


def unpack_groups(v: list[Any], a: dict[str, Any]) -> np.ndarray:
    """Codes by a codebook of one, then each input channel's slice times its group's multipliers."""
    shape = list(a["w_shape"])
    codes = unpack(v[3], np.tile(np.array([0, 1, 0, -1]), (shape[0], 1)), shape)
    for channel in range(shape[1]):
        part = codes[:, channel]
        plus, minus = (side[:, channel // a["group_size"]].astype(np.int64) for side in v[4:6])
        codes[:, channel] = np.maximum(part, 0) * plus + np.minimum(part, 0) * minus
    return codes


def weighted(v: list[Any], a: dict[str, Any], ternary: bool, to_float: bool, conv: bool) -> np.ndarray:
    if "group_size" in a:  # from here on as if they were int8
        v = [*v[:3], unpack_groups(v, a), *v[6:]]
        if conv:
            v = [*v[:5], None, *v[6:8], v[5]]
        return weighted(v, {k: value for k, value in a.items() if k != "group_size"}, False, to_float, conv)
    x, xs, xz = v[0].astype(np.int64), v[1], int(v[2])
    rest = v[5:] if ternary else v[4:]
    w = unpack(v[3], v[4], list(a["w_shape"])) if ternary else v[3].astype(np.int64)
    if conv and not ternary:  # the standard QLinearConv orders its inputs otherwise
        rest = [rest[0], rest[4], rest[2], rest[3]]
    ws, bias = rest[0], rest[1]
    column = (1, -1, 1, 1) if conv else (1, -1)
    acc = correlate(x - xz, w, a) if conv else (x - xz) @ w.T
    acc = (acc + bias.astype(np.int64).reshape(column)).astype(F)
    multiplier = (xs * ws).astype(F)
    if to_float:
        return acc * multiplier.reshape(column)
    return requantize(acc * (multiplier / rest[2]).astype(F).reshape(column), int(rest[3]))


def average_pool(v: list[Any]) -> np.ndarray:
    acc = np.einsum("ih,nchw,jw->ncij", v[3].astype(np.int64), v[0].astype(np.int64) - int(v[2]), v[4].astype(np.int64))
    return requantize(acc.astype(F) * ((v[1] / v[6]).astype(F) / v[5]).astype(F), int(v[7]))


def max_pool(x: np.ndarray, a: dict[str, Any]) -> np.ndarray:
    top, left, bottom, right = a.get("pads", [0, 0, 0, 0])
    (sh, sw), (dh, dw), (kh, kw) = a.get("strides", [1, 1]), a.get("dilations", [1, 1]), a["kernel_shape"]
    x = np.pad(x.astype(np.int64), ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=-1)
    oh, ow = (x.shape[2] - dh * (kh - 1) - 1) // sh + 1, (x.shape[3] - dw * (kw - 1) - 1) // sw + 1
    taps = [
        x[:, :, ky * dh :, kx * dw :][:, :, : (oh - 1) * sh + 1 : sh, : (ow - 1) * sw + 1 : sw]
        for ky in range(kh)
        for kx in range(kw)
    ]
    return np.max(taps, axis=0).astype(np.uint8)


def add(v: list[Any]) -> np.ndarray:
    def part(x: np.ndarray, scale: Any, zero: Any) -> np.ndarray:
        return (x.astype(np.int64) - int(zero)).astype(F) * F(scale / v[6])

    return requantize(part(*v[0:3]) + part(*v[3:6]), int(v[7]))


def sliced(v: list[Any]) -> np.ndarray:
    index = [slice(None)] * v[0].ndim
    for start, end, axis, step in zip(*(x.tolist() for x in v[1:]), strict=True):
        index[axis] = slice(start, end, step)
    return v[0][tuple(index)]


def pad(v: list[Any]) -> np.ndarray:
    before, after = v[1].tolist()[:4], v[1].tolist()[4:]
    return np.pad(v[0], list(zip(before, after, strict=True)), constant_values=int(v[2]))


def evaluate(op: str, v: list[Any], a: dict[str, Any]) -> np.ndarray:
    if op in ("TernaryQConv", "TernaryGroupQConv", "QLinearConv"):
        return weighted(v, a, op == "TernaryQConv", False, True)
    if op.endswith("Gemm") and op != "Gemm":
        return weighted(v, a, op.startswith("Ternary"), not op.endswith("QGemm"), False)
    match op:
        case "QuantizeLinear":
            return requantize(np.clip(v[0] / v[1], -1e6, 1e6), int(v[2]))
        case "DequantizeLinear":
            return (v[0].astype(np.int64) - int(v[2])).astype(F) * v[1]
        case "QAdd":
            return add(v)
        case "QAveragePool":
            return average_pool(v)
        case "QRescale":
            return requantize((v[0].astype(np.int64) - int(v[2])).astype(F) * F(v[1] / v[3]), int(v[4]))
        case "MaxPool":
            return max_pool(v[0], a)
        case "Clip":
            return np.clip(v[0], v[1], v[2])
        case "Pad":
            return pad(v)
        case "Slice":
            return sliced(v)
        case "Concat":
            return np.concatenate(v, a["axis"])
        case "Reshape":
            return v[0].reshape([len(v[0]), *v[1].tolist()[1:]])
        case "Flatten":
            return v[0].reshape(len(v[0]), -1)
        case "Relu":
            return np.maximum(v[0], F(0))
        case "Conv":
            return correlate(v[0].astype(np.float64), v[1].astype(np.float64), a).astype(F) + v[2].reshape(1, -1, 1, 1)
        case "Gemm":
            return (v[0].astype(np.float64) @ v[1].T.astype(np.float64) + v[2]).astype(F)
    raise NotImplementedError(op)


def run(model: onnx.ModelProto, *images: np.ndarray) -> list[np.ndarray]:
    values: dict[str, Any] = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    values.update({i.name: x for i, x in zip(model.graph.input, images, strict=True)})
    for node in model.graph.node:
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        values[node.output[0]] = evaluate(node.op_type, [values[name] for name in node.input], attributes)
    return [values[o.name] for o in model.graph.output]
