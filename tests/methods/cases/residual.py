"""Residual expansion with one term. Sums of several terms are no `Ternary`: test_residual.py has their numbers."""

from __future__ import annotations

from cases._case import Case
from tritkit.methods import Residual

CASES = [
    Case(
        # Δ = 0.5 · 4: −2 ties. S = (4 + 3) / 2. Only 0.5 lies within ±1: the others get no gradient.
        title="tie, gradient clipped",
        method=Residual(thresholds=(0.5,)),
        latent=[[4.0, -2.0], [0.5, -3.0]],
        codes=[[1, 0], [0, -1]],
        scale_pos=3.5,
        scale_neg=3.5,
        g=[[1.0, 2.0], [3.0, 4.0]],
        latent_grad=[[0.0, 0.0], [3.0, 0.0]],
    ),
    Case(
        title="all equal, at ±1 itself",
        method=Residual(),
        latent=[[1.0, -1.0]],
        codes=[[1, -1]],
        scale_pos=1.0,
        scale_neg=1.0,
        g=[[1.0, 2.0]],
        latent_grad=[[0.0, 0.0]],
    ),
    Case(
        title="one element",
        method=Residual(),
        latent=[[-0.25]],
        codes=[[-1]],
        scale_pos=0.25,
        scale_neg=0.25,
        g=[[7.0]],
        latent_grad=[[7.0]],
    ),
    Case(
        title="all zero",
        method=Residual(),
        latent=[[0.0, -0.0]],
        codes=[[0, 0]],
        scale_pos=0.0,
        scale_neg=0.0,
        g=[[1.0, 2.0]],
        latent_grad=[[1.0, 2.0]],
    ),
]
