"""Deep Compression within a run: prune at the start, train on, share weights, train the centroids, measure the file."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from tritkit import compress
from tritkit.train.objective import make_optimizer as make_plain_optimizer
from tritkit.train.recipe import Recipe


def prune(net: nn.Module, recipe: Recipe) -> None:
    """The first stage, before the first step; nothing without `deep_compression`."""
    settings = recipe.deep_compression
    if settings is None:
        return
    rule: compress.Rule
    if settings.quality is not None:
        rule = compress.ByDeviation(settings.quality)
    else:
        rule = compress.BySparsity(settings.sparsity or 0.0)
    compress.prune_(net, rule, exclude=recipe.exclude)


def share_due(net: nn.Module, recipe: Recipe, epoch: int) -> bool:
    """Whether weights must be shared before `epoch` (1 is the first) goes on."""
    settings = recipe.deep_compression
    return settings is not None and epoch >= settings.share_epoch and not compress.shared_layers(net)


def share(net: nn.Module, recipe: Recipe) -> None:
    """The second stage. The parameters are others afterwards: make a new optimizer."""
    if recipe.deep_compression is not None:
        compress.share_(net, recipe.deep_compression.bits_conv, recipe.deep_compression.bits_fc, exclude=recipe.exclude)


def make_optimizer(net: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """`objective.make_optimizer`, with centroids in a group of their own that has their rate and no decay."""
    optimizer = make_plain_optimizer(net, recipe)
    centroids = list(compress.centroids_of(net).values())
    if recipe.deep_compression is None or not centroids:
        return optimizer
    apart = {id(parameter) for parameter in centroids}
    for group in optimizer.param_groups:
        group["params"] = [parameter for parameter in group["params"] if id(parameter) not in apart]
    rate = recipe.deep_compression.centroid_lr
    optimizer.add_param_group({"name": "centroids", "params": centroids, "lr": rate, "peak": rate, "weight_decay": 0.0})
    return optimizer


def densities(net: nn.Module) -> dict[str, float]:
    """The share of weights that are kept, for each pruned or shared layer."""
    indices = {name: shared.index != 0 for name, shared in compress.shared_layers(net).items()}
    kept = {**compress.masks(net), **indices}
    return {name: float(mask.float().mean()) for name, mask in kept.items()}


def sizes(net: nn.Module) -> dict[str, Any]:
    """The bytes of every stage as the final row keeps them; empty without shared weights."""
    if not compress.shared_layers(net):
        return {}
    return {"sizes": compress.sizes(compress.compress(net)).facts()}
