"""`tritkit doctor`: what is wrong with a model; without one, is this machine ready, and what will the engine use."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import typer
from rich.console import Console

import tritkit
from tritkit.cli import examining
from tritkit.cli.output import Facts, Json, emit, say, table
from tritkit.errors import TritkitError, UserError

_FEATURES = ("avx2", "fma", "avx_vnni", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16", "amx_int8", "asimddp")
_PACKAGES = ("numpy", "torch", "safetensors", "pillow", "onnx", "onnxruntime")
_CHECKED_IMAGES = 4


class Check(NamedTuple):
    """One line of the report. `state`: "ok", "note" (something optional is absent) or "fail"."""

    name: str
    state: str
    value: str


def command(
    model: Annotated[
        str | None,
        typer.Argument(help="An .onnx or .safetensors file, a checkpoint.pt, a run's folder, or a packaged network."),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Images for a model: a folder (CIFAR-10 or pictures), .npy, or the word sample.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Find what is wrong with a model; without one, report the machine.

    Leaves with 1 if a model has a fault (waste of bytes or time is reported, but is none), or if something that must
    work on this machine does not.
    """
    if model is None and data is not None:
        raise UserError("--data is for a model; give one: tritkit doctor MODEL --data " + data)
    failed = _check_machine(as_json) if model is None else examining.examine(model, data, as_json)
    if failed:
        raise typer.Exit(1)


def _check_machine(as_json: bool) -> int:
    """Reports it; returns how many checks failed."""
    checks = [check for find in (_machine, _library, _engine, _zoo, _versions, _data) for check in _safely(find)]
    failed = sum(check.state == "fail" for check in checks)
    emit({"checks": [check._asdict() for check in checks], "failed": failed}, as_json, _render)
    return failed


def _safely(find: Callable[[], Iterator[Check]]) -> Iterator[Check]:
    """A check that cannot be made has failed; the others are still made."""
    try:
        yield from find()
    except (TritkitError, OSError) as error:
        yield Check(find.__name__.removeprefix("_"), "fail", str(error))


def _machine() -> Iterator[Check]:
    yield Check("system", "ok", f"{platform.system()} {platform.machine()}, Python {platform.python_version()}")
    name, flags = _cpu()
    yield Check("CPU", "ok", name)
    yield Check("CPU features", "ok", " ".join(f for f in _FEATURES if f in flags) or "not known here")
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    told = f"; TRITKIT_THREADS={os.environ['TRITKIT_THREADS']}" if "TRITKIT_THREADS" in os.environ else ""
    yield Check("threads", "ok", f"{usable} CPUs for this process{told}")


def _cpu() -> tuple[str, set[str]]:
    """Name and features as Linux lists them."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine(), set()
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in reversed(lines))}
    return facts.get("model name", platform.machine()), set(facts.get("flags", facts.get("Features", "")).split())


def _library() -> Iterator[Check]:
    from tritkit.runtime import kernels, library_path, library_version

    version, same = library_version(), library_version() == tritkit.__version__
    hint = "" if same else f"; it was built for another version, tritkit is {tritkit.__version__}: reinstall"
    yield Check("library", "ok" if same else "fail", f"{library_path()} {version}{hint}")
    found = kernels()
    listed = ", ".join(f"{kernel.name} ({kernel.isa})" for kernel in found)
    yield Check("kernels", "ok" if found else "fail", f"{listed}; preferred first" if found else "none can run here")
    if "TRITKIT_ISA" in os.environ:
        yield Check("TRITKIT_ISA", "note", f"{os.environ['TRITKIT_ISA']}: no newer instructions are used")


def _engine() -> Iterator[Check]:
    """The packaged network gives the same bits with the chosen kernels as with the plain loops."""
    from tritkit.runtime import Session
    from tritkit.zoo import hub, manifest

    if "resnet20-cifar10-ternary" not in manifest():
        yield Check("engine", "note", "not tried: no network is packaged with this checkout")
        return
    path = hub("resnet20-cifar10-ternary")
    images = np.random.default_rng(0).normal(size=(_CHECKED_IMAGES, 3, 32, 32)).astype(np.float32)
    session = Session(path)
    plain = Session(path, engine="reference", threads=1)
    same = np.array_equal(np.asarray(session.run(images)), np.asarray(plain.run(images)))
    chosen = ", ".join(sorted({step.kernel for step in session.summary() if step.weights}))
    bits = "same bits as the reference" if same else "OTHER bits than the reference: please report it"
    yield Check("engine", "ok" if same else "fail", f"{bits}; uses {chosen}")


def _zoo() -> Iterator[Check]:
    from tritkit.zoo import hub, manifest

    names = list(manifest())
    for name in names:
        hub(name)
    yield Check("packaged files", "ok", f"{', '.join(names)}: whole")


def _versions() -> Iterator[Check]:
    yield Check("tritkit", "ok", f"{tritkit.__version__} in {Path(tritkit.__file__).parent}")
    for name in _PACKAGES:
        try:
            yield Check(name, "ok", importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            extra = "onnx" if name.startswith("onnx") else "train"
            yield Check(name, "note", f"not installed; pip install 'tritkit[{extra}]' for what needs it")


def _data() -> Iterator[Check]:
    if find_spec("torch") is None:
        yield Check("CIFAR-10", "note", "not looked for: reading it needs torch")
        return
    from tritkit.data import load_cifar10

    try:
        images = load_cifar10(None, "test")
        yield Check("CIFAR-10", "ok", f"{len(images):,} test images found")
    except TritkitError as error:
        yield Check("CIFAR-10", "note", str(error))


def _render(facts: Facts, console: Console) -> None:
    rows = [[check["name"], check["state"], check["value"]] for check in facts["checks"]]
    console.print(table(["what", "state", "found"], rows, left=3))
    told = "Everything that must work does." if not facts["failed"] else f"{facts['failed']} failed."
    say(console, f"\n{told}")
