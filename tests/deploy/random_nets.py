"""Random small networks: integer graphs of every operation, and torch modules that lower to them.

`graphs()` is a hypothesis strategy for (Graph, images) whose shapes, strides, pads, groups, dilations, zero points and
scales are as ugly as the format allows; engines must agree on them with `==`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from tritkit.deploy import graph as g

Shape = tuple[int, ...]


def graphs() -> st.SearchStrategy[tuple[g.Graph, np.ndarray]]:
    """(graph, float32 images [N, C, H, W]) for engine tests."""
    return st.builds(_make, st.integers(0, 2**32 - 1), st.integers(1, 7))


def _make(seed: int, steps: int) -> tuple[g.Graph, np.ndarray]:
    maker = _Maker(seed)
    graph = maker.network(steps)
    shape = graph.values[graph.inputs[0]].shape
    batch = int(maker.rng.integers(1, 4))
    return graph, maker.rng.normal(0, 2, (batch, *shape)).astype(np.float32)


class _Maker:
    """Adds random operations to a graph; what it has so far is a list of u8 tensors."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        c, h, w = (int(n) for n in self.rng.integers(1, (6, 12, 12)))
        self.values = {"image": g.Value("image", (c, h, w))}
        self.nodes: list[g.Node] = []

    def network(self, steps: int) -> g.Graph:
        shape = self.values["image"].shape
        x = self.add(g.Quantize, ["image"], shape, self.quant())
        past = [x]
        operations = [self.conv, self.conv, self.add_past, self.average, self.max, self.clip, self.pad, self.slice,
                      self.rescale, self.concat]  # fmt: skip
        for _ in range(steps):
            x = operations[self.rng.integers(len(operations))](x, past)
            past.append(x)
        return self.head(x)

    # ---- pieces

    def pick(self, *options: Any) -> Any:
        return options[int(self.rng.integers(len(options)))]

    def quant(self) -> g.Quant:
        zero = self.pick(0, 255, 128, int(self.rng.integers(0, 256)))
        return g.Quant(float(np.float32(np.exp(self.rng.uniform(-6, 1)))), zero)

    def shape(self, x: str) -> Shape:
        return self.values[x].shape

    def q(self, x: str) -> g.Quant:
        quant = self.values[x].quant
        assert quant is not None
        return quant

    def add(self, kind: type[g.Node], inputs: list[str], shape: Shape, quant: g.Quant | None, **fields: Any) -> str:
        name = f"v{len(self.nodes)}"
        self.values[name] = g.Value(name, tuple(int(n) for n in shape), quant)
        self.nodes.append(kind(name=f"node{len(self.nodes)}", inputs=tuple(inputs), output=name, **fields))
        return name

    def weight(self, shape: Shape) -> g.Weight:
        if self.rng.random() < 0.3:
            return g.Int8Weight(self.rng.integers(-64, 65, shape).astype(np.int8))
        size = self.pick(None, 2, 4, 8, 16, 64)
        sides = (shape[0],)
        if size is not None:
            size = min(size, shape[1])
            sides = (shape[0], -(-shape[1] // size), *shape[2:])
        p, n = self.rng.integers(1, 65, (2, *sides)).astype(np.int8)
        if self.rng.random() < 0.3:
            n = p
        codes = self.rng.choice([-1, 0, 1], shape, p=self.pick([0.3, 0.4, 0.3], [0.05, 0.9, 0.05], [0, 0.5, 0.5]))
        return g.TernaryWeight(codes.astype(np.int8), p, n, "random", size)

    def layer(self, x: str, shape: Shape, out: g.Quant | None) -> dict[str, Any]:
        """Weight, w_scale and bias that use the output's range, some of it beyond."""
        weight = self.weight(shape)
        spread = 90 * np.sqrt(np.prod(shape[1:])) * max(np.abs(weight.integers()).mean(), 1)
        wanted = 1.0 if out is None else out.scale * 60
        scale = wanted / (self.q(x).scale * spread) * np.exp(self.rng.normal(0, 1, shape[0]))
        bias = self.rng.normal(0, spread, shape[0])
        if self.rng.random() < 0.1:
            bias[0] = 2**30 * self.pick(-1, 1)
        return {"weight": weight, "w_scale": scale.astype(np.float32), "bias": bias.astype(np.int32)}

    # ---- operations

    def conv(self, x: str, past: list[str]) -> str:
        c, h, w = self.shape(x)
        group = self.pick(1, 1, c, *[d for d in (2, 3) if c % d == 0])
        out = group * int(self.rng.integers(1, 5 if group == 1 else 3))
        kh, kw = (int(k) for k in self.rng.integers(1, 4, 2))
        dilations = tuple(int(d) for d in self.rng.integers(1, 3, 2))
        strides = tuple(int(s) for s in self.rng.integers(1, 4, 2))
        pads = [int(p) for p in self.rng.integers(0, 3, 4)]
        for i, (n, k) in enumerate(((h, kh), (w, kw))):  # at least one window
            pads[i + 2] += max(0, dilations[i] * (k - 1) + 1 - n - pads[i] - pads[i + 2])
        oh = (h + pads[0] + pads[2] - dilations[0] * (kh - 1) - 1) // strides[0] + 1
        ow = (w + pads[1] + pads[3] - dilations[1] * (kw - 1) - 1) // strides[1] + 1
        quant = self.quant()
        fields = self.layer(x, (out, c // group, kh, kw), quant)
        fields |= {"strides": strides, "pads": tuple(pads), "dilations": dilations, "group": group}
        return self.add(g.QConv, [x], (out, oh, ow), quant, **fields)

    def add_past(self, x: str, past: list[str]) -> str:
        other = self.pick(*[p for p in past if self.shape(p) == self.shape(x)])
        return self.add(g.QAdd, [x, other], self.shape(x), self.quant())

    def rescale(self, x: str, past: list[str]) -> str:
        return self.add(g.QRescale, [x], self.shape(x), self.quant())

    def average(self, x: str, past: list[str]) -> str:
        c, h, w = self.shape(x)
        rows, cols = self.runs(h), self.runs(w)
        count = np.outer(rows.sum(1), cols.sum(1)).astype(np.float32)
        if self.rng.random() < 0.3:
            count = np.full_like(count, 7)
        shape = (c, len(rows), len(cols))
        return self.add(g.QAveragePool, [x], shape, self.quant(), rows=rows, cols=cols, count=count)

    def runs(self, size: int) -> np.ndarray:
        table = np.zeros((int(self.rng.integers(1, size + 1)), size), np.float32)
        for row in table:
            start = int(self.rng.integers(0, size))
            row[start : int(self.rng.integers(start + 1, size + 1))] = 1
        return table

    def max(self, x: str, past: list[str]) -> str:
        c, h, w = self.shape(x)
        kernel = tuple(int(self.rng.integers(1, min(4, n) + 1)) for n in (h, w))
        pads = tuple(int(self.rng.integers(0, kernel[i % 2])) if min(h, w) > 3 else 0 for i in range(4))
        strides = tuple(int(s) for s in self.rng.integers(1, 4, 2))
        out = [(n + pads[i] + pads[i + 2] - kernel[i]) // strides[i] + 1 for i, n in enumerate((h, w))]
        return self.add(g.MaxPool, [x], (c, *out), self.q(x), kernel=kernel, strides=strides, pads=pads)

    def clip(self, x: str, past: list[str]) -> str:
        low, high = sorted(int(v) for v in self.rng.integers(0, 256, 2))
        return self.add(g.Clip, [x], self.shape(x), self.q(x), low=low, high=high)

    def pad(self, x: str, past: list[str]) -> str:
        before, after = (tuple(int(v) for v in self.rng.integers(0, 3, 3)) for _ in range(2))
        shape = tuple(b + n + a for b, n, a in zip(before, self.shape(x), after, strict=True))
        return self.add(g.Pad, [x], shape, self.q(x), before=before, after=after)

    def slice(self, x: str, past: list[str]) -> str:
        shape = self.shape(x)
        starts = tuple(int(self.rng.integers(0, (n + 1) // 2)) for n in shape)
        stops = tuple(int(self.rng.integers(s + 1, n + 1)) for s, n in zip(starts, shape, strict=True))
        steps = tuple(int(s) for s in self.rng.integers(1, 3, 3))
        out = tuple(len(range(*part)) for part in zip(starts, stops, steps, strict=True))
        return self.add(g.Slice, [x], out, self.q(x), starts=starts, stops=stops, steps=steps)

    def concat(self, x: str, past: list[str]) -> str:
        shape = self.shape(x)
        other = self.pick(*[p for p in past if self.shape(p)[1:] == shape[1:]])
        if self.q(other) != self.q(x):
            other = self.add(g.QRescale, [other], self.shape(other), self.q(x))
        out = (shape[0] + self.shape(other)[0], *shape[1:])
        return self.add(g.Concat, [x, other], out, self.q(x), axis=1)

    # ---- the end

    def head(self, x: str) -> g.Graph:
        """Codes as they are, or through linear layers to float32."""
        if self.rng.random() < 0.5:
            y = self.add(g.Dequantize, [x], self.shape(x), None)
        else:
            k = int(np.prod(self.shape(x)))
            x = self.add(g.Reshape, [x], (k,), self.q(x))
            if self.rng.random() < 0.5:
                quant, out = self.quant(), int(self.rng.integers(1, 20))
                x = self.add(g.QGemm, [x], (out,), quant, **self.layer(x, (out, k), quant))
                k = out
            y = self.add(g.QGemm, [x], (3,), None, **self.layer(x, (3, k), None))
        graph = g.Graph(("image",), (y,), self.values, tuple(self.nodes), {"tritkit.format": "1"})
        graph.validate()
        return graph
