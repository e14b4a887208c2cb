"""BinaryConnect and TernaryConnect: the deterministic codes, and gradients, which do not depend on the draw."""

from __future__ import annotations

from cases._case import Case
from tritkit.methods import BinaryConnect, TernaryConnect

CASES = [
    Case(
        title="signs, zero is plus, nothing is cut",
        method=BinaryConnect(),
        latent=[[0.5, -0.001, 0.0], [-0.0, -3.0, 3.0]],
        codes=[[1, -1, 1], [1, -1, 1]],
        scale_pos=1.0,
        scale_neg=1.0,
        g=[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]],
        latent_grad=[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]],
    ),
    Case(
        # mean|w| = (1 + 0.5 + 0 + 0.5) / 4
        title="H from the data",
        method=BinaryConnect(scale="data", stochastic=False),
        latent=[[1.0, -0.5], [0.0, 0.5]],
        codes=[[1, -1], [1, 1]],
        scale_pos=0.5,
        scale_neg=0.5,
        g=[[1.0, 2.0], [3.0, 4.0]],
        latent_grad=[[1.0, 2.0], [3.0, 4.0]],
    ),
    Case(
        # 4 inputs and 2 outputs: sqrt(1.5 / 6)
        title="H from the shape",
        method=BinaryConnect(scale="glorot"),
        latent=[[1.0, -1.0, 1.0, 1.0], [-1.0, -1.0, -1.0, -1.0]],
        codes=[[1, -1, 1, 1], [-1, -1, -1, -1]],
        scale_pos=0.5,
        scale_neg=0.5,
        g=[[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]],
        latent_grad=[[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]],
    ),
    Case(
        title="one element, zero, with H from the data: 1",
        method=BinaryConnect(scale="data"),
        latent=[[0.0]],
        codes=[[1]],
        scale_pos=1.0,
        scale_neg=1.0,
        g=[[7.0]],
        latent_grad=[[7.0]],
    ),
    Case(
        # Δ = 0.5: ±0.5 tie
        title="ternary, ties",
        method=TernaryConnect(),
        latent=[[0.5, -0.5, 0.75], [-0.501, 0.0, 2.0]],
        codes=[[0, 0, 1], [-1, 0, 1]],
        scale_pos=1.0,
        scale_neg=1.0,
        g=[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]],
        latent_grad=[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]],
    ),
    Case(
        # mean|w| = 1, H = 1.5, Δ = 0.75: −0.75 ties
        title="ternary, H from the data",
        method=TernaryConnect(scale="data", stochastic=False),
        latent=[[2.0, -0.75], [0.25, -1.0]],
        codes=[[1, 0], [0, -1]],
        scale_pos=1.5,
        scale_neg=1.5,
        g=[[1.0, 2.0], [3.0, 4.0]],
        latent_grad=[[1.0, 2.0], [3.0, 4.0]],
    ),
    Case(
        # Δ = 0.75 · 0.5: equal magnitudes are all kept
        title="ternary, all equal",
        method=TernaryConnect(scale="data"),
        latent=[[0.5, -0.5, 0.5]],
        codes=[[1, -1, 1]],
        scale_pos=0.75,
        scale_neg=0.75,
        g=[[1.0, 2.0, 3.0]],
        latent_grad=[[1.0, 2.0, 3.0]],
    ),
    Case(
        title="ternary, one element",
        method=TernaryConnect(),
        latent=[[-0.75]],
        codes=[[-1]],
        scale_pos=1.0,
        scale_neg=1.0,
        g=[[7.0]],
        latent_grad=[[7.0]],
    ),
    Case(
        title="ternary, all zero, with H from the data: 1",
        method=TernaryConnect(scale="data"),
        latent=[[0.0, -0.0]],
        codes=[[0, 0]],
        scale_pos=1.0,
        scale_neg=1.0,
        g=[[1.0, 2.0]],
        latent_grad=[[1.0, 2.0]],
    ),
]
