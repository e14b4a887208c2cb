"""Words for the engine's steps: the family of kernels a step belongs to, and the nodes fused into it."""

from __future__ import annotations

from tritkit.runtime.session import StepInfo

FAMILIES = ("dense", "unpacked", "gather", "winograd", "baked", "int8", "float32", "reference", "other")


def family(step: StepInfo) -> str:
    """One of FAMILIES, as docs/engine.md names them."""
    if not step.weights:
        return "other"
    for name in ("unpacked", "gather", "winograd", "baked", "reference"):
        if name in step.kernel:
            return name
    if step.op.startswith("TernaryGroup") or not step.op.startswith("Ternary"):
        return "float32" if step.op.split(" ")[0] in ("Conv", "Gemm") else "int8"
    return "dense"


def uses_tiles(kernel: str) -> bool:
    """Whether kernels of this name multiply tiles (AMX), whose limit is not that of vectors."""
    return "amx" in kernel


def parts(name: str) -> list[str]:
    """The nodes of a step, the weighted one first."""
    return name.split(" + ")
