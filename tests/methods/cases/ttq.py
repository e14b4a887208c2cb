"""Trained Ternary Quantization."""

from __future__ import annotations

from cases._case import Case
from tritkit.methods import TTQ

CASES = [
    Case(
        # Δ = 0.5 · 1: both ±0.5 are ties. Kept: 1 and −1, −0.75.
        title="ties, eq. 8 with Wp = 2, Wn = 3",
        method=TTQ(threshold=0.5),
        latent=[[1.0, -1.0, 0.5, -0.5], [0.25, 0.0, -0.75, 0.5]],
        codes=[[1, -1, 0, 0], [0, 0, -1, 0]],
        scale_pos=1.0,
        scale_neg=1.0,
        trained=(2.0, 3.0),
        g=[[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]],
        latent_grad=[[2.0, 6.0, 3.0, 4.0], [5.0, 6.0, 21.0, 8.0]],
        scale_grads={"scale_pos": [1.0], "scale_neg": [-9.0]},
    ),
    Case(
        # Wp = mean(1), Wn = mean(1, 0.75)
        title="scales from the data, straight-through",
        method=TTQ(threshold=0.5, init="data", latent_gradient="straight-through"),
        latent=[[1.0, -1.0, 0.5, -0.5], [0.25, 0.0, -0.75, 0.5]],
        codes=[[1, -1, 0, 0], [0, 0, -1, 0]],
        scale_pos=1.0,
        scale_neg=0.875,
        g=[[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]],
        latent_grad=[[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]],
        scale_grads={"scale_pos": [1.0], "scale_neg": [-9.0]},
    ),
    Case(
        title="one element: the side without weights takes the other's mean",
        method=TTQ(init="data"),
        latent=[[-0.25]],
        codes=[[-1]],
        scale_pos=0.25,
        scale_neg=0.25,
        g=[[8.0]],
        latent_grad=[[2.0]],  # 8 · Wn
        scale_grads={"scale_pos": [0.0], "scale_neg": [-8.0]},
    ),
    Case(
        title="all zero",
        method=TTQ(init="data"),
        latent=[[0.0, -0.0]],
        codes=[[0, 0]],
        scale_pos=1.0,
        scale_neg=1.0,
        g=[[1.0, 2.0]],
        latent_grad=[[1.0, 2.0]],
        scale_grads={"scale_pos": [0.0], "scale_neg": [0.0]},
    ),
    Case(
        title="a scale that went negative counts as 1e-6 and is only ever raised (a positive gradient is dropped)",
        method=TTQ(threshold=0.5),
        latent=[[1.0, -1.0]],
        codes=[[1, -1]],
        scale_pos=1.0,
        scale_neg=1.0,
        trained=(-0.5, -0.5),
        g=[[3.0, 5.0]],
        latent_grad=[[3e-6, 5e-6]],
        scale_grads={"scale_pos": [0.0], "scale_neg": [-5.0]},  # dL/dWp = 3 would lower Wp; dL/dWn = −5 raises Wn
    ),
    Case(
        # Δ = 0.05 · 0.5: all are kept. Wp = Wn = 0.5.
        title="all equal",
        method=TTQ(init="data"),
        latent=[[0.5, -0.5, 0.5]],
        codes=[[1, -1, 1]],
        scale_pos=0.5,
        scale_neg=0.5,
        g=[[2.0, 4.0, 6.0]],
        latent_grad=[[1.0, 2.0, 3.0]],
        scale_grads={"scale_pos": [8.0], "scale_neg": [-4.0]},
    ),
]
