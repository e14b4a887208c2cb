"""The loss of a step, and the optimizer that lowers it."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tritkit.surgery import param_groups
from tritkit.train.images import TrainingImages
from tritkit.train.recipe import Recipe
from tritkit.train.schedule import rate_factor
from tritkit.train.teacher import make_teacher

_CPU = torch.device("cpu")
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]  # (logits [N, K], images [N, 3, H, W], labels [N]) to a number


def make_loss(recipe: Recipe, device: torch.device = _CPU, images: TrainingImages | None = None) -> Loss:
    """Cross-entropy, mixed with a teacher's term where the recipe has one. Loads the teacher onto `device`; one of
    8 bits is calibrated with `images`.
    """
    if recipe.distill is None:
        return lambda logits, images, labels: cross_entropy(logits, labels, recipe)
    settings, teacher = recipe.distill, make_teacher(recipe.distill, recipe, device, images)

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
