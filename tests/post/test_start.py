"""Training begins with exactly what post-training chose."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tritkit.errors import UserError
from tritkit.methods import FGQ, LSQ, SEQ, TTQ, TWN, AbsMean
from tritkit.post import CHANNELS, quantize, start_
from tritkit.surgery import latent_of, named_ternary, ternarizer_of

NO_NORM = ["first", "linear", "block2.down"]  # the last has no batch norm to take the scales of its channels
STRAIGHT: dict[str, Any] = {"init": "data", "latent_gradient": "straight-through"}
STARTING = [
    (LSQ(), CHANNELS),
    (LSQ(per="channel"), CHANNELS),
    (SEQ(), CHANNELS),
    (TTQ(**STRAIGHT), CHANNELS),
    (TTQ(threshold=0.3, **STRAIGHT), CHANNELS),
    (TWN(), CHANNELS),
    (FGQ(4), FGQ(4)),
    (FGQ(5, scales="separate"), FGQ(5, scales="separate")),
]


def _as_quantized(net: nn.Module, quantized: nn.Module) -> nn.Module:
    """`net` with the weights, shifts and batch norms of `quantized`, by hand: what training has to begin with."""
    wanted = copy.deepcopy(net)
    for name, module in wanted.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            module.load_state_dict(quantized.get_submodule(name).state_dict())
    for name, layer, value in named_ternary(quantized):
        module = wanted.get_submodule(name)
        module.weight = nn.Parameter(value.dequantize())
        module.bias = None if layer.bias is None else nn.Parameter(layer.bias.detach().clone())
    return wanted.eval()


@pytest.mark.parametrize(("method", "groups"), STARTING, ids=repr)
def test_the_network_computes_what_post_training_left(
    method: Any, groups: FGQ, small_net: nn.Module, pictures: Tensor
) -> None:
    quantized = quantize(small_net, groups, [pictures], exclude=NO_NORM)
    net = copy.deepcopy(small_net)
    names = start_(net, quantized, method)
    assert names == [name for name, _, _ in named_ternary(quantized)]
    with torch.no_grad():
        assert torch.allclose(net.eval()(pictures), _as_quantized(small_net, quantized)(pictures), atol=1e-4, rtol=1e-3)
    for (_, _, ours), (_, _, theirs) in zip(named_ternary(net), named_ternary(quantized), strict=True):
        assert torch.equal(ours.codes, theirs.codes)


def test_latents_of_trained_scales_stay_spread_out(small_net: nn.Module, pictures: Tensor) -> None:
    """A latent that sits where training cannot move it, or all at one value, would be no start."""
    quantized = quantize(small_net, CHANNELS, [pictures])
    net = copy.deepcopy(small_net)
    start_(net, quantized, LSQ(per="channel"))
    for _, layer, value in named_ternary(net):
        latent, scale = latent_of(layer).detach(), value.scale_pos
        assert (latent.abs() < scale).all()
        assert latent.unique().numel() > latent.numel() // 4
        layer(torch.ones(1, latent.shape[1], *([8, 8] if latent.dim() == 4 else []))).sum().backward()
        assert latent_of(layer).grad is not None


def test_what_a_method_cannot_begin_with_is_said(small_net: nn.Module, pictures: Tensor) -> None:
    quantized = quantize(small_net, CHANNELS, [pictures])
    with pytest.raises(UserError, match=r"layer '.*': AbsMean.* cannot begin"):
        start_(copy.deepcopy(small_net), quantized, AbsMean())
    with pytest.raises(UserError, match=r"layer 'block2.down': ttq has one scale a layer and sign"):
        start_(copy.deepcopy(small_net), quantized, TTQ(**STRAIGHT))
    with pytest.raises(UserError, match=r"layer 'block1.conv1': lsq has one scale for both signs"):
        start_(copy.deepcopy(small_net), quantize(small_net, FGQ(1 << 20, "kernels", "separate"), [pictures]), LSQ())


def test_the_threshold_of_ttq_is_the_papers(small_net: nn.Module, pictures: Tensor) -> None:
    net = copy.deepcopy(small_net)
    start_(net, quantize(small_net, CHANNELS, [pictures], exclude=NO_NORM), TTQ(threshold=0.05, **STRAIGHT))
    for _, layer, _ in named_ternary(net):
        ternarizer, latent = ternarizer_of(layer), latent_of(layer)
        assert ternarizer is not None
        assert torch.equal(ternarizer.delta(latent), 0.05 * latent.detach().abs().amax())
