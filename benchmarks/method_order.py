"""Why TTQ does not come out before TWN in results/methods: where they start, and what trained scales do.

    python benchmarks/method_order.py --start      # how far each method takes the float weights from where they were
    python benchmarks/method_order.py --scales     # the finished networks of benchmarks/methods.py with other scales
    python benchmarks/method_order.py --short      # two epochs of each of SHORT, where not done
    python benchmarks/method_order.py              # sums up what there is in results/methods/order.md

Behind batch norm the length of an output's weights does not matter. So what a method does to the float network at the
start is to turn them; and of TTQ's scales only the ratio Wp : Wn of a layer matters. Finished networks are given
other ratios and fresh statistics of batch norm, as at the end of a run, and tested. The short runs take TTQ with
trained scales, with scales that stay where they start, and with a threshold that turns the weights as little as TWN.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from methods import DATA_SCALES, RECIPE, RESULTS, RUNS, finished, mcnemar, wrong_images

KINDS = {
    "ttq": ("as trained", "equal", "from the weights"),
    "ttq-paper": ("as trained", "equal", "from the weights"),
    "twn": ("as trained", "from the weights"),
}
"""The scales of a finished network. Equal: the geometric mean of Wp and Wn for both. From the weights: the mean |w| of
the latents with that code, for each sign."""

SHORT = {
    "ttq": RUNS["ttq"],
    "ttq-fixed": ["method.name=ttq", *DATA_SCALES[:2], "scale_lr=1e-12"],  # as ttq, but scales stay where they start
    "ttq-0.09": [*RUNS["ttq"], "method.threshold=0.09"],  # which turns the float weights as little as TWN does
    "twn": RUNS["twn"],
}
SCHEDULE = ["epochs=2", "schedule.warmup_epochs=0.2"]
START, SCALES = RESULTS / "start.json", RESULTS / "scales.json"


# ---- the start -------------------------------------------------------------------------------------------------------


def compare_starts() -> None:
    """For each finished run of a method, 1 − cos² of the angle by which its first codes turn the float weights."""
    rows = []
    for label, record in finished().items():
        if record[0]["recipe"]["method"] is not None:
            rows.append({"method": label, "turned": turned(record), "error": record[-1]["test_error"]})
    other = copy.deepcopy(finished()["ttq"])
    other[0]["recipe"]["method"]["threshold"] = 0.09
    rows.append({"method": "ttq-0.09", "turned": turned(other), "error": None})
    START.write_text(json.dumps(sorted(rows, key=lambda row: row["turned"]), indent=2) + "\n")


def turned(record: list[dict[str, Any]]) -> float:
    """The mean over the outputs of a layer, and over the layers."""
    from tritkit import methods, models
    from tritkit.train.initial import find_weights

    recipe = record[0]["recipe"]
    net = models.build(recipe["model"])
    models.load_float(find_weights(recipe["init"]), net)
    method = methods.get(**recipe["method"])
    shares = []
    for name in record[-1]["layers"]:
        weight = net.get_submodule(name).weight.detach()
        first = method.project(weight).dequantize().flatten(1)
        along = (weight.flatten(1) * first).sum(1).square()
        square = weight.flatten(1).square().sum(1) * first.square().sum(1)
        shares.append(float((1 - along / square.clamp(min=1e-30)).mean()))
    return sum(shares) / len(shares)


# ---- other scales ----------------------------------------------------------------------------------------------------


def compare_scales(data: str | None) -> None:
    from tritkit.data import load_cifar10
    from tritkit.train import load_trained

    train, test = load_cifar10(data, "train"), load_cifar10(data, "test")
    rows = []
    for label, kinds in KINDS.items():
        wrong = {}
        for kind in kinds:
            net, recipe = load_trained(RESULTS / label / "final.safetensors")
            ratios = set_scales(net, kind)
            measure_batch_norm(net, recipe, train)
            wrong[kind] = wrong_images(net, recipe, test)
            found = {"error": float(wrong[kind].float().mean()), "ratios": [min(ratios), max(ratios)]}
            rows.append({"network": label, "scales": kind, **found, **mcnemar(wrong["as trained"], wrong[kind])})
            print(rows[-1], flush=True)
    SCALES.write_text(json.dumps(rows, indent=2) + "\n")


def set_scales(net: Any, kind: str) -> list[float]:
    """Make the ternary layers plain ones with these scales; Wp / Wn of each."""
    from tritkit.surgery import latent_of, named_ternary, strip_

    weights, ratios = {}, []
    for name, layer, value in named_ternary(net):
        codes, latent = value.codes.float(), latent_of(layer).detach()
        pos, neg = value.scale_pos, value.scale_neg
        if kind == "equal":
            pos = neg = (pos * neg).sqrt()
        elif kind == "from the weights":
            pos, neg = latent[codes > 0].mean(), -latent[codes < 0].mean()
        weights[name] = codes.clamp(min=0) * pos + codes.clamp(max=0) * neg
        ratios.append(float(pos / neg))
    strip_(net)
    for name, weight in weights.items():
        net.get_submodule(name).weight.data.copy_(weight)
    return ratios


def measure_batch_norm(net: Any, recipe: Any, images: Any) -> None:
    """As a run does at its end."""
    from tritkit.surgery import reestimate_bn_
    from tritkit.train.images import MemoryImages
    from tritkit.train.ranks import Ranks

    reestimate_bn_(net, *MemoryImages(images, recipe, Ranks()).augmented(recipe.bn_images))


# ---- short runs ------------------------------------------------------------------------------------------------------


def train_short(label: str, data: str | None) -> None:
    """One short run, of which the record stays."""
    out = RESULTS / "short" / label
    if final(out) is not None:
        return
    settings = [f"name={label}", *SCHEDULE, *SHORT[label]]
    command = [sys.executable, "-m", "tritkit", "train", str(RECIPE), f"--out={out}", *(f"--set={s}" for s in settings)]
    command += [f"--data={data}"] if data else []
    subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True)
    for path in out.iterdir():
        if path.name != "record.jsonl":
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def final(out: Path) -> tuple[float, float] | None:
    """Test error and training error at the end; None where the run is not finished."""
    path = out / "record.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return (rows[-1]["test_error"], rows[-2]["train_error"]) if rows and rows[-1]["kind"] == "final" else None


# ---- the page --------------------------------------------------------------------------------------------------------


def page() -> str:
    return "\n".join([*start_lines(), "", *scale_lines(), "", *short_lines()]) + "\n"


def start_lines() -> list[str]:
    lines = [
        "How far each method's first codes turn the float weights of an output: 1 − cos² of the angle, the mean over",
        "the outputs and layers; and the test error after ten epochs. Made by",
        "`python benchmarks/method_order.py --start`.",
        "",
        "| method | turned | test error |",
        "|---|---|---|",
    ]
    rows = json.loads(START.read_text()) if START.exists() else []
    errors = ["not run" if row["error"] is None else f"{row['error']:.2%}" for row in rows]
    return lines + [f"| {row['method']} | {row['turned']:.3f} | {e} |" for row, e in zip(rows, errors, strict=True)]


def scale_lines() -> list[str]:
    lines = [
        "Finished networks with other scales: the errors of 10,000 test images, the least and the greatest Wp/Wn of a",
        "layer, and the images that only the network as trained gets wrong, and only the other (p: McNemar). Equal:",
        "the geometric mean of Wp and Wn for both. From the weights: the mean |w| of the latents with that code, for",
        "each sign. Made by `python benchmarks/method_order.py --scales`.",
        "",
        "| network | scales | test error | Wp/Wn | only as trained | only so | p |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in json.loads(SCALES.read_text()) if SCALES.exists() else []:
        low, high = row["ratios"]
        cells = [row["network"], row["scales"], f"{row['error']:.2%}", f"{low:.2f} to {high:.2f}"]
        same = row["scales"] == "as trained"
        cells += ["–"] * 3 if same else [row["only_first_wrong"], row["only_second_wrong"], f"{row['p']:.2g}"]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return lines


def short_lines() -> list[str]:
    lines = [
        "Two epochs from the same float weights. ttq-fixed: scales stay where they start. ttq-0.09: Δ = 0.09 · max|w|,",
        "which turns the float weights as little as TWN. Made by `python benchmarks/method_order.py --short`.",
        "",
        "| method | training error | test error |",
        "|---|---|---|",
    ]
    for label in SHORT:
        errors = final(RESULTS / "short" / label)
        cells = "not run | not run" if errors is None else f"{errors[1]:.2%} | {errors[0]:.2%}"
        lines.append(f"| {label} | {cells} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="the folder of CIFAR-10")
    parser.add_argument("--start", action="store_true", help="compare the methods' first codes with the float weights")
    parser.add_argument("--scales", action="store_true", help="test finished networks with other scales")
    parser.add_argument("--short", action="store_true", help="train the short runs")
    arguments = parser.parse_args()
    if arguments.start:
        compare_starts()
    if arguments.scales:
        compare_scales(arguments.data)
    if arguments.short:
        for label in SHORT:
            train_short(label, arguments.data)
    (RESULTS / "order.md").write_text(page())
    print(page())


if __name__ == "__main__":
    main()
