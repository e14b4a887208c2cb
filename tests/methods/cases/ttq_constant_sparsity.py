"""TTQ with a fixed share of zeros."""

from __future__ import annotations

from cases._case import Case
from tritkit.methods import TTQConstantSparsity

CASES = [
    Case(
        # k = round(0.4 · 5) = 2, Δ = 0.25: the tie −0.25 and 0.125 become zero. Wp = mean(0.5, 1), Wn = 0.75.
        title="second smallest magnitude",
        method=TTQConstantSparsity(init="data"),
        latent=[[0.125, -0.25, 0.5, -0.75, 1.0]],
        codes=[[0, 0, 1, -1, 1]],
        scale_pos=0.75,
        scale_neg=0.75,
        g=[[1.0, 2.0, 3.0, 4.0, 5.0]],
        latent_grad=[[1.0, 2.0, 2.25, 3.0, 3.75]],
        scale_grads={"scale_pos": [8.0], "scale_neg": [-4.0]},
    ),
    Case(
        # k = round(0.4 · 4) = round(1.6) = 2
        title="the share is rounded",
        method=TTQConstantSparsity(),
        latent=[[0.125, -0.25, 0.5, -0.75]],
        codes=[[0, 0, 1, -1]],
        scale_pos=1.0,
        scale_neg=1.0,
        g=[[1.0, 2.0, 3.0, 4.0]],
        latent_grad=[[1.0, 2.0, 3.0, 4.0]],
        scale_grads={"scale_pos": [3.0], "scale_neg": [-4.0]},
    ),
    Case(
        title="all equal: every weight ties",
        method=TTQConstantSparsity(),
        latent=[[0.5, -0.5, 0.5]],
        codes=[[0, 0, 0]],
        scale_pos=1.0,
        scale_neg=1.0,
        g=[[1.0, 2.0, 3.0]],
        latent_grad=[[1.0, 2.0, 3.0]],
        scale_grads={"scale_pos": [0.0], "scale_neg": [0.0]},
    ),
    Case(
        title="no sparsity: binary but for exact zeros",
        method=TTQConstantSparsity(sparsity=0.0),
        latent=[[0.001, -2.0, 0.0]],
        codes=[[1, -1, 0]],
        scale_pos=1.0,
        scale_neg=1.0,
        g=[[1.0, 2.0, 3.0]],
        latent_grad=[[1.0, 2.0, 3.0]],
        scale_grads={"scale_pos": [1.0], "scale_neg": [-2.0]},
    ),
    Case(
        # k = round(0.4) = 0, Δ = 0
        title="one element",
        method=TTQConstantSparsity(init="data"),
        latent=[[-0.25]],
        codes=[[-1]],
        scale_pos=0.25,
        scale_neg=0.25,
        g=[[8.0]],
        latent_grad=[[2.0]],
        scale_grads={"scale_pos": [0.0], "scale_neg": [-8.0]},
    ),
    Case(
        title="all zero",
        method=TTQConstantSparsity(init="data"),
        latent=[[0.0, -0.0]],
        codes=[[0, 0]],
        scale_pos=1.0,
        scale_neg=1.0,
        g=[[1.0, 2.0]],
        latent_grad=[[1.0, 2.0]],
        scale_grads={"scale_pos": [0.0], "scale_neg": [0.0]},
    ),
]
