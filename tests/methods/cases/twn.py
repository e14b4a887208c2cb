"""Ternary Weight Networks."""

from __future__ import annotations

from cases._case import Case
from tritkit.methods import TWN

CASES = [
    Case(
        # mean|w| = 2, Δ = 1: −1 ties. α = (4 + 3) / 2.
        title="one scale a tensor, tie",
        method=TWN(threshold_factor=0.5),
        latent=[[4.0, -1.0], [0.0, -3.0]],
        codes=[[1, 0], [0, -1]],
        scale_pos=3.5,
        scale_neg=3.5,
        g=[[1.0, 2.0], [3.0, 4.0]],
        latent_grad=[[1.0, 2.0], [3.0, 4.0]],
    ),
    Case(
        # Row means 2.5, 2, 0; Δ = 1.75, 1.4, 0. α = 4, 3.5 / 1 … the third row keeps nothing.
        title="one scale a channel, an all-zero channel",
        method=TWN(per="channel"),
        latent=[[4.0, -1.0], [0.5, -3.5], [0.0, 0.0]],
        codes=[[1, 0], [0, -1], [0, 0]],
        scale_pos=[[4.0], [3.5], [0.0]],
        scale_neg=[[4.0], [3.5], [0.0]],
        g=[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]],
        latent_grad=[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]],
    ),
    Case(
        title="all equal with Δ = mean: every weight ties",
        method=TWN(threshold_factor=1.0),
        latent=[[0.5, -0.5], [0.5, 0.5]],
        codes=[[0, 0], [0, 0]],
        scale_pos=0.0,
        scale_neg=0.0,
        g=[[1.0, 2.0], [3.0, 4.0]],
        latent_grad=[[1.0, 2.0], [3.0, 4.0]],
    ),
    Case(
        title="one element",
        method=TWN(),
        latent=[[-0.25]],
        codes=[[-1]],
        scale_pos=0.25,
        scale_neg=0.25,
        g=[[7.0]],
        latent_grad=[[7.0]],
    ),
]
