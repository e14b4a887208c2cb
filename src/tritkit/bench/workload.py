"""A network on disk, ready for every engine: our file, the float weights, and what the results should be."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tritkit import __version__
from tritkit.bench.plan import Plan
from tritkit.bench.shape import Shape
from tritkit.errors import UserError

if TYPE_CHECKING:
    from torch import nn

Array = NDArray[np.float32]

CALIBRATION_SEED, IMAGE_SEED = 1001, 1002
CALIBRATION_IMAGES = 32
_SOURCES = (  # what makes workloads and converts them
    *("bench/making.py", "bench/networks.py", "bench/shape.py", "bench/twin.py", "bench/rewriting.py"),
    *("bench/workload.py", "bench/litert_conversion.py", "bench/peers"),
    *("deploy", "models", "ternary.py", "surgery.py", "activations.py", "graphs.py"),
)


@dataclass(frozen=True)
class Workload:
    """A folder with `ternary.onnx` (our file), `facts.json`, `reference.npy` (the NumPy reference's output for the
    first image) and, for a network by name, `weights.safetensors`.
    """

    folder: Path

    @cached_property
    def facts(self) -> dict[str, Any]:
        """name, kind, input, positive, macs, ternary_weights, density, symmetric."""
        facts: dict[str, Any] = json.loads((self.folder / "facts.json").read_text())
        return facts

    @property
    def ternary_file(self) -> Path:
        return self.folder / "ternary.onnx"

    @property
    def shape(self) -> Shape:
        return Shape(self.facts["kind"], tuple(self.facts["input"]), self.facts["positive"])

    def images(self, batch: int) -> Array:
        """The images that are timed and checked."""
        return self.shape.images(batch, IMAGE_SEED)

    def calibration(self, batch: int) -> list[Array]:
        """At least CALIBRATION_IMAGES other images, in batches of exactly `batch`."""
        count = -(-CALIBRATION_IMAGES // batch)
        images = self.shape.images(count * batch, CALIBRATION_SEED)
        return [images[i * batch : (i + 1) * batch] for i in range(count)]

    def network(self) -> nn.Module:
        """The float32 network with ternary-valued weights, in evaluation mode."""
        if self.facts["kind"] == "file":
            from tritkit.bench.twin import FloatTwin
            from tritkit.deploy import from_onnx

            return FloatTwin(from_onnx(self.ternary_file)).eval()
        from tritkit.bench.networks import architecture
        from tritkit.models import load_float

        net, _ = architecture(self.facts["name"])
        load_float(self.folder / "weights.safetensors", net)
        net.eval().requires_grad_(False)
        return net

    def write_float_onnx(self, path: Path, batch: int, rewrite: Callable[[nn.Module], nn.Module] = lambda n: n) -> None:
        """The float network for exactly `batch` images, as torch's exporter writes it; batch norms are folded.

        rewrite: brings the network into the form that the engine runs best.
        """
        import torch

        example = torch.from_numpy(self.images(batch))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter that needs no further package is deprecated
            torch.onnx.export(
                rewrite(self.network()), (example,), str(path), dynamo=False, opset_version=18, input_names=["images"]
            )


def make(plan: Plan) -> Workload:
    """The workload of a plan, from the cache if it was made before."""
    from tritkit.bench.making import make_files

    path = Path(plan.network)
    given: tuple[Any, ...] = (plan.density, plan.scales, plan.seed)
    if path.is_file():
        given = (hashlib.sha256(path.read_bytes()).hexdigest(),)
    folder = cached(("workload", plan.network, *given), lambda folder: make_files(plan, folder))
    return Workload(folder)


def cached(key: Iterable[Any], fill: Callable[[Path], None]) -> Path:
    """A folder that `fill` has written for this key and version of the sources; filled once, whole or not at all."""
    digest = hashlib.sha256(repr((*key, source_digest())).encode()).hexdigest()[:20]
    folder = cache_root() / digest
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".making-", dir=folder.parent))
    except OSError as error:
        raise UserError(
            f"the bench cannot write to {folder.parent} ({error.strerror}); set TRITKIT_CACHE to a folder it may use"
        ) from error
    try:
        fill(temporary)
        _move(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _move(temporary: Path, folder: Path) -> None:
    """Into its place, unless another process was first."""
    try:
        temporary.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise


def cache_root() -> Path:
    """$TRITKIT_CACHE, else tritkit in the user's cache folder."""
    named = os.environ.get("TRITKIT_CACHE")
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return (Path(named) if named else home / "tritkit") / "bench"


def source_digest() -> str:
    """Of all source files that make workloads and convert them: a change of the code makes them anew."""
    root = Path(__file__).parents[1]
    files = [f for name in _SOURCES for f in ([root / name] if name.endswith(".py") else (root / name).rglob("*.py"))]
    digest = hashlib.sha256(__version__.encode())
    for file in sorted(files):
        digest.update(file.read_bytes())
    return digest.hexdigest()
