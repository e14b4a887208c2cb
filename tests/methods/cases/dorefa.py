"""DoReFa's weights of one bit; more bits are not ternary (see test_dorefa.py)."""

from __future__ import annotations

from cases._case import Case
from tritkit.methods import DoReFa

CASES = [
    Case(
        # α = (4 + 1 + 0 + 3) / 4, for the layer
        title="one scale a layer, zero is plus",
        method=DoReFa(),
        latent=[[4.0, -1.0], [0.0, -3.0]],
        codes=[[1, -1], [1, -1]],
        scale_pos=2.0,
        scale_neg=2.0,
        g=[[1.0, 2.0], [3.0, 4.0]],
        latent_grad=[[1.0, 2.0], [3.0, 4.0]],
    ),
    Case(
        title="all zero",
        method=DoReFa(),
        latent=[[0.0, -0.0]],
        codes=[[0, 0]],
        scale_pos=0.0,
        scale_neg=0.0,
        g=[[1.0, 2.0]],
        latent_grad=[[1.0, 2.0]],
    ),
    Case(
        title="one element",
        method=DoReFa(weight_bits=1),
        latent=[[-0.25]],
        codes=[[-1]],
        scale_pos=0.25,
        scale_neg=0.25,
        g=[[7.0]],
        latent_grad=[[7.0]],
    ),
    Case(
        title="all equal",
        method=DoReFa(),
        latent=[[0.5, 0.5, -0.5]],
        codes=[[1, 1, -1]],
        scale_pos=0.5,
        scale_neg=0.5,
        g=[[1.0, 2.0, 3.0]],
        latent_grad=[[1.0, 2.0, 3.0]],
    ),
]
