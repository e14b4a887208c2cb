"""Every method on ResNet-20 from the same float weights, with the same schedule and seed.

    python benchmarks/methods.py                 # runs what is not finished, one record a method under results/methods/
    python benchmarks/methods.py --table         # runs nothing; writes table.md, table.json and curves.png there
    python benchmarks/methods.py --pairs         # whether the order of two methods is more than chance: pairs.json

A run that was interrupted goes on where it stopped. The schedule is recipes/compare-resnet20.toml; what a method needs
beside it is in RUNS, and every record carries its whole recipe. The table takes the runs that are finished.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results" / "methods"
RECIPE = ROOT / "recipes" / "compare-resnet20.toml"

DATA_SCALES = ["method.init=data", "method.latent_gradient=straight-through", "scale_lr=1e-4"]

RUNS: dict[str, list[str]] = {
    "float": [],
    "ttq": ["method.name=ttq", *DATA_SCALES],
    "ttq-paper": ["method.name=ttq"],
    "twn": ["method.name=twn"],
    "dorefa-1": ["method.name=dorefa"],
    "absmean": ["method.name=absmean"],
    "lsq": ["method.name=lsq"],
    "bwn": ["method.name=bwn"],
    "ttq-seed2": ["seed=2", "method.name=ttq", *DATA_SCALES],  # is the order of the two more than chance?
    "twn-seed2": ["seed=2", "method.name=twn"],
    "fgq-4": ["method.name=fgq", "method.group_size=4"],
    "tga": ["method.name=tga"],
    "binary-connect": ["method.name=binary-connect", "method.scale=data"],  # ±1 would drown the float network's latents
    "ternary-connect": ["method.name=ternary-connect", "method.scale=data"],
    "seq": ["method.name=seq"],
    "deep-compression": [
        "deep_compression.sparsity=0.8",
        "deep_compression.bits_conv=5",
        "deep_compression.share_epoch=8",
    ],
}


PAIRS = (("ttq", "twn"), ("twn", "dorefa-1"), ("ttq", "dorefa-1"), ("ttq", "ttq-paper"))


def train(label: str, data: str | None, threads: int) -> None:
    """One run, in a process of its own; what it prints goes to its folder."""
    out = RESULTS / label
    out.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "tritkit", "train", str(RECIPE), "--out", str(out)]
    command += [f"--set=name={label}", *(f"--set={override}" for override in RUNS[label])]
    command += [f"--data={data}"] if data else []
    waits = {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"}
    with open(out / "log.txt", "a") as log:
        done = subprocess.run(command, env={**os.environ, **waits}, stdout=log, stderr=subprocess.STDOUT)
    print(f"{label}: {'done' if done.returncode == 0 else f'failed, see {log.name}'}", flush=True)


def finished() -> dict[str, list[dict[str, Any]]]:
    """The records of the runs that have their final row."""
    records = {label: RESULTS / label / "record.jsonl" for label in RUNS}
    rows = {label: [json.loads(line) for line in path.open()] for label, path in records.items() if path.exists()}
    return {label: record for label, record in rows.items() if record[-1]["kind"] == "final"}


def facts(label: str, record: list[dict[str, Any]]) -> dict[str, Any]:
    """A row of the table."""
    from tritkit.train import load_trained

    net, _ = load_trained(RESULTS / label / "final.safetensors")
    weights = {name: net.get_submodule(name).weight.numel() for name in record[-1]["layers"]}
    kept = sum(row["density"] * weights[name] for name, row in record[-1]["layers"].items())
    return {
        "method": label,
        "error": record[-1]["test_error"],
        "train_error": record[-2]["train_error"],
        "density": kept / sum(weights.values()) if weights else None,
        **size(net, record[-1]),
        "seconds_an_epoch": record[-2]["seconds"],
    }


def size(net: Any, final: dict[str, Any]) -> dict[str, Any]:
    """Bytes of all weights and statistics, and what `tritkit export` makes of the layers.

    A ternary weight has 2 bits, its scales 16; all else is float32. Deep Compression: its own file.
    """
    from tritkit.surgery import named_ternary, strip_

    if "sizes" in final:
        return {"bytes": final["sizes"]["huffman"], "export": "no: a file of its own"}
    values = [value for _, _, value in named_ternary(net)]
    bits = sum(value.bits(scale_bits=16) for value in values)
    if values:
        strip_(net)
    floats = sum(t.numel() for t in net.state_dict().values() if t.is_floating_point())
    floats -= sum(value.codes.numel() for value in values)
    return {"bytes": 4 * floats + -(-bits // 8), "export": "2 bits" if values else "int8"}


def write_table(rows: list[dict[str, Any]]) -> None:
    lines = [
        "Error: 10,000 test images, float activations. Density: weights that are not zero, in layers the method takes.",
        "Bytes: all weights and batch norm; a ternary weight has 2 bits, a scale 16, all else 32. Seconds: the last",
        "epoch, on a machine with other load, so only a hint. Made by `python benchmarks/methods.py --table`.",
        "",
        "| method | test error | training error | density | bytes | s an epoch | exported as |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        density = "–" if row["density"] is None else f"{row['density']:.1%}"
        errors = f"{row['error']:.2%} | {row['train_error']:.2%}"
        rest = f"{row['bytes']:,} | {row['seconds_an_epoch']:.0f} | {row['export']}"
        lines.append(f"| {row['method']} | {errors} | {density} | {rest} |")
    (RESULTS / "table.md").write_text("\n".join(lines + pair_lines()) + "\n")
    (RESULTS / "table.json").write_text(json.dumps(rows, indent=2) + "\n")


def compare_pairs(data: str | None) -> None:
    """McNemar's test on the whole test set, of the images that only one of two networks gets wrong."""
    from tritkit.data import load_cifar10

    test = load_cifar10(data, "test")
    wrong = {label: mistakes(label, test) for label in dict.fromkeys(label for pair in PAIRS for label in pair)}
    rows = []
    for first, second in PAIRS:
        rows.append({"first": first, "second": second, **mcnemar(wrong[first], wrong[second])})
    (RESULTS / "pairs.json").write_text(json.dumps(rows, indent=2) + "\n")


def mcnemar(first: Any, second: Any) -> dict[str, float]:
    """Two networks by the images [N] that each gets wrong."""
    one, other = int((first & ~second).sum()), int((second & ~first).sum())
    z = (one - other) / math.sqrt(max(1, one + other))
    return {"only_first_wrong": one, "only_second_wrong": other, "p": math.erfc(abs(z) / 2**0.5)}


def mistakes(label: str, test: Any) -> Any:
    """bool [N]: the images that the network of a run gives another class than theirs."""
    from tritkit.train import load_trained

    return wrong_images(*load_trained(RESULTS / label / "final.safetensors"), test)


def wrong_images(net: Any, recipe: Any, test: Any) -> Any:
    """bool [N]: the images that `net` gives another class than theirs."""
    import torch

    from tritkit.data import normalise

    parts = []
    with torch.no_grad(), torch.nn.utils.parametrize.cached():
        for images in test.images.split(500):
            parts.append(net.eval()(normalise(images, recipe.mean, recipe.std)).argmax(1))
    return torch.cat(parts) != test.labels


def pair_lines() -> list[str]:
    """What `compare_pairs` found, as Markdown."""
    path = RESULTS / "pairs.json"
    if not path.exists():
        return []
    lines = [
        "",
        "Is the order of two methods more than chance? Images that only one of the two gets wrong, and the chance of",
    ]
    lines += ["so uneven a split, or a more uneven one, if both were equally good (McNemar; one seed each).", ""]
    lines += ["| first | second | only the first wrong | only the second | p |", "|---|---|---|---|---|"]
    for row in json.loads(path.read_text()):
        counts = f"{row['only_first_wrong']} | {row['only_second_wrong']}"
        lines.append(f"| {row['first']} | {row['second']} | {counts} | {row['p']:.2g} |")
    return [*lines, "", "Why the order is what it is: [order.md](order.md), by `python benchmarks/method_order.py`."]


def draw_curves(records: dict[str, list[dict[str, Any]]]) -> None:
    """Training error by epoch; the legend is sorted by the last one."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    curves = {
        label: [100 * row["train_error"] for row in record if row["kind"] == "epoch"]
        for label, record in records.items()
    }
    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    for i, label in enumerate(sorted(curves, key=lambda label: -curves[label][-1])):
        epochs = range(1, len(curves[label]) + 1)
        color = "black" if label == "float" else f"C{i % 10}"
        axes.plot(epochs, curves[label], label=label, color=color, linestyle="-" if i < 10 else "--", linewidth=1.4)
    axes.set(
        xlabel="epoch", ylabel="training error, % (log scale)", yscale="log", title="ResNet-20 from the same weights"
    )
    ticks, limits = [1, 2, 5, 10, 20, 50], axes.get_ylim()
    axes.set_yticks(ticks, [str(tick) for tick in ticks])
    axes.set_ylim(limits)
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    figure.savefig(RESULTS / "curves.png", dpi=110)


def summarise() -> None:
    records = finished()
    rows = sorted((facts(label, record) for label, record in records.items()), key=lambda row: row["error"])
    write_table(rows)
    draw_curves(records)
    print((RESULTS / "table.md").read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labels", nargs="*", help=f"runs, of {', '.join(RUNS)}; all by default")
    parser.add_argument("--data", help="the folder of CIFAR-10")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument("--threads", type=int, default=1, help="threads a run")
    parser.add_argument("--pairs", action="store_true", help="test the order of some methods on the test set")
    parser.add_argument("--table", action="store_true", help="sum up the finished runs and run nothing")
    arguments = parser.parse_args()
    if arguments.pairs:
        compare_pairs(arguments.data)
    if arguments.table or arguments.pairs:
        summarise()
        return
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for label in arguments.labels or RUNS:
            pool.submit(train, label, arguments.data, arguments.threads)


if __name__ == "__main__":
    main()
