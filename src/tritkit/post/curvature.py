"""What a change of a layer's weights does to the network's outputs, to second order: one matrix for its inputs and one
for its outputs, for all layers at once from the float network and images without labels.

A change D [O, K] of the weights of a layer moves the outputs z by ⟨dz/dW, D⟩, and the divergence of softmax(z / T) by
half of the square of that along the directions v of its Fisher information F = diag(p) − p·pᵀ, p = softmax(z / T). With
M = Σ over positions of g·xᵀ [O, K] for the gradient g of v·z behind the layer's batch norm and its inputs x, the mean
over images and v of ⟨M, D⟩² is taken as a Kronecker product (Martens & Grosse 2015, K-FAC, arXiv 1503.05671; for
rounding Tseng et al. 2025, arXiv 2505.22988):

    trace(G·D·A·Dᵀ)        G = mean M·Mᵀ [O, O],   A = mean Mᵀ·M [K, K],   each up to a factor
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.utils.hooks import RemovableHandle

from tritkit.post.layers import Layer
from tritkit.post.moments import Share, columns_of, patches_of

__all__ = ["TEMPERATURE", "VECTORS", "Curvature", "curvatures"]

TEMPERATURE = 4.0  # T: training images leave softmax(z) hardly a direction in which it moves
VECTORS = 2  # directions v an image
_CHUNK = 16  # images; divides the share of every process
_SKETCH = 64  # with more outputs than this, so many random mixtures of M's rows and columns stand for all of them


@dataclass(frozen=True, eq=False)
class Curvature:
    """inputs: A, float64 [K, K], columns as `moments.as_columns` orders them. outputs: G, float64 [O, O]."""

    inputs: Tensor
    outputs: Tensor


@dataclass(eq=False)
class _Sums:
    """Of one layer: its inputs and the tensor behind it in the pass that runs, and A and G so far."""

    layer: Layer
    x: Tensor | None = None
    end: Tensor | None = None
    a: Tensor = field(init=False)
    g: Tensor = field(init=False)

    def __post_init__(self) -> None:
        weight = self.layer.module.weight
        self.a, self.g = (torch.zeros(n, n, dtype=torch.float64) for n in (weight[0].numel(), len(weight)))

    def watch(self) -> list[RemovableHandle]:
        """Note both from now on."""
        behind = self.layer.module if self.layer.norm is None else self.layer.norm[1]
        return [self.layer.module.register_forward_hook(self._reads), behind.register_forward_hook(self._gives)]

    def _reads(self, _: nn.Module, inputs: tuple[Tensor, ...], __: Tensor) -> None:
        self.x = inputs[0].detach()

    def _gives(self, _: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> Tensor:
        self.end = output
        return output.clone()  # what follows may work in place

    def add(self, patches: Tensor, gradient: Tensor | None, generator: torch.Generator) -> None:
        """What one direction says, by the gradient at `end`; None: the outputs do not depend on it."""
        if gradient is None:
            return
        moved = columns_of(self.layer.module, gradient)
        mixed = generator if moved.shape[1] > _SKETCH else None
        a, g = _rows(moved, patches, mixed), _rows(patches, moved, mixed)
        self.a += (a.T @ a).double()
        self.g += (g.T @ g).double()


def _rows(left: Tensor, right: Tensor, generator: torch.Generator | None) -> Tensor:
    """Rows r whose r·rᵀ sum to Mᵀ·M over all images, M = left·rightᵀ: those of M, or random mixtures of them, whose
    mean over the signs is the same.

    left, right: [n, channels, positions].
    """
    if left.shape[2] == 1:
        single: Tensor = left.norm(dim=1) * right[:, :, 0]
        return single
    if generator is not None and left.shape[1] > _SKETCH:
        signs = torch.randint(0, 2, (_SKETCH, left.shape[1]), generator=generator) * 2.0 - 1
        left = (signs / _SKETCH**0.5) @ left
    return (left @ right.transpose(1, 2)).flatten(0, 1)


def curvatures(net: GraphModule, layers: list[Layer], images: Tensor, share: Share) -> dict[str, Curvature]:
    """By name of the layers of the float network `net`, over the images of all processes; `images` are this one's.

    The directions drawn for an image depend on its number alone. Empty where `net` does not give one float tensor.
    """
    sums = [_Sums(layer) for layer in layers]
    handles = [handle for one in sums for handle in one.watch()]
    try:
        for start in range(0, len(images), _CHUNK):
            generator = torch.Generator().manual_seed((share.first + start) // _CHUNK)
            if not _look(net, sums, images[start : start + _CHUNK], generator):
                return {}
    finally:
        for handle in handles:
            handle.remove()
    total = share.processes.total
    return {one.layer.name: Curvature(total(one.a), total(one.g)) for one in sums}


def _look(net: GraphModule, sums: list[_Sums], images: Tensor, generator: torch.Generator) -> bool:
    """Add what some images say; False where the outputs cannot be differentiated."""
    with torch.enable_grad():
        outputs = net(images.clone().requires_grad_())
        if not isinstance(outputs, Tensor) or not outputs.requires_grad:
            return False
        ends = [one.end for one in sums if one.end is not None]
        patches = [_centred(one) for one in sums]
        for left in reversed(range(VECTORS)):
            direction = _direction(outputs.detach(), generator)
            gradients = torch.autograd.grad(outputs, ends, direction, retain_graph=left > 0, allow_unused=True)
            for one, some, gradient in zip(sums, patches, gradients, strict=True):
                one.add(some, gradient, generator)
    for one in sums:
        one.x = one.end = None
    return True


def _centred(one: _Sums) -> Tensor:
    """The inputs [n, K, positions] with their mean taken off, as the shift of an output is free."""
    assert one.x is not None
    found = patches_of(one.layer.module, one.x)
    return found - found.mean(dim=(0, 2), keepdim=True)


def _direction(outputs: Tensor, generator: torch.Generator) -> Tensor:
    """Normal numbers whose covariance is F for each image; the identity where there is one output.

    outputs: classes along the second axis, or the last of three.
    """
    drawn = torch.randn(outputs.shape, generator=generator)
    axis = 2 if outputs.dim() == 3 else 1
    if outputs.dim() < 2 or outputs.shape[axis] == 1:
        return drawn
    p = (outputs / TEMPERATURE).softmax(axis)
    drawn = drawn * p.sqrt()
    return drawn - p * drawn.sum(dim=axis, keepdim=True)
