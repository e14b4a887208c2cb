"""Binary weights with a scale a filter."""

from __future__ import annotations

from cases._case import Case
from tritkit.methods import BWN

CASES = [
    Case(
        # α = (0.5 + 1.5 + 2 + 0) / 4 = 1. The sign lets g pass for |w| ≤ 1 only; α's part is g / 4 everywhere.
        title="latents beyond 1, a zero",
        method=BWN(),
        latent=[[0.5, -1.5, 2.0, 0.0]],
        codes=[[1, -1, 1, 1]],
        scale_pos=[[1.0]],
        scale_neg=[[1.0]],
        g=[[4.0, 8.0, 12.0, 16.0]],
        latent_grad=[[1.0 + 4.0, 2.0, 3.0, 4.0 + 16.0]],
    ),
    Case(
        # α = 1; Σ g·sign(w) / 4 = (4 − 8 + 12 + 16) / 4 = 6, times each sign.
        title="the whole derivative of α",
        method=BWN(latent_gradient="full"),
        latent=[[0.5, -1.5, 2.0, 0.0]],
        codes=[[1, -1, 1, 1]],
        scale_pos=[[1.0]],
        scale_neg=[[1.0]],
        g=[[4.0, 8.0, 12.0, 16.0]],
        latent_grad=[[6.0 + 4.0, -6.0, 6.0, 6.0 + 16.0]],
    ),
    Case(
        # α = 0.5 (all equal), 0.375, 0: a filter of zeros has no scale and no codes.
        title="a scale for each filter: all equal, different, all zero",
        method=BWN(),
        latent=[[0.5, -0.5], [-0.25, 0.5], [0.0, -0.0]],
        codes=[[1, -1], [-1, 1], [0, 0]],
        scale_pos=[[0.5], [0.375], [0.0]],
        scale_neg=[[0.5], [0.375], [0.0]],
        g=[[2.0, 4.0], [8.0, 16.0], [2.0, 6.0]],
        latent_grad=[[1.0 + 1.0, 2.0 + 2.0], [4.0 + 3.0, 8.0 + 6.0], [1.0, 3.0]],
    ),
    Case(
        # Σ g·sign(w) / 2 = (2 − 4) / 2 = −1, and (2 + 6) / 2 = 4 with both zeros counted as plus; α = 0.5 and 0.
        title="the whole derivative: all equal, all zero",
        method=BWN(latent_gradient="full"),
        latent=[[0.5, -0.5], [0.0, -0.0]],
        codes=[[1, -1], [0, 0]],
        scale_pos=[[0.5], [0.0]],
        scale_neg=[[0.5], [0.0]],
        g=[[2.0, 4.0], [2.0, 6.0]],
        latent_grad=[[-1.0 + 1.0, 1.0 + 2.0], [4.0, 4.0]],
    ),
    Case(
        title="one element at the edge |w| = 1",
        method=BWN(),
        latent=[[-1.0]],
        codes=[[-1]],
        scale_pos=[[1.0]],
        scale_neg=[[1.0]],
        g=[[3.0]],
        latent_grad=[[3.0 + 3.0]],
    ),
]
