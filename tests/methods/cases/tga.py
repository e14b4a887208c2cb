"""Truncated-Gaussian ternarization. λ(0.5) = 1.14107777, λ(1) = 1.52513528, from tables of the normal distribution."""

from __future__ import annotations

from cases._case import Case
from tritkit.methods import TGA, TGAWindow

_TEN = [[2.0, -2.0, 1.0, -1.0, 0.0], [0.0, 0.0, 0.0, 0.0, 0.0]]  # μ = 0, σ² = (4 + 4 + 1 + 1) / 10 = 1
_TEN_CODES = [[1, -1, 0, 0, 0], [0, 0, 0, 0, 0]]
_G = [[1.0, 2.0, 3.0, 4.0, 5.0], [6.0, 7.0, 8.0, 9.0, 10.0]]

CASES = [
    Case(
        # Δ = 1 = σ: ±1 tie. S = λ(1); dS/dΔ = λ(1)(λ(1) − 1) = 0.80090233; Σ g·codes = 1 − 2.
        title="ties",
        method=TGA(threshold=0.5),
        latent=_TEN,
        codes=_TEN_CODES,
        scale_pos=1.52513528,
        scale_neg=1.52513528,
        g=_G,
        latent_grad=_G,
        scale_grads={"threshold": [-0.80090233]},
    ),
    Case(
        title="without gradient correctness dL/dw = S · g",
        method=TGA(threshold=0.5, latent_gradient="scaled"),
        latent=[[1.0, -1.0]],  # Δ = σ / 2
        codes=[[1, -1]],
        scale_pos=1.14107777,
        scale_neg=1.14107777,
        g=[[1.0, 3.0]],
        latent_grad=[[1.14107777, 3.42323331]],
        scale_grads={"threshold": [-2 * 0.73151959]},  # λ(0.5)(λ(0.5) − 0.5)
    ),
    Case(
        # σ = 1, h = 0.25: only ±1 are near Δ. (−0.80090233 − 1.52513528 / 0.5 · (3 − 4)) / √10.
        title="window",
        method=TGAWindow(threshold=0.5, window=0.25),
        latent=_TEN,
        codes=_TEN_CODES,
        scale_pos=1.52513528,
        scale_neg=1.52513528,
        g=_G,
        latent_grad=_G,
        scale_grads={"threshold": [0.71131269]},
    ),
    Case(
        # Δ = μ = 0; σ counts as the smallest normal number, S = σ · λ(0).
        title="all zero",
        method=TGA(),
        latent=[[0.0, -0.0]],
        codes=[[0, 0]],
        scale_pos=1.17549435e-38 * 0.79788456,
        scale_neg=1.17549435e-38 * 0.79788456,
        g=[[1.0, 2.0]],
        latent_grad=[[1.0, 2.0]],
        scale_grads={"threshold": [0.0]},
    ),
    Case(
        # |μ| = 1 and Δ = 0.5 with σ = 0.015: nothing beyond the far threshold, λ(−33) = 0 and 0.015 · λ(100) / 2.
        # λ(t) = t + 1/t − 2/t³ for large t: 100.009998.
        title="one element, which has no spread",
        method=TGA(threshold=0.5),
        latent=[[-1.0]],
        codes=[[-1]],
        scale_pos=0.015 / 2 * 100.009998,
        scale_neg=0.015 / 2 * 100.009998,
        g=[[0.0]],
        latent_grad=[[0.0]],
        scale_grads={"threshold": [0.0]},
    ),
    Case(
        # The same spread of 0.0075, 1 % of μ + Δ = 0.75: 0.0075 · λ(100) / 2. Σ g·codes = 0.
        title="all equal and of one sign",
        method=TGA(threshold=0.5),
        latent=[[0.5, 0.5]],
        codes=[[1, 1]],
        scale_pos=0.0075 / 2 * 100.009998,
        scale_neg=0.0075 / 2 * 100.009998,
        g=[[2.0, -2.0]],
        latent_grad=[[2.0, -2.0]],
        scale_grads={"threshold": [0.0]},
    ),
    Case(
        # σ = 1, Δ = 0.5, h = 2: all are near Δ. (−2 · 0.73151959 − 1.14107777 / 4 · (1 − 3)) / √2.
        title="window, all equal",
        method=TGAWindow(threshold=0.5, window=2.0),
        latent=[[1.0, -1.0]],
        codes=[[1, -1]],
        scale_pos=1.14107777,
        scale_neg=1.14107777,
        g=[[1.0, 3.0]],
        latent_grad=[[1.0, 3.0]],
        scale_grads={"threshold": [-0.63109301]},
    ),
    Case(
        title="window, all zero",
        method=TGAWindow(),
        latent=[[0.0, -0.0]],
        codes=[[0, 0]],
        scale_pos=1.17549435e-38 * 0.79788456,
        scale_neg=1.17549435e-38 * 0.79788456,
        g=[[1.0, 2.0]],
        latent_grad=[[1.0, 2.0]],
        scale_grads={"threshold": [0.0]},
    ),
    Case(
        title="window, one element, which has no spread",
        method=TGAWindow(threshold=0.5),
        latent=[[-1.0]],
        codes=[[-1]],
        scale_pos=0.015 / 2 * 100.009998,
        scale_neg=0.015 / 2 * 100.009998,
        g=[[0.0]],
        latent_grad=[[0.0]],
        scale_grads={"threshold": [0.0]},
    ),
]
