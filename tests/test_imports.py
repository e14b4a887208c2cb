"""The parts may import one another in one direction only (docs/architecture.md)."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src" / "tritkit"

# part -> the parts of tritkit that it may import, besides `errors`
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "ternary": set(),
    "graphs": set(),
    "methods": {"ternary"},
    "processes": set(),
    "surgery": {"methods", "processes", "ternary"},
    "observers": {"processes"},
    "activations": {"graphs", "observers", "processes"},
    "low_bit": {"methods", "surgery"},
    "models": set(),
    "data": set(),
    "compress": {"surgery"},
    "train": {
        *("activations", "compress", "data", "deploy", "low_bit", "methods", "models", "observers"),
        *("post", "processes", "runtime", "surgery", "ternary"),
    },
    "deploy": {"surgery", "activations", "graphs", "observers", "ternary", "runtime"},
    "post": {"surgery", "activations", "graphs", "methods", "observers", "ternary", "deploy", "processes"},
    "runtime": set(),
    "zoo": set(),
    "inspection": {"activations", "compress", "surgery", "ternary", "train"},
    "diagnosis": {"deploy", "inspection", "runtime"},
    "packing": {"inspection"},
    "bench": {"models", "surgery", "ternary", "deploy", "runtime", "zoo"},
    "report": {"bench", "inspection", "methods", "packing", "runtime"},
    "cli": {
        *("activations", "bench", "data", "deploy", "diagnosis", "inspection", "methods", "models"),
        *("packing", "post", "processes", "report", "runtime", "surgery", "ternary", "train", "zoo"),
    },
    "__main__": {"cli"},
}


def _part(path: Path) -> str:
    return path.relative_to(SRC).parts[0].removesuffix(".py")


def _imported_parts(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module] if node.module != "tritkit" else [f"tritkit.{a.name}" for a in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        found |= {name.split(".")[1] for name in names if name.startswith("tritkit.")}
    return found


SOURCES = sorted(p for p in SRC.rglob("*.py") if p != SRC / "__init__.py")


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(SRC)))
def test_imports_point_one_way(path: Path) -> None:
    part = _part(path)
    assert part in ALLOWED, f"new part {part}: say in ALLOWED what it may import"
    extra = _imported_parts(path) - ALLOWED[part] - {part, "errors", "__version__"}
    assert not extra, f"{path.relative_to(SRC)} imports {sorted(extra)}; {part} may import {sorted(ALLOWED[part])}"


@pytest.mark.parametrize("module", ["tritkit", "tritkit.runtime", "tritkit.errors", "tritkit.zoo"])
def test_light_modules_import_no_torch(module: str) -> None:
    code = f"import sys, {module}; assert 'torch' not in sys.modules and 'onnx' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_public_name_can_be_loaded() -> None:
    import tritkit

    for name in tritkit.__all__:
        assert getattr(tritkit, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        tritkit.nothing  # noqa: B018
