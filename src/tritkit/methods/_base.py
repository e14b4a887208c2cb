"""What a method is: a frozen dataclass that turns a float weight into a `Ternary` and trains it.

A new method is one file in this folder with a subclass of `Method` (or of `StraightThroughMethod` when
codes and scales are functions of the latent weight alone). It registers itself by its `name`.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from tritkit.errors import UserError
from tritkit.ternary import Ternary

_CLEAR = 1e-3  # how far from the threshold, as a share of it, latents with given codes stay

REGISTRY: dict[str, type[Method]] = {}


@dataclass(frozen=True)
class Method(ABC):
    """How float weights become ternary ones, at once (`project`) and in training (`build`).

    Every concrete subclass sets
        name:    the short name of recipes and the command line, unique;
        summary: its formulas in one line;
        paper:   authors, year and link.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    paper: ClassVar[str]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" in cls.__dict__:
            _register(cls)

    @abstractmethod
    def project(self, weight: Tensor) -> Ternary:
        """Codes and scales of `weight` [O, ...] before any training. UserError on NaN, infinity or no
        float.
        """

    @abstractmethod
    def build(self, weight: Tensor) -> Ternarizer:
        """The parametrization that trains `weight`; its parameters and buffers live beside the weight."""

    @property
    def why_not_ternary(self) -> str | None:
        """None where the trained weight is ternary; else the reason it is not, as `export` gives it. `project` and
        `Ternarizer.ternary` then raise UnsupportedError with it.
        """
        return None

    def params(self) -> dict[str, Any]:
        """The fields as plain values: `get(method.name, **method.params()) == method`."""
        return dataclasses.asdict(self)


class Ternarizer(nn.Module):
    """The parametrization that a method puts on one weight: latent weight in, ternary weight out.

    The latent weight stays an ordinary parameter of the layer (`parametrizations.weight.original`); what a
    method learns besides are parameters of this module.
    """

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.method = method

    def forward(self, latent: Tensor) -> Tensor:
        """The weight the layer computes with: +Wp, 0, −Wn in the latent's shape and dtype."""
        raise NotImplementedError

    def ternary(self, latent: Tensor) -> Ternary:
        """The codes and scales of now, with `dequantize()` equal to `forward` in evaluation for a float32 latent.
        UnsupportedError where `method.why_not_ternary`.
        """
        raise NotImplementedError

    def delta(self, latent: Tensor) -> Tensor:
        """The threshold Δ of now: code ≠ 0 where |w| > Δ. It broadcasts against the latent."""
        raise NotImplementedError

    def after_step_(self, latent: nn.Parameter) -> None:
        """What the method does to the latent weight after each optimizer step, such as clipping it; nothing here."""

    @torch.no_grad()
    def start_(self, latent: nn.Parameter, wanted: Ternary) -> None:
        """Set latents and parameters so that `ternary(latent)` is `wanted`. A method with a trained scale keeps each
        latent as near to what it is as its code allows; here it becomes the weight itself, +Wp, 0 or −Wn.
        """
        latent.copy_(wanted.dequantize())

    def set_scales_(self, pos: Tensor, neg: Tensor) -> None:
        """Overwrite learned scales. UserError where the method computes its scales from the latents."""
        raise UserError(f"{self.method.name} computes its scales from the latent weights; they cannot be set")

    def extra_repr(self) -> str:
        return repr(self.method)


@dataclass(frozen=True)
class StraightThroughMethod(Method):
    """A method without parameters of its own: dL/dlatent = dL/dweight, unchanged and unclipped."""

    def scale_group(self, weight: Tensor) -> int | None:
        """N where `scale` gives one scale for each group of N input channels (`Ternary.group_size`); else None."""
        return None

    @abstractmethod
    def delta(self, weight: Tensor) -> Tensor:
        """The threshold Δ, in a shape that broadcasts against the weight."""

    @abstractmethod
    def scale(self, weight: Tensor, codes: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """The symmetric scale of these codes, or the pair (Wp, Wn), in the weight's dtype and one of the shapes
        `Ternary` allows. `codes` are those of `codes_of`, numbers in the weight's dtype.
        """

    def project(self, weight: Tensor) -> Ternary:
        check_weight(weight)
        weight = weight.detach()
        codes = codes_of(weight, self.delta(weight))
        scale, size = self.scale(weight, codes), self.scale_group(weight)
        codes = codes.to(torch.int8)
        if isinstance(scale, Tensor):
            return Ternary.of(codes, scale.to(torch.float32), size)
        return Ternary(codes, scale[0].to(torch.float32), scale[1].to(torch.float32), size)

    def build(self, weight: Tensor) -> Ternarizer:
        check_weight(weight)
        return _StraightThrough(self)


class _StraightThrough(Ternarizer):
    method: StraightThroughMethod

    def forward(self, latent: Tensor) -> Tensor:
        with torch.no_grad():
            codes = codes_of(latent, self.method.delta(latent))
            scale = self.method.scale(latent, codes)
            if isinstance(scale, Tensor):
                weight = codes * self._expand(scale, codes)
            else:
                plus, minus = (self._expand(side, codes) for side in scale)
                weight = codes.clamp(min=0) * plus + codes.clamp(max=0) * minus
        return straight_through(latent, weight)

    def ternary(self, latent: Tensor) -> Ternary:
        return self.method.project(latent)

    def delta(self, latent: Tensor) -> Tensor:
        return self.method.delta(latent.detach())

    def _expand(self, scale: Tensor, codes: Tensor) -> Tensor:
        size = self.method.scale_group(codes)
        return scale if size is None else scale.repeat_interleave(size, dim=1)[:, : codes.shape[1]]


def codes_of(weight: Tensor, delta: Tensor) -> Tensor:
    """+1 where w > Δ, −1 where w < −Δ, else 0. A tie gives 0, so codes(−w) = −codes(w).

    In the weight's dtype, as everything that training does with codes: on a CPU, mixed dtypes and `torch.where` cost
    20 to 40 times what float arithmetic does.
    """
    plus, minus = beyond(weight, delta)
    return plus.sub_(minus)


def beyond(weight: Tensor, delta: Tensor) -> tuple[Tensor, Tensor]:
    """1 where w > Δ, else 0; and 1 where w < −Δ, else 0. In the weight's shape and dtype, both fresh."""
    weight, delta = weight.detach(), delta.detach()
    plus = torch.gt(weight, delta, out=torch.empty_like(weight))
    return plus, torch.lt(weight, -delta, out=torch.empty_like(weight))


def with_codes(latent: Tensor, codes: Tensor, delta: Tensor, most: Tensor) -> Tensor:
    """The latents nearest to `latent` that have these codes at the threshold `delta` and magnitudes of at most `most`
    (both broadcast; delta < most).
    """
    kept, dropped = delta * (1 + _CLEAR), delta * (1 - _CLEAR)
    along = torch.minimum((latent * codes).clamp(min=0).maximum(kept), most)
    return torch.where(codes == 0, latent.maximum(-dropped).minimum(dropped), codes * along)


def where_positive(value: Tensor, key: Tensor) -> Tensor:
    """`value` where key > 0, else 0, also where the value is infinite: a product with a mask would make NaN of that.

    It is the backward pass of ReLU, and the only selection that PyTorch vectorises on a CPU.
    """
    return cast(Tensor, torch.ops.aten.threshold_backward(value, key, 0))


def straight_through(latent: Tensor, weight: Tensor) -> Tensor:
    """`weight` in the forward pass, the identity from `latent` in the backward pass.

    Not `latent + (weight − latent).detach()`: rounding there makes values that are not exactly ±scale.
    """
    return cast(Tensor, _Identity.apply(latent, weight))  # type: ignore[no-untyped-call]


class _Identity(torch.autograd.Function):
    @staticmethod
    def forward(latent: Tensor, weight: Tensor) -> Tensor:
        return weight.view_as(weight)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None


def check_weight(weight: Tensor) -> None:
    """UserError unless `weight` is a non-empty tensor [O, ...] of finite floating-point numbers."""
    if not isinstance(weight, Tensor) or not weight.is_floating_point():
        given = weight.dtype if isinstance(weight, Tensor) else type(weight).__name__
        raise UserError(f"only floating-point weights can be made ternary, got {given}")
    if weight.dim() == 0 or weight.numel() == 0:
        raise UserError(f"a weight has the shape [O, ...] without empty sides, got {list(weight.shape)}")
    bad = int((~torch.isfinite(weight.detach())).sum())
    if bad:
        raise UserError(f"{bad} of {weight.numel()} weights are NaN or infinite; ternary codes need finite weights")


def check_range(name: str, value: float, low: float, high: float) -> None:
    """UserError unless low ≤ value < high."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value < high:
        raise UserError(f"{name} must be in [{low:g}, {high:g}), got {value!r}")


def check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    """UserError unless value is one of `allowed`."""
    if value not in allowed:
        raise UserError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {value!r}")


def check_one(pos: Tensor, neg: Tensor, method: Method) -> None:
    """UserError unless both scales are single numbers."""
    if pos.numel() != 1 or neg.numel() != 1:
        raise UserError(f"{method.name} has one scale a layer and sign, got {list(pos.shape)} and {list(neg.shape)}")


def _register(cls: type[Method]) -> None:
    missing = [field for field in ("summary", "paper") if not isinstance(getattr(cls, field, None), str)]
    if missing:
        raise TypeError(f"method {cls.__name__} must define {' and '.join(missing)}")
    other = REGISTRY.get(cls.name)
    if other is not None and (other.__module__, other.__qualname__) != (cls.__module__, cls.__qualname__):
        raise TypeError(
            f"method name {cls.name!r} is taken by {other.__module__}.{other.__qualname__}; "
            f"give {cls.__module__}.{cls.__qualname__} another one"
        )
    REGISTRY[cls.name] = cls
