"""The exact optimum that TWN approximates."""

from __future__ import annotations

from cases._case import Case
from tritkit.methods import TWNExact

CASES = [
    Case(
        # S²/k: 16, 24.5, 21.3, 16. α = 3.5.
        title="one scale a tensor",
        method=TWNExact(),
        latent=[[4.0, -1.0], [0.0, -3.0]],
        codes=[[1, 0], [0, -1]],
        scale_pos=3.5,
        scale_neg=3.5,
        g=[[1.0, 2.0], [3.0, 4.0]],
        latent_grad=[[1.0, 2.0], [3.0, 4.0]],
    ),
    Case(
        # All equal: S²/k = k a². Zeros: nothing to keep. 9 against 16/2. 4, 4.5: the half still pays.
        title="one scale a channel: all equal, all zero, one kept, both kept",
        method=TWNExact(per="channel"),
        latent=[[0.5, -0.5], [0.0, -0.0], [3.0, -1.0], [-2.0, 1.0]],
        codes=[[1, -1], [0, 0], [1, 0], [-1, 1]],
        scale_pos=[[0.5], [0.0], [3.0], [1.5]],
        scale_neg=[[0.5], [0.0], [3.0], [1.5]],
        g=[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0]],
        latent_grad=[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0]],
    ),
    Case(
        # S²/k: 9, 8, 8.3, 9.
        title="one and four kept are equally good: the smaller count",
        method=TWNExact(),
        latent=[[1.0, -3.0, -1.0, 1.0]],
        codes=[[0, -1, 0, 0]],
        scale_pos=3.0,
        scale_neg=3.0,
        g=[[1.0, 2.0, 3.0, 4.0]],
        latent_grad=[[1.0, 2.0, 3.0, 4.0]],
    ),
    Case(
        title="one element",
        method=TWNExact(),
        latent=[[-0.25]],
        codes=[[-1]],
        scale_pos=0.25,
        scale_neg=0.25,
        g=[[7.0]],
        latent_grad=[[7.0]],
    ),
]
