"""BinaryConnect (Courbariaux, Bengio, David 2015), https://arxiv.org/abs/1511.00363, and TernaryConnect (Lin,
Courbariaux, Memisevic, Bengio 2015), https://arxiv.org/abs/1510.03009: codes drawn at random in training.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from math import prod
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from tritkit.errors import UserError
from tritkit.methods._base import Method, Ternarizer, check_choice, check_weight, codes_of, straight_through
from tritkit.methods.bwn import signs
from tritkit.ternary import Ternary


@dataclass(frozen=True, kw_only=True)
class _Connect(Method):
    """What both share: everything but the codes."""

    stochastic: bool = True
    scale: Literal["one", "glorot", "data"] = "one"

    def __post_init__(self) -> None:
        if not isinstance(self.stochastic, bool):
            raise UserError(f"stochastic must be True or False, got {self.stochastic!r}")
        check_choice("scale", self.scale, ("one", "glorot", "data"))

    @abstractmethod
    def delta(self, scale: Tensor) -> Tensor:
        """The threshold of the deterministic codes at H = scale."""

    @abstractmethod
    def codes(self, weight: Tensor, scale: Tensor) -> Tensor:
        """The deterministic codes, in the weight's dtype."""

    @abstractmethod
    def draw(self, share: Tensor) -> Tensor:
        """Random codes with the mean clip(share, −1, 1), in float32 as `share`, which is w / H."""

    @abstractmethod
    def _fit(self, weight: Tensor) -> float:
        """The H that suits these weights; 0 where all are zero."""

    def project(self, weight: Tensor) -> Ternary:
        return self.build(weight).ternary(weight)

    def build(self, weight: Tensor) -> Ternarizer:
        check_weight(weight)
        return _ConnectTernarizer(self, weight.new_full((1,), self._first_scale(weight.detach())))

    def _first_scale(self, weight: Tensor) -> float:
        if self.scale == "glorot":
            fans = prod(weight.shape[1:]) + weight.shape[0] * prod(weight.shape[2:])
            return float((1.5 / fans) ** 0.5)
        return (self._fit(weight) or 1.0) if self.scale == "data" else 1.0


@dataclass(frozen=True, kw_only=True)
class BinaryConnect(_Connect):
    """Weights −H or +H, in training drawn so that their mean is the latent weight.

    Forward:

        weight = +H with probability p = clip((w/H + 1) / 2, 0, 1),  else −H      in training, stochastic=True
        weight = +H where w ≥ 0,  −H where w < 0                                  in evaluation, or stochastic=False

    so that in training E[weight] = w and Var[weight] = H² − w² for |w| ≤ H. `project` and `ternary` give the
    deterministic codes. Draws come from PyTorch's global generator of the latent's device, anew in every pass.
    Ties: w = 0 gives +H. There are no zeros.
    Gradient: dL/dw = dL/dweight, unchanged; after each step (`surgery.after_step_`) latents are clipped to [−H, H].
    Parameters: none. Buffer: `scale`, H, one element, fixed from the start.

    H, and starting from float weights: float weights are far smaller than 1. With H = 1 their p is then near 1/2:
    stochastic training begins with the latents almost drowned in noise of variance 1, no latent comes near the
    clip, and a gradient step of float size is small beside H, so codes change late. Either rescale the learning
    rate, start from random weights of size 1, or let H follow the layer; batch norm makes H itself irrelevant.
    Statistics of batch norm gathered with drawn weights do not fit the deterministic network: measure them again
    with `reestimate_bn_`.

    stochastic: True draws codes in training; False uses the deterministic ones there too.
    scale: H. "one" is 1, the paper's text. "glorot" is sqrt(1.5 / (fan_in + fan_out)), half of Glorot's bound, with
        both fans counting the kernel's positions: the authors' code. "data" is mean|w| of the first weights,
        the least-squares scale of their signs, for networks that were trained in float; 1 if all are zero.
    """

    name: ClassVar[str] = "binary-connect"
    summary: ClassVar[str] = "w → ±H, +H with p = clip((w/H + 1)/2, 0, 1) in training;  dL/dw = g;  |w| ≤ H kept"
    paper: ClassVar[str] = (
        "Courbariaux, Bengio, David 2015, BinaryConnect: Training Deep Neural Networks with binary weights during "
        "propagations, https://arxiv.org/abs/1511.00363"
    )

    def delta(self, scale: Tensor) -> Tensor:
        return torch.zeros_like(scale)

    def codes(self, weight: Tensor, scale: Tensor) -> Tensor:
        return signs(weight)

    def draw(self, share: Tensor) -> Tensor:
        return -signs(torch.rand_like(share).sub_((share + 1) / 2))

    def _fit(self, weight: Tensor) -> float:
        return float(weight.double().abs().mean())


@dataclass(frozen=True, kw_only=True)
class TernaryConnect(_Connect):
    """Weights −H, 0 or +H, in training drawn so that their mean is the latent weight.

    Forward:

        weight = H · sign(w) with probability p = min(|w|/H, 1),  else 0          in training, stochastic=True
        weight = H · sign(w) where |w| > H/2,  0 where |w| ≤ H/2                  in evaluation, or stochastic=False

    so that in training E[weight] = w and Var[weight] = |w| · (H − |w|) for |w| ≤ H. `project` and `ternary` give the
    deterministic codes (the nearest value). Draws come from PyTorch's global generator of the latent's device,
    anew in every pass.
    Ties: |w| = H/2 gives 0.
    Gradient: dL/dw = dL/dweight, unchanged; after each step (`surgery.after_step_`) latents are clipped to [−H, H].
    Parameters: none. Buffer: `scale`, H, one element, fixed from the start.

    H, and starting from float weights: float weights are far smaller than 1. With H = 1 the deterministic codes of a
    trained float network are then nearly all 0, and drawn ones are rarely anything else: the network is silent.
    Either start from random weights of size 1, or let H follow the layer; batch norm makes H itself irrelevant.
    Statistics of batch norm gathered with drawn weights do not fit the deterministic network: measure them again
    with `reestimate_bn_`.

    stochastic: True (the paper) draws codes in training; False uses the deterministic ones there too.
    scale: H. "one" is 1, the paper's. "glorot" is sqrt(1.5 / (fan_in + fan_out)), as in the code of BinaryConnect.
        "data" is 1.5 · mean|w| of the first weights, for networks that were trained in float; its threshold
        0.75 · mean|w| lies between the least-squares ones of uniform (2/3) and Gaussian (0.767) weights. 1 if all
        are zero.
    """

    name: ClassVar[str] = "ternary-connect"
    summary: ClassVar[str] = "w → H·sign(w) with p = min(|w|/H, 1) in training, else 0;  dL/dw = g;  |w| ≤ H kept"
    paper: ClassVar[str] = (
        "Lin, Courbariaux, Memisevic, Bengio 2015, Neural Networks with Few Multiplications, "
        "https://arxiv.org/abs/1510.03009"
    )

    def delta(self, scale: Tensor) -> Tensor:
        return scale / 2

    def codes(self, weight: Tensor, scale: Tensor) -> Tensor:
        return codes_of(weight, self.delta(scale))

    def draw(self, share: Tensor) -> Tensor:
        return codes_of(share, torch.rand_like(share))

    def _fit(self, weight: Tensor) -> float:
        return 1.5 * float(weight.double().abs().mean())


class _ConnectTernarizer(Ternarizer):
    method: _Connect
    scale: Tensor

    def __init__(self, method: _Connect, scale: Tensor) -> None:
        super().__init__(method)
        self.register_buffer("scale", scale)

    def forward(self, latent: Tensor) -> Tensor:
        with torch.no_grad():
            if self.training and self.method.stochastic:
                # float32: the steps of bfloat16 and float16 draws would be coarse enough to bias the mean
                codes = self.method.draw((latent / self.scale).to(torch.float32)).to(latent)
            else:
                codes = self.method.codes(latent, self.scale)
            weight = codes * self.scale
        return straight_through(latent, weight)

    def ternary(self, latent: Tensor) -> Ternary:
        check_weight(latent)
        codes = self.method.codes(latent, self.scale).to(torch.int8)
        return Ternary.of(codes, self.scale.to(torch.float32, copy=True).reshape(()))

    def delta(self, latent: Tensor) -> Tensor:
        return self.method.delta(self.scale)

    @torch.no_grad()
    def after_step_(self, latent: nn.Parameter) -> None:
        latent.clamp_(-self.scale, self.scale)
