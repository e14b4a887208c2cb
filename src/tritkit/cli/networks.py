"""Float networks from weight files: which network it is, and how its images are prepared."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tritkit.cli.exporting import Norm, image_norm
from tritkit.errors import UserError

if TYPE_CHECKING:
    from torch import nn

_TORCHVISION = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_OTHERS = ("resnet18", "resnet34", "resnet50", "resnet101", "alexnet-bn", "vgg16-bn")


class FloatNetwork(NamedTuple):
    """A float network in evaluation mode, the shape [C, H, W] of its images, their mean and std, its classes."""

    net: nn.Module
    shape: tuple[int, int, int]
    norm: Norm
    classes: tuple[str, ...]


def load_float_network(weights: str | Path, architecture: str | None) -> FloatNetwork:
    """From a safetensors or .pth file of a known network, a training run without a method, or a packaged network.

    weights: the file, the run's folder, or the packaged name.
    architecture: its name; None: found by the names and shapes of the weights. A .pth file does not say how images are
        normalised: those of networks of photographs are as torchvision's weights want them.
    Raises UserError for a missing file, a network that is not known or ternary already; ModelFileError for a file that
    cannot be read.
    """
    from tritkit import models

    path = _weights_file(weights)
    tensors, metadata = models.read_float(path)
    shapes = {key: tuple(value.shape) for key, value in tensors.items()}
    if any("parametrizations" in key for key in shapes):
        raise UserError(f"{path} is ternary already; give the float weights it began with, or use tritkit export")
    name = architecture or _name(shapes, path)
    outputs = [shapes[key][0] for key in sorted(shapes) if len(shapes[key]) == 2][-1]
    net = models.build(name, outputs)
    models.load_float(path, net)
    size = models.image_size(name)
    published = path.suffix in (".pth", ".pt") and size > 32
    norm = _TORCHVISION if published else image_norm(metadata, path)
    return FloatNetwork(net.eval(), (3, size, size), norm, _names(outputs))


def _weights_file(weights: str | Path) -> Path:
    path = Path(weights)
    path = path / "final.safetensors" if path.is_dir() else path
    if path.is_file():
        return path
    from tritkit.zoo import hub, manifest

    if str(weights) in manifest():
        return hub(str(weights))
    hint = "a .safetensors or .pth file of float weights, a float run's folder, or the name of a packaged network"
    raise UserError(f"no weights at {path}; give {hint}")


def _name(shapes: dict[str, tuple[int, ...]], path: Path) -> str:
    """The known network whose weights have these names and shapes, but for the classes."""
    import torch

    from tritkit import models

    blocks = {key.split(".")[1] for key in shapes if re.fullmatch(r"layer1\.\d+\.conv1\.weight", key)}
    candidates = [f"cifar-resnet{6 * len(blocks) + 2}"] if blocks else []
    for name in (*candidates, *_OTHERS):
        with torch.device("meta"):
            wanted = models.build(name).state_dict()
        named = {key: tuple(value.shape) for key, value in wanted.items() if not key.endswith("num_batches_tracked")}
        given = {key: shape for key, shape in shapes.items() if not key.endswith("num_batches_tracked")}
        if named.keys() == given.keys() and all(named[key][1:] == given[key][1:] for key in named):
            return name
    known = ", ".join(("cifar-resnetD", *_OTHERS))
    raise UserError(f"{path} holds the weights of no known network ({known}); quantize yours with tritkit.quantize")


def _names(outputs: int) -> tuple[str, ...]:
    from tritkit.data.cifar10 import CLASSES

    return CLASSES if outputs == len(CLASSES) else tuple(f"class {k}" for k in range(outputs))
