"""The ternary layers of training files: final.safetensors and checkpoint.pt. Needs torch; runs no code from a file."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tritkit.errors import ModelFileError
from tritkit.inspection.weights import LayerWeights

if TYPE_CHECKING:
    from torch import Tensor, nn

    from tritkit.ternary import Ternary

_LIMIT = 1 << 31  # bytes that a checkpoint may unpack to


def trained_weights(path: Path) -> list[LayerWeights]:
    """The layers of a run's final.safetensors. Raises ModelFileError where it is none."""
    from tritkit.train import load_trained

    return _layers(load_trained(path)[0])


def checkpoint_weights(path: Path) -> tuple[list[LayerWeights], dict[str, Any]]:
    """The layers of a run's checkpoint.pt as they were then, and facts: `recipe`, `step`, `tensors`.

    Loaded with weights_only=True. Raises ModelFileError for a damaged file or another kind.
    """
    import torch

    from tritkit.train import make_recipe

    _check_size(path)
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
        recipe, tensors, step = make_recipe(dict(state["recipe"]), str(path)), dict(state["net"]), int(state["step"])
        quantized = bool(state["quantized"])
        net = _rebuilt(recipe, tensors, quantized)
    except ModelFileError:
        raise
    except Exception as error:  # a damaged or foreign pickle fails in many ways, all of them the file's fault
        what = " ".join(str(error).split())[:120] or type(error).__name__
        raise ModelFileError(f"not a checkpoint of a tritkit run, or damaged ({what})") from error
    return _layers(net), {"recipe": recipe.name, "step": step, "tensors": _listed(tensors)}


def _check_size(path: Path) -> None:
    """A zip archive may announce far more than it has."""
    if not zipfile.is_zipfile(path):
        raise ModelFileError("not a checkpoint of a tritkit run: no zip archive")
    with zipfile.ZipFile(path) as archive:
        size = sum(member.file_size for member in archive.infolist())
    if size > _LIMIT:
        raise ModelFileError(f"it unpacks to {size:,} bytes; checkpoints of up to {_LIMIT:,} are read")


def _rebuilt(recipe: Any, tensors: dict[str, Tensor], quantized: bool) -> nn.Module:
    from tritkit import compress
    from tritkit.activations import quantize_activations
    from tritkit.train.network import build_network

    net = build_network(recipe, initial=False)
    net = quantize_activations(net) if quantized else net
    compress.restore_(net, tensors)
    net.load_state_dict(tensors)
    return net.eval()


def _listed(tensors: Mapping[str, Tensor]) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "dtype": str(value.dtype).removeprefix("torch."),
            "shape": list(value.shape),
            "values": value.numel(),
            "bytes": value.numel() * value.element_size(),
        }
        for name, value in tensors.items()
    ]


def _layers(net: nn.Module) -> list[LayerWeights]:
    """Every Conv2d and Linear: ternary ones with their codes and scales, others with their values."""
    import torch
    from torch import nn as torch_nn

    from tritkit.surgery import named_ternary, ternarizer_of

    found, ternary = [], {name: value for name, _, value in named_ternary(net)}
    for name, layer in net.named_modules():
        if not isinstance(layer, (torch_nn.Conv2d, torch_nn.Linear)):
            continue
        op = type(layer).__name__.removeprefix("Parametrized")
        if name in ternary:
            ternarizer = ternarizer_of(layer)
            method = None if ternarizer is None else ternarizer.method.name
            found.append(_ternary(name, op, ternary[name], method, _learned(ternarizer)))
        else:
            with torch.no_grad():
                values = layer.weight.detach().float().contiguous().numpy()
            found.append(LayerWeights(name, op, "float", values, np.ones(1, np.float32)))
    return found


def _ternary(
    name: str, op: str, value: Ternary, method: str | None, learned: tuple[float, float] | None
) -> LayerWeights:
    rows = value.codes.shape[0]
    plus, minus = (side.detach().numpy().astype(np.float32) for side in (value.scale_pos, value.scale_neg))
    if value.group_size is None:
        plus, minus = (side.reshape(-1) if side.size in (1, rows) else side for side in (plus, minus))
    means = (float(plus.mean()), float(minus.mean()))
    one = np.ones(1, np.float32)
    codes = value.codes.numpy()
    return LayerWeights(name, op, "ternary", codes, one, plus, minus, value.group_size, method, learned or means)


def _learned(ternarizer: Any) -> tuple[float, float] | None:
    """Wp and Wn as the optimizer left them, which may be below zero where the weights in use are not."""
    pair = [getattr(ternarizer, name, None) for name in ("scale_pos", "scale_neg")]
    if any(side is None for side in pair):
        return None
    plus, minus = (float(side.detach().mean()) for side in pair if side is not None)
    return plus, minus
