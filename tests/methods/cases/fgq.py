"""Fine-grained quantization: (Σ of the k largest)²/k is worked out for every k in the comments."""

from __future__ import annotations

from cases._case import Case
from tritkit.methods import FGQ

CASES = [
    Case(
        # 4, 3, 1, 0.5: 16, 49/2 = 24.5, 64/3 = 21.3, 72.25/4 = 18.1: k = 2, α = 3.5.
        # 2, 2, 2, 1: 4, 8, 12, 49/4 = 12.25: k = 4, α = 1.75.
        title="two outputs, one group each",
        method=FGQ(),
        latent=[[4.0, -3.0, 1.0, 0.5], [-2.0, 2.0, 1.0, 2.0]],
        codes=[[1, -1, 0, 0], [-1, 1, 1, 1]],
        scale_pos=[[3.5], [1.75]],
        scale_neg=[[3.5], [1.75]],
        g=[[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]],
        latent_grad=[[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]],
    ),
    Case(
        # Groups of 2 in 5 channels. 8, 1: 64, 81/2. 4, 3: 16, 49/2. 0.25 alone.
        title="a shorter last group",
        method=FGQ(group_size=2),
        latent=[[1.0, -8.0, 4.0, 3.0, -0.25]],
        codes=[[0, -1, 1, 1, -1]],
        scale_pos=[[8.0, 3.5, 0.25]],
        scale_neg=[[8.0, 3.5, 0.25]],
        g=[[1.0, 2.0, 3.0, 4.0, 5.0]],
        latent_grad=[[1.0, 2.0, 3.0, 4.0, 5.0]],
    ),
    Case(
        # 3, 1, 1, 1: 9, 8, 25/3, 9: k = 1 and k = 4 give one error; the smaller k wins.
        title="two sparsities with one error",
        method=FGQ(),
        latent=[[1.0, 1.0, -3.0, -1.0]],
        codes=[[0, 0, -1, 0]],
        scale_pos=[[3.0]],
        scale_neg=[[3.0]],
        g=[[1.0, 2.0, 3.0, 4.0]],
        latent_grad=[[1.0, 2.0, 3.0, 4.0]],
    ),
    Case(
        title="equal magnitudes stay together; zeros stay zero; a group of zeros has no scale",
        method=FGQ(group_size=3),
        latent=[[0.5, -0.5, 0.5, 0.0, -2.0, 0.0, 0.0, 0.0, 0.0]],
        codes=[[1, -1, 1, 0, -1, 0, 0, 0, 0]],
        scale_pos=[[0.5, 2.0, 0.0]],
        scale_neg=[[0.5, 2.0, 0.0]],
        g=[[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]],
        latent_grad=[[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]],
    ),
    Case(
        title="one element, more group than channels",
        method=FGQ(group_size=64),
        latent=[[-0.25]],
        codes=[[-1]],
        scale_pos=[[0.25]],
        scale_neg=[[0.25]],
        g=[[7.0]],
        latent_grad=[[7.0]],
    ),
    Case(
        # plus: 6, 4, 1: 36, 50, 121/3 = 40.3: k = 2, Wp = 5. minus: 2, 0.5: 4, 3.125: k = 1, Wn = 2.
        title="a scale a sign",
        method=FGQ(group_size=8, scales="separate"),
        latent=[[6.0, -2.0, 4.0, 1.0, -0.5]],
        codes=[[1, -1, 1, 0, 0]],
        scale_pos=[[5.0]],
        scale_neg=[[2.0]],
        g=[[1.0, 2.0, 3.0, 4.0, 5.0]],
        latent_grad=[[1.0, 2.0, 3.0, 4.0, 5.0]],
    ),
    Case(
        # plus: 2, 2: 4, 8: k = 2. No minus. The second row keeps nothing.
        title="a scale a sign: no weight of one sign, all equal, all zero",
        method=FGQ(group_size=8, scales="separate"),
        latent=[[2.0, 0.0, 2.0], [0.0, -0.0, 0.0]],
        codes=[[1, 0, 1], [0, 0, 0]],
        scale_pos=[[2.0], [0.0]],
        scale_neg=[[0.0], [0.0]],
        g=[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]],
        latent_grad=[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]],
    ),
    Case(
        # α = 3, 2, 1. Powers m leave Σα² − (Σ α·m)² / Σm² with the unit Σ α·m / Σm²:
        # 4, 2, 1: 14 − 17²/21 = 0.24; 2, 2, 1: 14 − 11²/9 = 0.56; 2, 1, 1: 14 − 9²/6 = 0.5. So the unit is 17/21.
        title="multipliers that are powers of two",
        method=FGQ(group_size=2, multipliers="power-of-two"),
        latent=[[3.0, -3.0, 2.0, 2.0, -1.0, -1.0]],
        codes=[[1, -1, 1, 1, -1, -1]],
        scale_pos=[[68 / 21, 34 / 21, 17 / 21]],
        scale_neg=[[68 / 21, 34 / 21, 17 / 21]],
        g=[[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]],
        latent_grad=[[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]],
    ),
    Case(
        title="all equal",
        method=FGQ(),
        latent=[[0.5, -0.5, 0.5, 0.5]],
        codes=[[1, -1, 1, 1]],
        scale_pos=[[0.5]],
        scale_neg=[[0.5]],
        g=[[1.0, 2.0, 3.0, 4.0]],
        latent_grad=[[1.0, 2.0, 3.0, 4.0]],
    ),
]
