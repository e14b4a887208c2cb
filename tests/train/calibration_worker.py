"""One process of a job: torchrun --nproc-per-node N calibration_worker.py OUT; or alone, for what it must be equal to.

Makes a small network ternary by post-training, measures its batch norms again and calibrates its activations, on this
process's share of 768 images, and leaves each as OUT/<what>-<process>.safetensors.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from tiny import images, recipe
from torch import nn

from tritkit.activations import calibrate, quantize_activations
from tritkit.methods import FGQ
from tritkit.post import BETTER, FAITHFUL, UNIT, PowerOfTwo, quantize
from tritkit.surgery import reestimate_bn_
from tritkit.train.images import MemoryImages
from tritkit.train.ranks import Ranks, joined


class Small(nn.Module):
    """A residual branch on so many positions that some are drawn, and a convolution of stride 2 on fewer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.conv3 = nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.bn1, self.bn2, self.bn3 = nn.BatchNorm2d(8), nn.BatchNorm2d(8), nn.BatchNorm2d(16)
        self.linear = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        x = torch.relu(x + self.bn2(self.conv2(x)))
        x = torch.relu(self.bn3(self.conv3(x)))
        return self.linear(x.mean((2, 3)))


def network() -> nn.Module:
    torch.manual_seed(3)
    return Small().eval()


def main(out: Path, ranks: Ranks) -> None:
    torch.set_num_threads(1)
    given = MemoryImages(images(768, 0), recipe(), ranks)
    for name, steps in (("better", BETTER), ("faithful", FAITHFUL), ("power", type(FAITHFUL)(PowerOfTwo()))):
        batches, processes = given.plain(768, UNIT)
        save(out, name, ranks, quantize(network(), FGQ(4), batches, steps=steps, processes=processes))
    norms = network()
    reestimate_bn_(norms, *given.augmented(768))
    save(out, "norms", ranks, norms)
    activations = quantize_activations(network())
    calibrate(activations, *given.plain(768))
    save(out, "activations", ranks, activations)


def save(out: Path, name: str, ranks: Ranks, net: nn.Module) -> None:
    values = {key: value.contiguous() for key, value in net.state_dict().items()}
    save_file(values, out / f"{name}-{ranks.rank}.safetensors")


if __name__ == "__main__":
    with joined() as mine:
        main(Path(sys.argv[1]), mine)
