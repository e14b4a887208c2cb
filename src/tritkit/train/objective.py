"""The loss of a step, and the optimizer that lowers it."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.fx
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_eval

from tritkit import models
from tritkit.errors import UserError
from tritkit.surgery import param_groups
from tritkit.train.initial import find_weights
from tritkit.train.recipe import Distill, Recipe
from tritkit.train.schedule import rate_factor

_CPU = torch.device("cpu")
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]  # (logits [N, K], images [N, 3, H, W], labels [N]) to a number


def make_loss(recipe: Recipe, device: torch.device = _CPU) -> Loss:
    """Cross-entropy, mixed with a teacher's term where the recipe has one. Loads the teacher onto `device`."""
    if recipe.distill is None:
        return lambda logits, images, labels: cross_entropy(logits, labels, recipe)
    settings, teacher = recipe.distill, _teacher(recipe.distill, recipe, device)

    def loss(logits: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        with torch.no_grad():
            target = teacher(images).float()
        hard = cross_entropy(logits, labels, recipe)
        return (1 - settings.weight) * hard + settings.weight * distillation(logits, target, settings.temperature)

    return loss


def cross_entropy(logits: Tensor, labels: Tensor, recipe: Recipe) -> Tensor:
    """Mean over the batch, with the recipe's label smoothing."""
    return F.cross_entropy(logits, labels, label_smoothing=recipe.label_smoothing)


def distillation(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T² · KL(softmax(teacher / T) ‖ softmax(logits / T)), a mean over the batch (Hinton et al. 2015)."""
    log_student = F.log_softmax(logits / temperature, 1)
    log_teacher = F.log_softmax(teacher / temperature, 1)
    return F.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True) * temperature**2


def make_optimizer(net: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """SGD or Adam over `surgery.param_groups`; each group keeps its peak rate as `peak`."""
    groups = param_groups(net, recipe.lr, recipe.weight_decay, recipe.scale_lr, recipe.scale_weight_decay)
    for group in groups:
        group["peak"] = group["lr"]
    if recipe.adam is not None:
        return torch.optim.Adam(groups, lr=recipe.lr, betas=recipe.adam.betas, eps=recipe.adam.eps)
    return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.nesterov)


def set_rate(optimizer: torch.optim.Optimizer, recipe: Recipe, step: int, steps_per_epoch: int) -> float:
    """Give every group its rate at `step`; returns that of the weights."""
    factor = rate_factor(recipe.schedule, step, steps_per_epoch, recipe.epochs)
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor
    return recipe.lr * factor


def _teacher(settings: Distill, recipe: Recipe, device: torch.device) -> Callable[[Tensor], Tensor]:
    """From images normalised as the recipe says to the teacher's logits. Batch norms are folded into the layers before
    them, and ReLUs write over what they read: a quarter less time.
    """
    net = models.build(settings.model, recipe.classes)
    metadata = models.load_float(find_weights(settings.weights), net)
    net = _folded(net.eval().requires_grad_(False))
    for module in net.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = True
    net.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    factor, offset = (values.to(device) for values in _renormalisation(recipe, metadata))
    return lambda images: net(images * factor + offset)


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
