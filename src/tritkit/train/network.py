"""From a recipe to the network it trains, and from a run's final weights back to that network."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
import torch.fx
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from tritkit import compress, methods, models
from tritkit.activations import QUANTIZERS, calibrate, freeze_, quantize_activations, quantizers
from tritkit.errors import ModelFileError, UserError
from tritkit.low_bit import dorefa_
from tritkit.methods import FGQ, Method
from tritkit.post import CHANNELS, LAYERWISE, UNIT, quantize, start_
from tritkit.surgery import latent_of, named_ternary, reestimate_bn_, snap_scales_, ternarize_, ternarizer_of
from tritkit.train import stages
from tritkit.train.files import write_whole
from tritkit.train.images import TrainingImages
from tritkit.train.initial import find_weights
from tritkit.train.int8_weights import fix_weights_, simulate_weights_
from tritkit.train.recipe import Recipe, make_recipe

_LATENT = ".parametrizations.weight.original"  # what PyTorch calls the weight that a method projects


def build_network(recipe: Recipe, images: TrainingImages | None = None, initial: bool = True) -> nn.Module:
    """The recipe's network before its first step, in channels-last memory: built, filled from `init`, made ternary,
    low-bit or pruned. `images` are what recipes with `post_training_images` begin from.

    `initial=False` leaves `init` unread and prunes nothing, for a network that is filled from elsewhere.
    """
    net = models.build(recipe.model, recipe.classes)
    path = find_weights(recipe.init) if recipe.init is not None and initial else None
    earlier = _ternary_run(path, recipe) if path is not None else None
    if path is not None and earlier is None:
        models.load_float(path, net)
    if recipe.method is not None:
        method = methods.get(recipe.method.name, **recipe.method.parameters)
        if recipe.post_training_images and initial:
            _start_from_post_training_(net, method, recipe, images)
        elif earlier is not None and earlier.recipe.method != recipe.method:
            _start_from_other_method_(net, method, earlier, recipe)
            earlier = None
        else:
            ternarize_(net, method, exclude=list(recipe.exclude))
    if recipe.dorefa is not None:
        bits = recipe.dorefa
        dorefa_(net, bits.weight_bits, bits.activation_bits, bits.gradient_bits, exclude=list(recipe.exclude))
    if earlier is not None:
        _fill_(net, earlier.weights, recipe)
    if initial:
        stages.prune(net, recipe)
    return net.to(memory_format=torch.channels_last)  # type: ignore[no-any-return,call-overload]


class _Earlier(NamedTuple):
    """A run to begin with. Its weights are all tensors but the ranges of activations, which are calibrated anew."""

    recipe: Recipe
    weights: dict[str, Tensor]


def _ternary_run(path: Path, recipe: Recipe) -> _Earlier | None:
    """What `path` holds if it is the final.safetensors of a run that made weights ternary, else None."""
    if path.suffix != ".safetensors":
        return None
    with _opened(path) as file:  # float weights, perhaps large, are read by others
        if "recipe" not in (file.metadata() or {}) or not any(key.endswith(_LATENT) for key in file.keys()):  # noqa: SIM118
            return None
    if recipe.post_training_images:
        raise UserError(f"{recipe.init} is ternary already; leave out post_training_images, or give float weights")
    tensors, metadata = _read(path)
    weights = {key: value for key, value in tensors.items() if not key.startswith(QUANTIZERS)}
    return _Earlier(make_recipe(_recipe_of(path, metadata), str(path)), weights)


def _start_from_other_method_(net: nn.Module, method: Method, earlier: _Earlier, recipe: Recipe) -> None:
    """The codes and scales that another method found, with latents that are as near to its own as `method` allows."""
    if set(earlier.recipe.exclude) != set(recipe.exclude):
        found = sorted(earlier.recipe.exclude)
        raise UserError(f"{recipe.init} excludes {found}; another method must exclude the same")
    other = build_network(earlier.recipe, initial=False)
    _fill_(other, earlier.weights, recipe)
    parametrizations = _LATENT.rsplit(".", 1)[0]
    latents = {key.replace(_LATENT, ".weight"): value for key, value in earlier.weights.items()}
    _fill_(net, {key: value for key, value in latents.items() if parametrizations not in key}, recipe)
    start_(net, torch.fx.symbolic_trace(other), method)


def _fill_(net: nn.Module, weights: dict[str, Tensor], recipe: Recipe) -> None:
    """Load the weights of the run that `recipe` begins with."""
    try:
        net.load_state_dict(weights)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise ModelFileError(
            f"the run {recipe.init} does not fit this recipe ({reason}); take its model, or float weights"
        ) from error


def _start_from_post_training_(net: nn.Module, method: Method, recipe: Recipe, images: TrainingImages | None) -> None:
    if images is None:
        raise UserError("post_training_images needs the training images to build the network")
    count = recipe.post_training_images
    groups = method if isinstance(method, FGQ) else CHANNELS
    batches, processes = images.plain(count, UNIT)
    exclude = list(recipe.exclude)
    quantized = quantize(net, groups, batches, exclude=exclude, steps=LAYERWISE, images=count, processes=processes)
    start_(net, quantized, method)


def deployable(net: nn.Module, recipe: Recipe) -> nn.Module:
    """`net` with what `[activations]` of the recipe simulates; the ranges of its activations are not set."""
    if recipe.activations is not None and recipe.activations.int8_weights:
        simulate_weights_(net)
    return quantize_activations(net)


def with_activations(net: nn.Module, recipe: Recipe, images: TrainingImages) -> nn.Module:
    """`deployable`, the ranges of its activations set from `calibration_images` of `images`."""
    if recipe.activations is None:
        return net
    quantized = deployable(net, recipe)
    calibrate(quantized, *images.plain(recipe.activations.calibration_images))
    return quantized


def finish(net: nn.Module, recipe: Recipe, images: TrainingImages) -> nn.Module:
    """The deployed network: scales on their grid, fresh batch-norm statistics, fixed ranges (set now if not before) and
    fixed int8 weights.
    """
    if recipe.snap_scales:
        snap_scales_(net)
    if recipe.bn_images:
        reestimate_bn_(net, *images.augmented(recipe.bn_images))
    if recipe.activations is not None:
        net = net if any(quantizers(net)) else with_activations(net, recipe, images)
        freeze_(net)
    fix_weights_(net)
    return net


def layer_rows(net: nn.Module) -> dict[str, dict[str, float]]:
    """For each ternary layer: the means of Wp, Wn and Δ, and the share of weights that are not zero; for each pruned
    layer that share.
    """
    rows = {name: {"density": density} for name, density in stages.densities(net).items()}
    for name, layer, value in named_ternary(net):
        ternarizer = ternarizer_of(layer)
        delta = ternarizer.delta(latent_of(layer)) if ternarizer is not None else torch.zeros(1)
        rows[name] = {
            "wp": float(value.scale_pos.mean()),
            "wn": float(value.scale_neg.mean()),
            "threshold": float(delta.mean()),
            "density": float((value.codes != 0).float().mean()),
        }
    return rows


def save_trained(path: Path, net: nn.Module, recipe: Recipe, test_error: float, classes: tuple[str, ...]) -> None:
    """Write the state dict to a safetensors file whose metadata suffices to build the network again."""
    metadata = {
        "recipe": json.dumps(recipe.model_dump(mode="json")),
        "name": recipe.name,
        "seed": str(recipe.seed),
        "test_error": f"{test_error:.4f}",
        "normalize_mean": ",".join(map(str, recipe.mean)),
        "normalize_std": ",".join(map(str, recipe.std)),
        "classes": json.dumps(classes),
    }
    tensors = {key: value.detach().cpu().contiguous() for key, value in net.state_dict().items()}
    write_whole(path, safetensors.torch.save(tensors, metadata))


def load_trained(path: str | Path) -> tuple[nn.Module, Recipe]:
    """The network of a run's final.safetensors, as it was trained and in evaluation mode, and the run's recipe.

    Raises UserError for a missing file, ModelFileError for one that `save_trained` did not write.
    """
    tensors, metadata = _read(Path(path))
    recipe = make_recipe(_recipe_of(path, metadata), str(path))
    net = build_network(recipe, initial=False)
    if recipe.activations is not None:
        net = quantize_activations(net)
    compress.restore_(net, tensors)
    try:
        net.load_state_dict(tensors)
    except RuntimeError as error:
        raise ModelFileError(f"{path} does not fit its own recipe: {str(error).splitlines()[-1].strip()}") from error
    return net.eval(), recipe


def trained_classes(path: str | Path) -> tuple[str, ...] | None:
    """The names of the classes of a run's final.safetensors; None where it does not say. Raises as `load_trained`."""
    try:
        names = json.loads(_read(Path(path))[1].get("classes", "null"))
    except ValueError as error:
        raise ModelFileError(f"the classes in the metadata of {path} are no JSON ({error})") from error
    return tuple(map(str, names)) if isinstance(names, list) else None


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    with _opened(path) as file:
        return {key: file.get_tensor(key) for key in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    if not path.is_file():
        raise UserError(f"no weights at {path}; give the path of a run's final.safetensors")
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise ModelFileError(f"{path} is not a readable safetensors file: {error}") from error


def _recipe_of(path: str | Path, metadata: dict[str, str]) -> dict[str, Any]:
    try:
        values = json.loads(metadata["recipe"])
    except (KeyError, ValueError) as error:
        raise ModelFileError(f"{path} has no recipe in its metadata; is it the final.safetensors of a run?") from error
    if not isinstance(values, dict):
        raise ModelFileError(f"{path}: the recipe in its metadata is no table")
    return values
