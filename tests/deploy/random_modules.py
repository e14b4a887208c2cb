"""Random torch networks that lower to the integer graph, with weights that integers hold exactly.

Behind such a network with fake quantizers, the integer graph can differ from the float one only by roundings.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import tritkit
from tritkit.methods import FGQ, TWN


def network(seed: int) -> tuple[nn.Module, Tensor]:
    """(network in evaluation mode, images [4, C, H, W])."""
    torch.manual_seed(seed)
    channels, size = int(torch.randint(1, 5, ())), torch.randint(7, 14, (2,)).tolist()
    net = _Net(channels, size)
    _randomise(net)
    layers = [name for name, m in net.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    ternary = [name for name in layers if torch.rand(()) < 0.6]
    if ternary:
        method = (TWN(), FGQ(2), FGQ(4, scales="separate"), FGQ(3, group="kernels"))[seed % 4]
        tritkit.ternarize_(net, method, include=ternary)
        _snap(net)
    return net.eval(), torch.randn(4, channels, *size)


def _snap(net: nn.Module) -> None:
    """Latents at the values that integers hold exactly, where the method gives those back."""
    with torch.no_grad():
        for _, layer, value in tritkit.named_ternary(net):
            if value.group_size is not None:
                layer.parametrizations.weight.original.copy_(value.snap().dequantize())


def _randomise(net: nn.Module) -> None:
    """Batch norms with factors of both signs, and int8 weights that are whole multiples of a step."""
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
                for parameter in (module.weight, module.bias, module.running_mean):
                    parameter.normal_()
                module.running_var.uniform_(0.3, 3)
            elif isinstance(module, (nn.Conv2d, nn.Linear)):
                rows = module.weight.shape[0]
                integers = torch.randint(-64, 65, (rows, module.weight[0].numel())).float()
                integers[:, 0] = 64
                step = (0.5 + torch.rand(rows, 1)) / (40 * integers.shape[1] ** 0.5)
                module.weight.copy_((integers * step).view_as(module.weight))


class _Residual(nn.Module):
    """conv-bn-relu-conv-bn + option-A shortcut, relu."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding="same")
        self.bn2 = nn.BatchNorm2d(c_out)
        self.stride, self.extra = stride, c_out - c_in

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        y += F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.extra // 2, self.extra - self.extra // 2))
        return torch.relu(y)


class _PreActivation(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(c)
        self.conv = nn.Conv2d(c, c, 3, padding=1, groups=c, bias=False)
        self.drop = nn.Dropout2d()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.drop(self.conv(F.relu6(self.bn(x))))


class _Branches(nn.Module):
    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.a = nn.Conv2d(c_in, c_out, 1)
        self.b = nn.Conv2d(c_in, c_out, 3, dilation=2)
        self.edge = nn.ZeroPad2d((1, 3, 2, 2))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([F.relu(self.a(x)), self.b(self.edge(x)).clamp(-1, 1)], 1)


class _Net(nn.Module):
    def __init__(self, c: int, size: list[int]) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        for _ in range(int(torch.randint(1, 4, ()))):
            out = c + int(torch.randint(0, 4, ()))
            stride = int(torch.randint(1, 3, ()))
            choice = int(torch.randint(0, 9, ()))
            if choice in (0, 1):
                blocks += [_Residual(c, out, stride)]
            elif choice == 2:
                blocks += [_PreActivation(c)]
                out = c
            elif choice == 3:
                blocks += [_Branches(c, out)]
                out *= 2
            elif choice == 4:
                blocks += [nn.Conv2d(c, out, (3, 2), stride, (1, 0)), nn.BatchNorm2d(out), nn.ReLU6()]
            elif choice == 5:
                blocks += [nn.MaxPool2d(3, 2, 1, ceil_mode=True), nn.BatchNorm2d(c)]
                out = c
            elif choice == 6:
                blocks += [nn.AvgPool2d(2, 1, 1, count_include_pad=stride == 1), nn.ReLU()]
                out = c
            elif choice == 7:
                blocks += [nn.AvgPool2d(3, 2, 1, ceil_mode=True), nn.Hardtanh(-0.5, 1.5)]
                out = c
            else:
                blocks += [nn.Conv2d(c, out, 3, padding=2, dilation=2), nn.ReLU(), nn.BatchNorm2d(out)]
            c = out
        self.body = nn.ModuleList(blocks)
        self.flat = bool(torch.rand(()) < 0.5)
        self.pool = nn.AdaptiveAvgPool2d(2)
        self.fc1 = nn.Linear(c * (4 if self.flat else 1), 6)
        self.bn = nn.BatchNorm1d(6)
        self.fc2 = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.body:
            x = block(x)
        x = self.pool(x).flatten(1) if self.flat else x.mean((2, 3))
        return self.fc2(F.dropout(F.relu(self.bn(self.fc1(x))), training=self.training))
