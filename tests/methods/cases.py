"""Numbers worked by hand: one list of cases for each method. A new method adds its list here.

`g` is dL/dweight. The expected values follow from the formulas in the method's docstring; no case calls our code.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tritkit.methods import TTQ, TWN, Method, TTQConstantSparsity

Rows = list[list[float]]


@dataclass(frozen=True)
class Case:
    """One latent weight [O, I] and everything a method makes of it."""

    title: str
    method: Method
    latent: Rows
    codes: list[list[int]]
    scale_pos: float | Rows  # what `project` finds
    scale_neg: float | Rows
    g: Rows
    latent_grad: Rows
    trained: tuple[float, float] | None = None  # learned scales put in place before forward and backward
    scale_grads: dict[str, list[float]] = field(default_factory=dict)


_TTQ = [
    Case(
        # Δ = 0.5 · 1: both ±0.5 are ties. Kept: 1 and −1, −0.75.
        title="ties, eq. 8 with Wp = 2, Wn = 3",
        method=TTQ(threshold=0.5),
        latent=[[1.0, -1.0, 0.5, -0.5], [0.25, 0.0, -0.75, 0.5]],
        codes=[[1, -1, 0, 0], [0, 0, -1, 0]],
        scale_pos=1.0,
        scale_neg=1.0,
        trained=(2.0, 3.0),
        g=[[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]],
        latent_grad=[[2.0, 6.0, 3.0, 4.0], [5.0, 6.0, 21.0, 8.0]],
        scale_grads={"scale_pos": [1.0], "scale_neg": [-9.0]},
    ),
    Case(
        # Wp = mean(1), Wn = mean(1, 0.75)
        title="scales from the data, straight-through",
        method=TTQ(threshold=0.5, init="data", latent_gradient="straight-through"),
        latent=[[1.0, -1.0, 0.5, -0.5], [0.25, 0.0, -0.75, 0.5]],
        codes=[[1, -1, 0, 0], [0, 0, -1, 0]],
        scale_pos=1.0,
        scale_neg=0.875,
        g=[[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]],
        latent_grad=[[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]],
        scale_grads={"scale_pos": [1.0], "scale_neg": [-9.0]},
    ),
    Case(
        title="one element: the side without weights takes the other's mean",
        method=TTQ(init="data"),
        latent=[[-0.25]],
        codes=[[-1]],
        scale_pos=0.25,
        scale_neg=0.25,
        g=[[8.0]],
        latent_grad=[[2.0]],  # 8 · Wn
        scale_grads={"scale_pos": [0.0], "scale_neg": [-8.0]},
    ),
    Case(
        title="all zero",
        method=TTQ(init="data"),
        latent=[[0.0, -0.0]],
        codes=[[0, 0]],
        scale_pos=1.0,
        scale_neg=1.0,
        g=[[1.0, 2.0]],
        latent_grad=[[1.0, 2.0]],
        scale_grads={"scale_pos": [0.0], "scale_neg": [0.0]},
    ),
    Case(
        title="a scale that went negative counts as 1e-6 and is only ever raised (a positive gradient is dropped)",
        method=TTQ(threshold=0.5),
        latent=[[1.0, -1.0]],
        codes=[[1, -1]],
        scale_pos=1.0,
        scale_neg=1.0,
        trained=(-0.5, -0.5),
        g=[[3.0, 5.0]],
        latent_grad=[[3e-6, 5e-6]],
        scale_grads={"scale_pos": [0.0], "scale_neg": [-5.0]},  # dL/dWp = 3 would lower Wp; dL/dWn = −5 raises Wn
    ),
]

_CONSTANT_SPARSITY = [
    Case(
        # k = round(0.4 · 5) = 2, Δ = 0.25: the tie −0.25 and 0.125 become zero. Wp = mean(0.5, 1), Wn = 0.75.
        title="second smallest magnitude",
        method=TTQConstantSparsity(init="data"),
        latent=[[0.125, -0.25, 0.5, -0.75, 1.0]],
        codes=[[0, 0, 1, -1, 1]],
        scale_pos=0.75,
        scale_neg=0.75,
        g=[[1.0, 2.0, 3.0, 4.0, 5.0]],
        latent_grad=[[1.0, 2.0, 2.25, 3.0, 3.75]],
        scale_grads={"scale_pos": [8.0], "scale_neg": [-4.0]},
    ),
    Case(
        title="all equal: every weight ties",
        method=TTQConstantSparsity(),
        latent=[[0.5, -0.5, 0.5]],
        codes=[[0, 0, 0]],
        scale_pos=1.0,
        scale_neg=1.0,
        g=[[1.0, 2.0, 3.0]],
        latent_grad=[[1.0, 2.0, 3.0]],
        scale_grads={"scale_pos": [0.0], "scale_neg": [0.0]},
    ),
    Case(
        title="no sparsity: binary but for exact zeros",
        method=TTQConstantSparsity(sparsity=0.0),
        latent=[[0.001, -2.0, 0.0]],
        codes=[[1, -1, 0]],
        scale_pos=1.0,
        scale_neg=1.0,
        g=[[1.0, 2.0, 3.0]],
        latent_grad=[[1.0, 2.0, 3.0]],
        scale_grads={"scale_pos": [1.0], "scale_neg": [-2.0]},
    ),
]

_TWN = [
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

CASES: dict[str, list[Case]] = {"ttq": _TTQ, "ttq-constant-sparsity": _CONSTANT_SPARSITY, "twn": _TWN}
