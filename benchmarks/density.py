"""Error against density against time: ternary ResNet-20 trained to several densities, with the knee marked.

    python benchmarks/density.py --train --data DIR     # runs what is not finished, records under results/density/
    python benchmarks/density.py --measure --data DIR   # error and milliseconds of the exported files, in `Session`
    python benchmarks/density.py                        # runs nothing: docs/density.md and its picture

`penalty-D` draws LSQ's layers to a mean density of D % (recipes/density-resnet20.toml). The others are the two forms of
TTQ's Figure 5: `constant-D` has the same share of weights in every layer, `threshold-T` has Δ = T / 100 · max |w|. All
begin with the same float weights. Time it on a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS, PAGE = ROOT / "results" / "density", ROOT / "docs" / "density.md"
PICTURE = ROOT / "docs" / "pictures" / "density.png"
RECIPE = ROOT / "recipes" / "density-resnet20.toml"
FLOAT_ERROR = 8.27  # of the weights that all begin with, in %
BATCH, THREADS, RUNS_TIMED = 64, 2, 60
TTQ = ("density=none", "post_training_images=0", "scale_lr=1e-4")
FORM = 'method={name="%s", init="data", latent_gradient="straight-through", %s=%g}'

RUNS: dict[str, tuple[str, ...]] = {
    "free": ("density=none",),
    **{f"penalty-{d}": (f"density.target={d / 100}",) for d in (35, 25, 15)},
    **{f"constant-{d}": (*TTQ, FORM % ("ttq-constant-sparsity", "sparsity", 1 - d / 100)) for d in (50, 35, 10, 100)},
    **{f"threshold-{t}": (*TTQ, FORM % ("ttq", "threshold", t / 100)) for t in (5, 20, 10)},
}


def train(name: str, data: str) -> None:
    """One run, or what remains of it."""
    command = [sys.executable, "-m", "tritkit", "train", str(RECIPE), "--data", data, "-o", str(RESULTS / name)]
    subprocess.run([*command, f"--set=name={name}", *(f"--set={change}" for change in RUNS[name])], check=True)


def finished() -> list[str]:
    return [name for name in RUNS if (RESULTS / name / "final.safetensors").exists()]


def measure(names: list[str], data: str) -> None:
    """Export all, count their errors, then time them in turn."""
    import tritkit
    from tritkit.bench.facts import cpu_name
    from tritkit.cli.app import run_app
    from tritkit.cli.evaluation import wrong_in_session
    from tritkit.data import load_cifar10

    test = load_cifar10(data, "test")
    rows: dict[str, dict[str, Any]] = {}
    sessions = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            path = Path(folder) / f"{name}.onnx"
            if run_app(["export", str(RESULTS / name), "-o", str(path)]):
                sys.exit(1)
            sessions[name] = tritkit.Session(path, threads=THREADS)
            wrong = wrong_in_session(sessions[name], test.images.numpy(), test.labels.numpy())
            rows[name] = {"error_percent": 100 * wrong / len(test), "bytes": path.stat().st_size, **density_of(name)}
        for name, milliseconds in timed(sessions).items():
            rows[name]["ms"] = milliseconds
    epochs = tomllib.loads(RECIPE.read_text())["epochs"]
    facts = {"batch": BATCH, "threads": THREADS, "images": len(test), "cpu": cpu_name(), "epochs": epochs, "rows": rows}
    (RESULTS / "table.json").write_text(json.dumps(facts, indent=1) + "\n")


def density_of(name: str) -> dict[str, float]:
    """The mean over the layers, which is about the share of multiplications that remain."""
    layers = json.loads((RESULTS / name / "record.jsonl").read_text().splitlines()[-1])["layers"]
    return {"density": statistics.mean(layer["density"] for layer in layers.values())}


def timed(sessions: dict[str, Any]) -> dict[str, float]:
    """Median milliseconds of a batch, all networks in turn."""
    import numpy as np

    images = np.random.default_rng(0).standard_normal((BATCH, 3, 32, 32), np.float32)
    times: dict[str, list[float]] = {name: [] for name in sessions}
    for _ in range(RUNS_TIMED):
        for name, session in sessions.items():
            session.run(images)  # brings its weights back into the caches
            start = time.perf_counter()
            session.run(images)
            times[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in times.items()}


def families(rows: dict[str, dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The runs of each curve, dense ones first."""
    prefixes = {
        "LSQ, a scale a channel, penalty": ("free", "penalty"),
        "TTQ, constant sparsity": ("constant",),
        "TTQ, threshold a share of max |w|": ("threshold",),
    }
    named = {
        label: [row for name, row in rows.items() if name.startswith(starts)] for label, starts in prefixes.items()
    }
    return {label: sorted(some, key=lambda row: -row["density"]) for label, some in named.items() if some}


def knee(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The run furthest below the straight line from the densest to the sparsest, both axes scaled to 0..1."""
    first, last = rows[0], rows[-1]
    wide, high = first["density"] - last["density"], last["error_percent"] - first["error_percent"]

    def below(row: dict[str, Any]) -> float:
        return float(
            (first["density"] - row["density"]) / wide - (row["error_percent"] - first["error_percent"]) / high
        )

    return max(rows, key=below) if len(rows) > 2 and wide > 0 and high > 0 else first


def draw(facts: dict[str, Any]) -> None:
    """Error against density, and against milliseconds."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, both = plt.subplots(1, 2, figsize=(10, 4), sharey=True, layout="constrained")
    axes = (("density", 100, "weights that are not zero, % (mean of the layers)"), ("ms", 1, "ms for 64 pictures"))
    for axis, (key, unit, label) in zip(both, axes, strict=True):
        for color, (name, rows) in enumerate(families(facts["rows"]).items()):
            points = [(unit * row[key], row["error_percent"]) for row in rows]
            axis.plot(*zip(*points, strict=True), "o-", color=f"C{color}", label=name)
            best = knee(rows)
            axis.plot(unit * best[key], best["error_percent"], "o", ms=14, mfc="none", color=f"C{color}")
        axis.axhline(FLOAT_ERROR, color="grey", linestyle=":", label="float parent")
        axis.set(xlabel=label)
        axis.grid(alpha=0.3)
    both[0].set_ylabel("test error, %")
    both[0].legend(frameon=False)
    both[1].set_title(f"{facts['threads']} threads")
    figure.suptitle("ResNet-20 on CIFAR-10, integer network in Session; a ring marks the knee")
    figure.savefig(PICTURE, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", help=f"runs, of {', '.join(RUNS)}; all by default")
    parser.add_argument("--data", help="the folder of CIFAR-10")
    parser.add_argument("--train", action="store_true", help="train what is not finished")
    parser.add_argument("--measure", action="store_true", help="export, evaluate and time what is finished")
    arguments = parser.parse_args()
    if (arguments.train or arguments.measure) and not arguments.data:
        parser.error("give --data, the folder of CIFAR-10")
    for name in (arguments.names or RUNS) if arguments.train else ():
        train(name, arguments.data)
    if arguments.measure:
        measure(finished(), arguments.data)
    facts = json.loads((RESULTS / "table.json").read_text())
    draw(facts)
    PAGE.write_text(page(facts))
    print(f"{PAGE.relative_to(ROOT)}: {', '.join(facts['rows'])}")


def page(facts: dict[str, Any]) -> str:
    """The page: what was done, a table of the runs, the picture."""
    knees = [knee(rows) for rows in families(facts["rows"]).values()]
    lines = []
    for name, row in facts["rows"].items():
        mark = " (knee)" if row in knees else ""
        numbers = f"{row['density']:.1%} | {row['error_percent']:.2f} | {row['ms']:.2f} | {row['bytes']:,}"
        lines.append(f"| [{name}](../results/density/{name}/record.jsonl){mark} | {numbers} |")
    return PAGE_TEXT.format(table="\n".join(lines), picture=PICTURE.name, **facts)


PAGE_TEXT = """# Density, error and time

Made by `benchmarks/density.py`, which trains, measures and times all of it again.

A zero costs the zero-skipping kernels nothing, so fewer weights mean less time where these run: a layer takes the
fastest of its ways ([engine.md](engine.md)), and in narrow layers, or on a CPU whose dot products are as fast as its
additions, that is the dense one until few weights are left. Here ternary ResNet-20s are trained to several densities,
all from the same float weights (8.27 % error) with the same schedule of {epochs} epochs, which is short: the errors are
there to be compared with each other. `[density]` in a recipe draws the layers of any method to fewer weights by a
penalty, and the network decides which give most; `constant` and `threshold` are TTQ's two forms. Test errors are of the
integer network in `Session`, whole test set, one seed; milliseconds are for {batch} pictures at once on {threads}
threads of {cpu}, all networks in turn.

| run | weights that are not zero (mean of the layers) | test error, % | ms | bytes |
|---|---|---|---|---|
{table}

![Error against density and against time](pictures/{picture})

TTQ's paper (Figure 5) finds the lowest error where 30 to 50 % of the weights are zero, and a binary network worse.

The knee is the run furthest below the straight line between the ends of its curve.
"""

if __name__ == "__main__":
    main()
