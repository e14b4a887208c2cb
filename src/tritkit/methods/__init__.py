"""Ways to make weights ternary, one file a paper. The files of this folder are found by themselves.

    from tritkit.methods import TTQ, get, names
    get("ttq", threshold=0.05) == TTQ(threshold=0.05)

A method's docstring is its specification; `tritkit methods` prints its `summary` and `paper`.
"""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

from tritkit.errors import UserError
from tritkit.methods._base import REGISTRY, Method, StraightThroughMethod, Ternarizer

for _module in pkgutil.iter_modules(__path__):
    if not _module.name.startswith("_"):
        importlib.import_module(f"{__name__}.{_module.name}")

_CLASSES = {cls.__name__: cls for cls in REGISTRY.values()}

__all__ = ["Method", "StraightThroughMethod", "Ternarizer", "get", "method_class", "names", *_CLASSES]


def names() -> list[str]:
    """The names of all methods, sorted."""
    return sorted(REGISTRY)


def method_class(name: str) -> type[Method]:
    """The class of the method `name`; UserError with near names when there is none."""
    if name not in REGISTRY:
        raise UserError(f"there is no method {name!r}; {_near(name, REGISTRY)}")
    return REGISTRY[name]


def get(name: str, **params: Any) -> Method:
    """The method `name` with these fields; the others keep the paper's defaults. UserError on unknown
    ones.
    """
    cls = method_class(name)
    known = [field.name for field in dataclasses.fields(cls)]
    for param in params:
        if param not in known:
            raise UserError(f"method {name!r} has no parameter {param!r}; {_near(param, known)}")
    return cls(**params)


def _near(word: str, known: Iterable[str]) -> str:
    near = get_close_matches(word, list(known), n=3)
    if near:
        return f"did you mean {' or '.join(map(repr, near))}?"
    return f"there are: {', '.join(sorted(known)) or 'none'}"


def __getattr__(name: str) -> Any:
    if name in _CLASSES:
        return _CLASSES[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
