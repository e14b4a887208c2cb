"""ParetoQ's stretched elastic quantization."""

from __future__ import annotations

from cases._case import Case
from tritkit.methods import SEQ

CASES = [
    Case(
        # α = 3 and 1.5, Δ = 1 and 0.5, levels ±2 and ±1. Row 1: 3 is clipped (slope 2/3), −1 ties (slope 0 + 1/3):
        # (3 · 2/3 + 6 · 1/3) / √4. Row 2: 0.75 → 1 (slope 2/3 − 1/2), −1.5 is clipped: (6 · 1/6 − 9 · 2/3) / √4.
        title="one range a channel, tie",
        method=SEQ(),
        latent=[[3.0, -1.0], [0.75, -1.5]],
        codes=[[1, 0], [1, -1]],
        scale_pos=[[2.0], [1.0]],
        scale_neg=[[2.0], [1.0]],
        g=[[3.0, 6.0], [6.0, 9.0]],
        latent_grad=[[0.0, 6.0], [6.0, 0.0]],
        scale_grads={"step": [[2.0], [-2.5]]},
    ),
    Case(
        # Scales of 2 stand for α = 3: 1.5 → 2 (slope 2/3 − 1/2), −1 ties (slope 1/3), 0.75 → 0 (slope −1/4), and −2.985
        # lies between 0.99 · 3 and 3: clipped (slope −2/3). (6 · 1/6 + 3 · 1/3 − 4 · 1/4 − 3 · 2/3) / √4.
        title="one range a tensor, trained",
        method=SEQ(per="tensor"),
        latent=[[1.5, -1.0], [0.75, -2.985]],
        codes=[[1, -1], [0, -1]],  # before training α = 2.985, Δ = 0.995
        scale_pos=1.99,
        scale_neg=1.99,
        trained=(2.0, 2.0),
        g=[[6.0, 3.0], [4.0, 3.0]],
        latent_grad=[[6.0, 3.0], [4.0, 0.0]],
        scale_grads={"step": [-0.5]},
    ),
    Case(
        # The row of zeros takes α = 1.
        title="all-equal row and all-zero row",
        method=SEQ(),
        latent=[[0.75, -0.75], [0.0, -0.0]],
        codes=[[1, -1], [0, 0]],
        scale_pos=[[0.5], [2 / 3]],
        scale_neg=[[0.5], [2 / 3]],
        g=[[6.0, 3.0], [4.0, 5.0]],
        latent_grad=[[0.0, 0.0], [4.0, 5.0]],
        scale_grads={"step": [[1.0], [0.0]]},  # (6 − 3) · 2/3 / √4
    ),
    Case(
        title="one element",
        method=SEQ(),
        latent=[[-0.75]],
        codes=[[-1]],
        scale_pos=0.5,
        scale_neg=0.5,
        g=[[3.0]],
        latent_grad=[[0.0]],
        scale_grads={"step": [[-2.0]]},
    ),
]
