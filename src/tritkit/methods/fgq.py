"""Ternary networks with fine-grained quantization, FGQ (Mellempudi et al. 2017), https://arxiv.org/abs/1705.01462."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from tritkit.errors import UserError
from tritkit.methods._base import StraightThroughMethod, check_choice, where_positive
from tritkit.ternary import powers_of_two


@dataclass(frozen=True)
class FGQ(StraightThroughMethod):
    """The ternary weight closest to the latent one, group by group: each group of N weights has its own scale.

    Forward, exactly, for each group, computed again in every pass:

        min ‖w − α·codes‖²  over α ≥ 0 and codes in {−1, 0, +1}^N

    With the magnitudes sorted, a₁ ≥ a₂ ≥ … and S_k = a₁ + … + a_k, the best codes keep the k largest, where k
    maximises S_k²/k; then

        α = S_k / k,    Δ = a_{k+1} (0 where k = N),    codes = sign(w) where |w| > Δ, else 0

    which is the threshold α/2 up to weights that are not there.
    Ties: equal magnitudes are kept or dropped together (the optimum never splits them). Where two k give one
    error, the smaller k is taken. |w| = Δ gives 0, and so does every zero. A group without non-zero weights has α = 0.
    Gradient: dL/dw = dL/dweight, unclipped; none through Δ and α.
    Parameters: none. Scales: [O, ceil(I/N), kh, kw], `Ternary.group_size` = min(N, I). The last group is shorter where
    N does not divide I.

    group_size: N ≥ 1, in input channels. The paper's table has 4 (no training) and 64 (retrained).
    group: "weights" (the paper's count of 1 − 1/N multiplications saved: N consecutive input channels at one output,
        ky and kx) or "kernels" (N whole kh × kw kernels of one output share a scale; N ≥ I is one scale a channel, and
        depthwise layers, with their one input channel, need this). The same for linear layers.
    scales: "shared" (α for both signs, the paper's) or "separate" (the optimum above for the positive and for the
        negative weights of a group on their own: Wp and Wn with Δp and Δn; never a larger error).
    multipliers: "any" (in the file, each α is 1 to 64 units of its output) or "power-of-two" (1, 2, 4, ... 64 units:
        a shift does it. The codes stay; the α of an output are rounded together, by the unit with the least sum of
        squared changes of its weights: `tritkit.ternary.powers_of_two`).
    """

    name: ClassVar[str] = "fgq"
    summary: ClassVar[str] = "in each group of N weights: w → α·{−1, 0, 1}, min ‖w − α·codes‖² exactly;  dL/dw = g"
    paper: ClassVar[str] = (
        "Mellempudi et al. 2017, Ternary Neural Networks with Fine-Grained Quantization, https://arxiv.org/abs/1705.01462"
    )

    group_size: int = 4
    group: Literal["weights", "kernels"] = "weights"
    scales: Literal["shared", "separate"] = "shared"
    multipliers: Literal["any", "power-of-two"] = "any"

    def __post_init__(self) -> None:
        if not isinstance(self.group_size, int) or isinstance(self.group_size, bool) or self.group_size < 1:
            raise UserError(f"group_size must be a whole number of input channels, 1 or more, got {self.group_size!r}")
        check_choice("group", self.group, ("weights", "kernels"))
        check_choice("scales", self.scales, ("shared", "separate"))
        check_choice("multipliers", self.multipliers, ("any", "power-of-two"))

    def scale_group(self, weight: Tensor) -> int:
        _check_channels(weight)
        return min(self.group_size, weight.shape[1])

    def delta(self, weight: Tensor) -> Tensor:
        """The threshold of each weight's group (of its sign, with separate scales), in the weight's shape."""
        if self.scales == "shared":
            return self._each(_largest_dropped(self._groups(weight.abs())), weight)
        plus, minus = (_largest_dropped(self._groups(side.clamp(min=0))) for side in (weight, -weight))
        return torch.where(weight > 0, self._each(plus, weight), self._each(minus, weight))

    def scale(self, weight: Tensor, codes: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        sides = [codes] if self.scales == "shared" else [codes.clamp(min=0), codes.clamp(max=0)]
        counts = [self._groups(side != 0).sum(dim=-1) for side in sides]
        means = [
            self._groups(weight * side).sum(dim=-1) / count.clamp(min=1)  # of |w| over the codes that are not zero
            for side, count in zip(sides, counts, strict=True)
        ]
        if self.multipliers == "power-of-two":
            rounded = powers_of_two(torch.cat(means, dim=1).flatten(1), torch.cat(counts, dim=1).flatten(1))
            means = list(rounded.view(len(weight), -1, means[0].shape[2]).chunk(len(sides), dim=1))
        scales = [self._for_ternary(mean, weight) for mean in means]
        return scales[0] if len(scales) == 1 else (scales[0], scales[1])

    def multiplications(self, shape: tuple[int, ...]) -> int:
        """Multiplications for one position of the output of a layer with weights of `shape` [O, I, ...], as the paper
        counts them: the activations of a group are added and subtracted, then multiplied by its scale. Separate
        scales take two (one for a group of one weight). A float layer takes prod(shape).
        """
        outputs, channels, *kernel = shape
        area = prod(kernel)
        whole, rest = divmod(channels, self.group_size)
        clusters, weights = (area, 1) if self.group == "weights" else (1, area)
        most = 1 if self.scales == "shared" else 2
        each = whole * min(most, self.group_size * weights) + min(most, rest * weights)
        return outputs * clusters * each

    def _groups(self, value: Tensor) -> Tensor:
        """[O, I, ...] as [O, G, P, n] with one group in the last dimension, zeros after a short one; P positions."""
        size = self.scale_group(value)
        outputs, channels = value.shape[:2]
        filled = pad(value.reshape(outputs, channels, -1), (0, 0, 0, -channels % size))
        groups = filled.reshape(outputs, -(-channels // size), size, filled.shape[-1])
        return groups.transpose(2, 3) if self.group == "weights" else groups.flatten(2).unsqueeze(2)

    def _for_ternary(self, value: Tensor, weight: Tensor) -> Tensor:
        """[O, G, P] as [O, G, kh, kw]."""
        area = prod(weight.shape[2:])
        return value.expand(-1, -1, area).reshape(*value.shape[:2], *weight.shape[2:])

    def _each(self, value: Tensor, weight: Tensor) -> Tensor:
        """[O, G, P] as one value a weight."""
        whole = self._for_ternary(value, weight).repeat_interleave(self.scale_group(weight), dim=1)
        return whole[:, : weight.shape[1]]


def _check_channels(weight: Tensor) -> None:
    if weight.dim() < 2:
        raise UserError(f"groups of input channels need a weight of shape [O, I, ...], got {list(weight.shape)}")


def _largest_dropped(magnitudes: Tensor) -> Tensor:
    """The Δ of each group [..., n] of magnitudes: the largest one that the least-squares ternary vector drops, or 0."""
    ordered = magnitudes.sort(dim=-1, descending=True).values
    after = pad(ordered[..., 1:], (0, 1))
    count = torch.arange(1, ordered.shape[-1] + 1, device=ordered.device)
    score = ordered.cumsum(dim=-1) / count.sqrt()  # its square is S²/k; no square, no overflow
    score = where_positive(score, ordered - after)  # never between equal magnitudes, whatever the rounding
    return after.gather(-1, score.argmax(dim=-1, keepdim=True)).squeeze(-1)
