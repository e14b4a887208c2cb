"""Our engine held to plain AVX2: a ternary network beside the same one with int8 weights, timed in turn.

    python benchmarks/avx2.py [resnet18 …] [--density 0.5] [--threads 1]

Other engines choose their instructions themselves and cannot be held back, so the peer is our own int8 convolution.
Writes avx2.json beside this machine's other records.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from pathlib import Path

import torch
from performance import machine_folder

import tritkit
from tritkit.bench.networks import architecture, ternary_network
from tritkit.bench.workload import CALIBRATION_IMAGES, CALIBRATION_SEED, IMAGE_SEED
from tritkit.surgery import reestimate_bn_

ROUNDS, WARM = 60, 5


def measure(name: str, density: float, threads: int, folder: Path) -> dict[str, object]:
    """Median milliseconds of both networks, one image a call."""
    ternary, shape = ternary_network(name, density, "symmetric", 0)
    torch.manual_seed(0)
    int8, _ = architecture(name)
    reestimate_bn_(int8, [torch.from_numpy(shape.images(32, 1))])
    image = shape.images(1, IMAGE_SEED)
    calibration = torch.split(torch.from_numpy(shape.images(CALIBRATION_IMAGES, CALIBRATION_SEED)), 8)
    sessions = {}
    for kind, net in (("ternary", ternary), ("int8", int8)):
        path = folder / f"{name}-{kind}.onnx"
        tritkit.export(net.eval(), path, torch.from_numpy(image), calibration=list(calibration))
        sessions[kind] = tritkit.Session(path, threads=threads, isa="avx2")
    times: dict[str, list[float]] = {kind: [] for kind in sessions}
    for round_ in range(ROUNDS + WARM):
        for kind, session in sessions.items():
            start = time.perf_counter()
            session.run(image)
            if round_ >= WARM:
                times[kind].append(1e3 * (time.perf_counter() - start))
    medians = {kind: statistics.median(values) for kind, values in times.items()}
    row = {"network": name, "density": density, "threads": threads, "ratio": medians["ternary"] / medians["int8"]}
    return row | {f"{kind}_ms": value for kind, value in medians.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("networks", nargs="*", default=["resnet18", "resnet20"])
    parser.add_argument("--density", type=float, default=0.5)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in options.networks:
            rows.append(measure(name, options.density, options.threads, Path(folder)))
            print("{network}: ternary {ternary_ms:.3f} ms, int8 {int8_ms:.3f} ms, ratio {ratio:.2f}".format(**rows[-1]))
    record = {"machine": platform.processor() or platform.machine(), "rows": rows}
    (machine_folder() / "avx2.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
