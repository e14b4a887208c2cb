"""BitNet's absmean."""

from __future__ import annotations

from cases._case import Case
from tritkit.methods import AbsMean

CASES = [
    Case(
        # γ = 8 / 4, Δ = 1: −1 / γ = −0.5 rounds to 0.
        title="tie",
        method=AbsMean(),
        latent=[[4.0, -1.0], [0.0, -3.0]],
        codes=[[1, 0], [0, -1]],
        scale_pos=2.0,
        scale_neg=2.0,
        g=[[1.0, 2.0], [3.0, 4.0]],
        latent_grad=[[1.0, 2.0], [3.0, 4.0]],
    ),
    Case(
        title="all equal: every weight rounds to ±1",
        method=AbsMean(),
        latent=[[0.5, -0.5], [0.5, 0.5]],
        codes=[[1, -1], [1, 1]],
        scale_pos=0.5,
        scale_neg=0.5,
        g=[[1.0, 2.0], [3.0, 4.0]],
        latent_grad=[[1.0, 2.0], [3.0, 4.0]],
    ),
    Case(
        title="one element",
        method=AbsMean(),
        latent=[[-0.25]],
        codes=[[-1]],
        scale_pos=0.25,
        scale_neg=0.25,
        g=[[7.0]],
        latent_grad=[[7.0]],
    ),
    Case(
        title="all zero",
        method=AbsMean(),
        latent=[[0.0, -0.0]],
        codes=[[0, 0]],
        scale_pos=0.0,
        scale_neg=0.0,
        g=[[1.0, 2.0]],
        latent_grad=[[1.0, 2.0]],
    ),
]
