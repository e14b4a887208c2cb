"""The networks of the bench by name: architecture, ternary weights at a given density, and images."""

from __future__ import annotations

import math
import re
from collections import OrderedDict

import torch
from torch import Tensor, nn

from tritkit.bench.shape import Shape
from tritkit.errors import UserError
from tritkit.models import build
from tritkit.surgery import reestimate_bn_

_CIFAR = re.compile(r"(?:cifar-)?resnet(8|14|20|26|32|44|56|110)")
_CONV = re.compile(r"conv:(\d{1,5})x(\d{1,5})x(\d{1,4})x(\d{1,4})k(\d{1,2})(?:s(\d))?")
_LINEAR = re.compile(r"linear:(\d{1,5})x(\d{1,5})")
_ASYMMETRY = (1.2, 0.7)  # Wp and Wn of an asymmetric layer, in units of the symmetric scale
_STATISTICS = 32  # images that set the batch norms


def architecture(name: str) -> tuple[nn.Module, Shape]:
    """The network called `name` with fresh weights from torch's generator, and what it takes.

    Raises UserError for a name that is none.
    """
    if cifar := _CIFAR.fullmatch(name):
        return build(f"cifar-resnet{cifar[1]}"), Shape("network", (3, 32, 32))
    if conv := _CONV.fullmatch(name):
        return _conv(*(int(v) for v in conv.groups(default="1")))
    if linear := _LINEAR.fullmatch(name):
        inputs, outputs = (_positive(int(v)) for v in linear.groups())
        return nn.Sequential(OrderedDict(linear=nn.Linear(inputs, outputs))), Shape("linear", (inputs,), positive=True)
    try:
        return build(name, 1000), Shape("network", (3, 224, 224))
    except UserError as error:
        raise UserError(
            f"{name!r} is no network of the bench and no file; allowed are resnet20, resnet32, resnet44, resnet56, "
            "resnet18, resnet34, resnet50, resnet101, alexnet-bn, vgg16-bn, layers such as conv:64x64x56x56k3 (in, "
            "out, height, width, kernel) or linear:4096x4096 (in, out), packaged networks, and .onnx files of ours"
        ) from error


def ternary_network(name: str, density: float, scales: str, seed: int) -> tuple[nn.Module, Shape]:
    """`architecture(name)` with random weights: all layers but a network's first and last hold Wp, 0 and −Wn.

    Batch norms are set from random images, so that activations have a sane size all the way. In evaluation mode.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net, shape = architecture(name)
    layers = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    for layer in layers[1:-1] if shape.kind == "network" else layers:
        fill_(layer.weight, density, scales, generator)
    if any(isinstance(m, nn.BatchNorm2d) for m in net.modules()):
        reestimate_bn_(net, [torch.from_numpy(shape.images(_STATISTICS, seed + 1))])
    return net.eval().requires_grad_(False), shape


@torch.no_grad()
def fill_(weight: Tensor, density: float, scales: str, generator: torch.Generator) -> None:
    """Overwrite `weight` with codes of which the share `density` is not zero, times scales of He's size.

    Where Wp and Wn differ there are fewer weights of the larger one, so that their mean is 0: else all outputs of a
    layer would rise and fall together.
    """
    count = weight.numel()
    codes = torch.zeros(count)
    chosen = torch.randperm(count, generator=generator)[: max(1, round(density * count))]
    scale = math.sqrt(2 / (density * weight[0].numel()))
    pos, neg = (scale * a for a in (_ASYMMETRY if scales == "asymmetric" else (1.0, 1.0)))
    plus = torch.rand(len(chosen), generator=generator) < neg / (pos + neg)
    codes[chosen] = torch.where(plus, 1.0, -1.0)
    weight.copy_(torch.where(codes > 0, pos, torch.where(codes < 0, -neg, 0.0)).view_as(weight))


def _conv(inputs: int, outputs: int, height: int, width: int, kernel: int, stride: int) -> tuple[nn.Module, Shape]:
    for value in (inputs, outputs, height, width, kernel, stride):
        _positive(value)
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
    layers = OrderedDict[str, nn.Module](conv=conv, bn=nn.BatchNorm2d(outputs), relu=nn.ReLU())
    return nn.Sequential(layers), Shape("conv", (inputs, height, width), positive=True)


def _positive(value: int) -> int:
    if value < 1:
        raise UserError("the sizes of a layer must be at least 1")
    return value
