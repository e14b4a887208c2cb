"""Learned step size quantization."""

from __future__ import annotations

from cases._case import Case
from tritkit.methods import LSQ

CASES = [
    Case(
        # mean|w| = 0.875, so s starts at 1.75 and 0.75 lies within Δ. With s = 1: 2 is clipped (slope 1), −0.75 → −1
        # (slope −1 + 0.75), 0.5 ties (slope −0.5), −0.25 → 0 (slope 0.25). dL/ds = (8 − 0.5 − 1.5 + 1) / √4.
        title="one step a tensor, tie",
        method=LSQ(),
        latent=[[2.0, -0.75], [0.5, -0.25]],
        codes=[[1, 0], [0, 0]],
        scale_pos=1.75,
        scale_neg=1.75,
        trained=(1.0, 1.0),
        g=[[8.0, 2.0], [3.0, 4.0]],
        latent_grad=[[0.0, 2.0], [3.0, 4.0]],
        scale_grads={"step": [3.5]},
    ),
    Case(
        # The same s = |−1|, whose derivative is −1.
        title="a step below zero counts by its magnitude",
        method=LSQ(),
        latent=[[2.0, -0.75], [0.5, -0.25]],
        codes=[[1, 0], [0, 0]],
        scale_pos=1.75,
        scale_neg=1.75,
        trained=(-1.0, -1.0),
        g=[[8.0, 2.0], [3.0, 4.0]],
        latent_grad=[[0.0, 2.0], [3.0, 4.0]],
        scale_grads={"step": [-3.5]},
    ),
    Case(
        # |w| = s belongs to the clipped: slopes ±1, no latent gradient. (1 − 3) / √4; the zeros have slope 0.
        title="weights at the step itself",
        method=LSQ(),
        latent=[[1.0, -1.0, 0.0, 0.0]],
        codes=[[1, -1, 0, 0]],
        scale_pos=1.0,
        scale_neg=1.0,
        g=[[1.0, 3.0, 5.0, 7.0]],
        latent_grad=[[0.0, 0.0, 5.0, 7.0]],
        scale_grads={"step": [-1.0]},
    ),
    Case(
        # Row means 0.5 and 2: every weight is at Δ. Slopes ∓0.5: (−0.5 + 1) / √4 and (−1.5 − 2) / √4.
        title="one step a channel, all-equal rows tie",
        method=LSQ(per="channel"),
        latent=[[0.5, -0.5], [2.0, 2.0]],
        codes=[[0, 0], [0, 0]],
        scale_pos=[[1.0], [4.0]],
        scale_neg=[[1.0], [4.0]],
        g=[[1.0, 2.0], [3.0, 4.0]],
        latent_grad=[[1.0, 2.0], [3.0, 4.0]],
        scale_grads={"step": [[0.25], [-1.75]]},
    ),
    Case(
        title="one element ties: s = 2 |w|",
        method=LSQ(),
        latent=[[-0.25]],
        codes=[[0]],
        scale_pos=0.5,
        scale_neg=0.5,
        g=[[8.0]],
        latent_grad=[[8.0]],
        scale_grads={"step": [4.0]},  # slope 0 − (−0.5)
    ),
    Case(
        title="all zero: s = 1",
        method=LSQ(),
        latent=[[0.0, -0.0]],
        codes=[[0, 0]],
        scale_pos=1.0,
        scale_neg=1.0,
        g=[[1.0, 2.0]],
        latent_grad=[[1.0, 2.0]],
        scale_grads={"step": [0.0]},
    ),
]
