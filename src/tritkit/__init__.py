"""tritkit: ternary neural networks, from a trained PyTorch model to a 2-bit file and a fast CPU engine.

Importing this package imports neither torch nor the C library; each public name is loaded when first used.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "Ternary": "tritkit.ternary",
    "ternarize_": "tritkit.surgery",
    "strip_": "tritkit.surgery",
    "named_ternary": "tritkit.surgery",
    "param_groups": "tritkit.surgery",
    "reestimate_bn_": "tritkit.surgery",
    "snap_scales_": "tritkit.surgery",
    "freeze_codes_": "tritkit.surgery",
    "after_step_": "tritkit.surgery",
    "quantize_activations": "tritkit.activations",
    "calibrate": "tritkit.activations",
    "freeze_": "tritkit.activations",
    "quantize": "tritkit.post",
    "export": "tritkit.deploy",
    "Session": "tritkit.runtime",
    "hub": "tritkit.zoo",
}
_MODULES = (
    *("activations", "compress", "data", "deploy", "low_bit", "methods", "models"),
    *("observers", "runtime", "surgery", "ternary", "train"),
)

__all__ = ["__version__", *_HOME, *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"tritkit.{name}")
    raise AttributeError(f"module 'tritkit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
