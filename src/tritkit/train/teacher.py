"""The networks that a recipe's student learns from: float weights, run in floats or as integer networks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.fx
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_eval

from tritkit import models
from tritkit.activations import calibrate, freeze_, quantize_activations
from tritkit.deploy import export
from tritkit.errors import UserError
from tritkit.runtime import Session
from tritkit.train.images import TrainingImages
from tritkit.train.initial import find_weights
from tritkit.train.recipe import Distill, Recipe

Teacher = Callable[[Tensor], Tensor]  # images [N, 3, H, W], normalised as the recipe says, to logits [N, K]
CALIBRATION_IMAGES = 1024


def make_teacher(settings: Distill, recipe: Recipe, device: torch.device, images: TrainingImages | None) -> Teacher:
    """The teacher on `device`, an ensemble if there are several; one of 8 bits runs on the CPU and is calibrated with
    `images`.
    """
    teachers = [_one(model, weights, settings.bits, recipe, device, images) for model, weights in settings.teachers]
    return teachers[0] if len(teachers) == 1 else lambda batch: torch.stack([of(batch) for of in teachers]).mean(0)


def _one(
    model: str, weights: str, bits: int, recipe: Recipe, device: torch.device, images: TrainingImages | None
) -> Teacher:
    net = models.build(model, recipe.classes)
    metadata = models.load_float(find_weights(weights), net)
    net.eval().requires_grad_(False)
    factor, offset = (values.to(device) for values in _renormalisation(recipe, metadata))

    def renormalised(batch: Tensor) -> Tensor:
        return batch * factor + offset

    logits = _in_floats(net, device) if bits == 32 else _in_integers(net, renormalised, device, images)
    return lambda batch: logits(renormalised(batch))


def _in_floats(net: nn.Module, device: torch.device) -> Teacher:
    """Batch norms are folded into the layers before them, and ReLUs write over what they read: a quarter less time."""
    folded = _folded(net)
    for module in folded.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = True
    return folded.to(device).to(memory_format=torch.channels_last)  # type: ignore[no-any-return,call-overload]


def _in_integers(net: nn.Module, renormalised: Teacher, device: torch.device, images: TrainingImages | None) -> Teacher:
    """8-bit weights and activations in `Session`: faster than floats on a CPU with int8 dot products."""
    if device.type != "cpu":
        raise UserError(f"distill.bits = 8 needs a run on the CPU, and this one is on {device.type}; set bits = 32")
    if images is None:
        raise UserError("distill.bits = 8 needs the training images, which calibrate the teacher")
    quantized = quantize_activations(net)
    batches, processes = images.plain(CALIBRATION_IMAGES)
    calibrate(quantized, map(renormalised, batches), processes)
    freeze_(quantized)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "teacher.onnx"
        export(quantized, path, renormalised(next(iter(images.plain(1)[0]))), check=False)
        session = Session(path, threads=torch.get_num_threads())
    return lambda batch: torch.from_numpy(session.run(batch.contiguous().numpy()))


def _folded(net: nn.Module) -> nn.Module:
    """`net` in evaluation, with each batch norm folded into the convolution that alone feeds it."""
    traced = torch.fx.symbolic_trace(net)
    modules = dict(traced.named_modules())
    for node in traced.graph.nodes:
        norm, before = modules.get(node.target), node.args[0] if node.args else None
        if isinstance(norm, nn.BatchNorm2d) and isinstance(before, torch.fx.Node) and len(before.users) == 1:
            convolution = modules.get(str(before.target))
            if isinstance(convolution, nn.Conv2d):
                traced.set_submodule(str(before.target), fuse_conv_bn_eval(convolution, norm))
                traced.set_submodule(node.target, nn.Identity())
    return traced


def _renormalisation(recipe: Recipe, metadata: dict[str, str]) -> tuple[Tensor, Tensor]:
    """Factor and offset a channel that turn the recipe's normalisation into the one the teacher was trained with."""
    mean, std = torch.tensor(recipe.mean), torch.tensor(recipe.std)
    try:
        own_mean, own_std = (
            torch.tensor([float(number) for number in metadata[key].split(",")]).expand(3)
            for key in ("normalize_mean", "normalize_std")
        )
    except KeyError:  # it does not say: take it to be the same
        own_mean, own_std = mean, std
    except (ValueError, RuntimeError) as error:
        raise UserError(f"the teacher's normalisation in its metadata cannot be read: {error}") from error
    return (std / own_std).view(1, 3, 1, 1), ((mean - own_mean) / own_std).view(1, 3, 1, 1)
