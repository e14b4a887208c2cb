"""Training that begins with the codes and scales of `quantize` instead of a float network's."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from tritkit.errors import UserError
from tritkit.methods import FGQ, Method
from tritkit.post.layers import Layer, find_layers
from tritkit.surgery import latent_of, named_ternary, ternarize_, ternarizer_of
from tritkit.ternary import Ternary

__all__ = ["CHANNELS", "start_"]

CHANNELS = FGQ(1 << 20, "kernels")
"""One scale an output channel: what `quantize` must be given for methods that have one scale a channel or a layer."""


@torch.no_grad()
def start_(net: nn.Module, quantized: GraphModule, method: Method) -> list[str]:
    """Put `method` on the float network `net`, in place, so that it begins as `quantized`: the names of its layers.

    quantized: what `quantize` made of `net`, or the traced network of another method. Its ternary layers become those
        of `method` with the same codes and its batch norms those of `net`. Scales of channels move into the batch norm
        behind them, so that methods with one scale a layer can have them. Latent weights are those of `net`, moved as
        far as their codes ask for.

    Activations stay float. Raises UserError, with the layer's name, where `method` cannot have these codes and scales:
    its groups are others, or its codes follow from the latents by a rule that never gives them.
    """
    wanted = {name: value for name, _, value in named_ternary(quantized)}
    layers, _ = find_layers(quantized, lambda name, _: name not in wanted)
    for name, module in quantized.named_modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            _take_norm_(net.get_submodule(name), module)
    for layer in layers:
        _start_layer_(net, layer, _of_channels(wanted[layer.name]), method)
    return [layer.name for layer in layers]


def _start_layer_(net: nn.Module, layer: Layer, wanted: Ternary, method: Method) -> None:
    module = net.get_submodule(layer.name)
    if layer.module.bias is not None:
        module.bias = nn.Parameter(layer.module.bias.detach().clone())
    weight = module.weight
    assert isinstance(weight, nn.Parameter)
    latent = weight * _factor(wanted.dequantize(), weight)
    if layer.norm is not None:
        evened = _evened(wanted, weight)
        turn = _factor(evened.dequantize(), wanted.dequantize())
        norm = net.get_submodule(str(layer.norm[0].target))
        assert isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d)
        _scale_norm_(norm, turn.flatten())
        wanted, latent = evened, latent * turn
    weight.copy_(latent)
    ternarize_(net, method, include=[layer.name])
    ternarizer = ternarizer_of(module)
    assert ternarizer is not None
    try:
        ternarizer.start_(latent_of(module), wanted)
    except UserError as error:
        ways = "exclude it, give it a batch norm, or take another method"
        raise UserError(f"layer {layer.name!r}: {error}; {ways}") from error
    made = ternarizer.ternary(latent_of(module))
    if not (torch.equal(made.codes, wanted.codes) and torch.allclose(made.dequantize(), wanted.dequantize(), 1e-4)):
        raise UserError(f"layer {layer.name!r}: {method!r} cannot begin with the codes and scales of this network")


def _of_channels(value: Ternary) -> Ternary:
    """The same weight with a scale a channel, where all groups of each channel have one."""
    if value.granularity != "group":
        return value
    sides = [side.reshape(len(side), -1) for side in (value.scale_pos, value.scale_neg)]
    if any(bool((side != side[:, :1]).any()) for side in sides):
        return value
    pos, neg = (side[:, 0].reshape(-1, *[1] * (value.codes.dim() - 1)) for side in sides)
    return Ternary.of(value.codes, pos) if value.symmetric else Ternary(value.codes, pos, neg)


def _evened(value: Ternary, weight: Tensor) -> Ternary:
    """The weight at the size of `weight`; one scale for all channels where each had its own and both signs share it."""
    if value.granularity == "channel" and value.symmetric:
        value = Ternary.of(value.codes, torch.ones(()))
    size = value.dequantize().norm()
    factor = weight.norm() / size if size > 0 else torch.ones(())
    if value.symmetric:
        return Ternary.of(value.codes, value.scale_pos * factor, value.group_size)
    return Ternary(value.codes, value.scale_pos * factor, value.scale_neg * factor, value.group_size)


def _factor(wanted: Tensor, given: Tensor) -> Tensor:
    """[O, 1, ...]: what brings each row of `given` nearest to `wanted`; 1 where one of them is zero."""
    to, of = wanted.flatten(1), given.flatten(1)
    along, size = (to * of).sum(1), of.square().sum(1)
    return torch.where((along != 0) & (size > 0), along / size, 1.0).reshape(-1, *[1] * (given.dim() - 1))


def _take_norm_(norm: nn.Module, other: nn.BatchNorm1d | nn.BatchNorm2d) -> None:
    assert isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d)
    norm.affine = other.affine
    if other.affine and norm.weight is None:
        norm.weight, norm.bias = nn.Parameter(other.weight.clone()), nn.Parameter(other.bias.clone())
    norm.load_state_dict(other.state_dict())


def _scale_norm_(norm: nn.BatchNorm1d | nn.BatchNorm2d, turn: Tensor) -> None:
    """Give the same outputs for inputs that are `turn` [C] > 0 times as large."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    before = norm.running_var + norm.eps
    norm.running_mean.mul_(turn)
    norm.running_var.mul_(turn.square())
    norm.weight.mul_(((norm.running_var + norm.eps) / before).sqrt() / turn)
