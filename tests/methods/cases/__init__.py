"""Numbers worked by hand: one file a method, each with its list CASES. A new method adds its file; nothing lists them.

`g` is dL/dweight. The expected values follow from the formulas in the method's docstring; no case calls our code.
"""

from __future__ import annotations

import importlib
import pkgutil

from cases._case import Case, Rows

_FILES = sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))

ALL: list[Case] = [case for name in _FILES for case in importlib.import_module(f"cases.{name}").CASES]

__all__ = ["ALL", "Case", "Rows"]
