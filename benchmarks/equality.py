"""Do all engines give the same bits on the whole CIFAR-10 test set? Prints a table, exits 1 if one does not.

    python benchmarks/equality.py [MODEL.onnx] [--data DIR] [--images 10000] [--json results/equality.json]

Every engine runs the same file: the PyTorch simulation and the NumPy reference read it back, stock ONNX Runtime runs it
with and without its optimisations, `Session` with 1 and 2 threads and each instruction set of this CPU, down to the
scalar C++ reference. Other CPUs are emulated by qemu-x86_64, where it is installed (on the first 100 images).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

BATCH = 500
EMULATED_IMAGES = 100  # scalar code under emulation is slow
EMULATED = {"Haswell": "avx2", "SandyBridge": "scalar"}  # CPU model of qemu -> the instruction set it should pick
Array = np.ndarray


def engines(model: Path) -> Iterator[tuple[str, Callable[[Array], Array]]]:
    """(name, images → logits) of every engine that can run here; the first is what the others are held to."""
    import onnxruntime as ort
    import torch

    from tritkit.deploy import Reference, Simulation, from_onnx
    from tritkit.runtime import Session, kernels

    graph = from_onnx(model)
    reference, simulation = Reference(graph), Simulation(graph)
    yield "NumPy reference", reference.run
    yield "PyTorch simulation", lambda x: simulation(torch.from_numpy(x)).numpy()
    levels = {"optimised": "ORT_ENABLE_ALL", "as written": "ORT_DISABLE_ALL"}
    for label, level in levels.items():
        options = ort.SessionOptions()
        options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
        options.log_severity_level = 3
        session = ort.InferenceSession(str(model), options, ["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        yield f"ONNX Runtime {ort.__version__}, {label}", lambda x, s=session, n=name: s.run(None, {n: x})[0]
    for threads in (1, 2):
        for isa in dict.fromkeys(k.isa for k in kernels()):
            yield f"Session, {isa}, {threads} thread{'s' * (threads > 1)}", Session(model, threads=threads, isa=isa).run


def run(engine: Callable[[Array], Array], images: Array) -> Array:
    """Logits of all images, in batches."""
    return np.concatenate([engine(images[i : i + BATCH]) for i in range(0, len(images), BATCH)])


_CHILD = """
import sys, numpy as np
from tritkit.runtime import Session, kernels
session = Session(sys.argv[1], threads=2)
np.save(sys.argv[3], session.run(np.load(sys.argv[2])))
print(kernels()[0].isa)
"""


def emulated(model: Path, images: Array) -> Iterator[tuple[str, Array]]:
    """(name, logits) of `Session` on CPUs that qemu emulates."""
    qemu = shutil.which("qemu-x86_64")
    if qemu is None:
        print("qemu-x86_64 is not installed: no emulated CPUs", file=sys.stderr)
        return
    with tempfile.TemporaryDirectory() as folder:
        np.save(f"{folder}/x.npy", images)
        for cpu, isa in EMULATED.items():
            command = [
                qemu,
                "-cpu",
                cpu,
                sys.executable,
                "-c",
                _CHILD,
                str(model),
                f"{folder}/x.npy",
                f"{folder}/y.npy",
            ]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode or done.stdout.strip() != isa:
                raise SystemExit(f"emulated {cpu}: {done.stdout} {done.stderr[-2000:]}")
            yield f"Session, {isa}, emulated {cpu}", np.load(f"{folder}/y.npy")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", nargs="?", help="default: the packaged ternary ResNet-20")
    parser.add_argument("--data", help="CIFAR-10 folder; default: where tritkit looks for it")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--json", type=Path, help="write the rows here")
    args = parser.parse_args()

    import tritkit
    from tritkit.data import load_cifar10, normalise
    from tritkit.runtime import Session

    model = Path(args.model or tritkit.hub("resnet20-cifar10-ternary"))
    facts = json.loads(Session(model).metadata["tritkit.input"])
    test = load_cifar10(args.data, "test")
    images = normalise(test.images[: args.images], facts["mean"], facts["std"]).numpy()
    labels = test.labels[: args.images].numpy()

    rows, truth = [], None

    def report(name: str, logits: Array, seconds: float | None) -> None:
        nonlocal truth
        truth = logits if truth is None else truth
        n = len(logits)
        different = int((logits.view(np.int32) != truth[:n].view(np.int32)).any(axis=1).sum())
        error = float((logits.argmax(1) != labels[:n]).mean())
        digest = hashlib.sha256(np.ascontiguousarray(logits).tobytes()).hexdigest()[:16]
        rows.append({"engine": name, "images": n, "different": different, "error": error, "sha256": digest})
        took = f"{seconds:7.1f} s" if seconds is not None else ""
        print(f"{name:42} {n:6} images  error {error:7.2%}  different {different:5}  {took}", flush=True)

    for name, engine in engines(model):
        start = time.perf_counter()
        logits = run(engine, images)
        report(name, logits, time.perf_counter() - start)
    for name, logits in emulated(model, images[:EMULATED_IMAGES]):
        report(name, logits, None)

    if args.json:
        digest = hashlib.sha256(model.read_bytes()).hexdigest()
        record = {"model": model.name, "sha256": digest, "machine": platform.machine(), "rows": rows}
        args.json.write_text(json.dumps(record, indent=1) + "\n")
    wrong = [r["engine"] for r in rows if r["different"]]
    print("all engines agree bit for bit" if not wrong else f"different results: {wrong}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
