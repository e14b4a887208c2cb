"""Float weights from safetensors files and torchvision's .pth: no code is run, every name and shape checked."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from tritkit.errors import ModelFileError, UserError


def load_float(path: str | Path, net: nn.Module) -> dict[str, str]:
    """Fill `net` with the weights in the safetensors file `path`, or in a .pth file of tensors by name as torchvision
    publishes them; returns the file's metadata.

    Batch norm's `num_batches_tracked` may be absent; every other name, shape and float dtype must fit, and every
    value be finite. Raises UserError for a missing file, ModelFileError for one that does not fit; then `net`
    is unchanged.
    """
    tensors, metadata = read_float(Path(path))
    expected = net.state_dict()
    tensors |= {k: v for k, v in expected.items() if k.endswith("num_batches_tracked") and k not in tensors}
    problems = _mismatches(tensors, expected)
    if problems:
        shown = "; ".join(problems[:3]) + ("; …" if len(problems) > 3 else "")
        raise ModelFileError(f"{path} does not fit this network ({len(problems)} differences): {shown}")
    net.load_state_dict(tensors, strict=True)
    return metadata


def read_float(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a .safetensors or .pth file by name, and its metadata, which a .pth file has not. Raises UserError
    for a missing file, ModelFileError for a damaged one.
    """
    if not path.is_file():
        raise UserError(f"no weights at {path}; give the path of a .safetensors or .pth file")
    if path.suffix in (".pth", ".pt"):
        return _read_pth(path), {}
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        hint = "give float weights as .safetensors or .pth"
        raise ModelFileError(f"{path} is not a readable safetensors file ({error}); {hint}") from error


def _read_pth(path: Path) -> dict[str, Tensor]:
    try:
        tensors = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # a damaged file fails in many ways, all of them the file's fault
        raise ModelFileError(f"{path} is no whole .pth file of plain tensors ({type(error).__name__})") from error
    if not isinstance(tensors, dict) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise ModelFileError(f"{path} holds no tensors by name; give a file that holds a state dict and nothing else")
    return dict(tensors)


def _mismatches(given: dict[str, Tensor], expected: dict[str, Tensor]) -> list[str]:
    problems = [f"{key} is missing" for key in expected.keys() - given.keys()]
    problems += [f"{key} is not in the network" for key in given.keys() - expected.keys()]
    for key in expected.keys() & given.keys():
        have, want = given[key], expected[key]
        if have.shape != want.shape:
            problems.append(f"{key} has shape {list(have.shape)}, the network's has {list(want.shape)}")
        elif have.is_floating_point() != want.is_floating_point():
            problems.append(f"{key} is {have.dtype}, the network's is {want.dtype}")
        elif have.is_floating_point() and not bool(torch.isfinite(have).all()):
            problems.append(f"{key} has a value that is not finite")
    return sorted(problems)
