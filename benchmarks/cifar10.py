"""The CIFAR-10 results: a table of the finished runs under results/, a figure of a run, and README's table of them.

    python benchmarks/cifar10.py --measure --data DIR   # also every run's exported file on the whole test set
    python benchmarks/cifar10.py                        # runs nothing: docs/cifar10.md, its figure, README's table

A run is a folder results/cifar10-NAME with record.jsonl and final.safetensors; what its integer network gives stands in
integer.json beside them. Nothing on the page is typed by hand but the papers' numbers.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import tempfile
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
RESULTS, PAGE, README = ROOT / "results", ROOT / "docs" / "cifar10.md", ROOT / "README.md"
MANIFEST = ROOT / "src" / "tritkit" / "_zoo" / "manifest.json"
FIGURE = ROOT / "docs" / "pictures" / "scales-and-density.png"
SHOWN = "cifar10-resnet20-ttq"  # the run of the figure
TABLE = re.compile(r"(<!-- table: benchmarks/cifar10\.py -->\n).*?(\n<!-- /table -->)", re.DOTALL)
PAPER = {  # in %: TTQ's Table 1; for TGA the networks of its sister paper, whose thresholds are fixed
    "ttq": {"20": 8.87, "32": 7.63, "44": 7.02, "56": 6.44},
    "tga": {"20": 8.35, "32": 7.52, "44": 7.29, "56": 7.14},
}
PARENTS = {"20": 8.27, "32": 7.37, "44": 6.90, "56": 6.61}  # the published float networks, in %


class Run(NamedTuple):
    """A finished run."""

    name: str
    recipe: dict[str, Any]
    epochs: list[dict[str, Any]]
    final: dict[str, Any]
    hardware: dict[str, Any]

    @property
    def depth(self) -> str:
        return str(self.recipe["model"].removeprefix("cifar-resnet"))

    @property
    def method(self) -> str:
        method = self.recipe["method"]
        if method is None:
            return "float"
        size, per = method.get("group_size"), method.get("per")
        scales = f", a scale for {size} weights" if size else f", a scale a {per}" if per else ""
        return str(method["name"]) + scales + ("" if self.recipe["exclude"] else ", all layers")

    @property
    def paper(self) -> float | None:
        """What the method's paper reports, in %."""
        name = self.method.split(",")[0].removesuffix("-window")
        return PAPER.get(name, {}).get(self.depth)

    @property
    def earlier(self) -> str | None:
        """The run whose final weights it trains on."""
        init = self.recipe["init"] or ""
        return init.split("/")[1] if init.startswith("results/") else None

    @property
    def integer(self) -> dict[str, Any] | None:
        path = RESULTS / self.name / "integer.json"
        return json.loads(path.read_text()) if path.exists() else None


def runs() -> list[Run]:
    """The finished ones, by depth and name."""
    found = []
    for path in RESULTS.glob("cifar10-*/record.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        if rows[-1]["kind"] == "final":
            epochs = [row for row in rows if row["kind"] == "epoch"]
            found.append(Run(path.parent.name, rows[0]["recipe"], epochs, rows[-1], rows[0]["hardware"]))
    return sorted(found, key=lambda run: (int(run.depth), run.method != "float", run.name))


def measure(run: Run, data: str | None) -> None:
    """Export the run and give its file the whole test set."""
    import tritkit
    from tritkit.cli.app import run_app
    from tritkit.cli.evaluation import wrong_in_session
    from tritkit.data import load_cifar10

    test = load_cifar10(data, "test")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.onnx"
        calibrate = [] if run.recipe["activations"] else ["--calibrate", "sample"]
        if run_app(["export", str(RESULTS / run.name), "-o", str(path), *calibrate]):
            return
        wrong = wrong_in_session(tritkit.Session(path, threads=1), test.images.numpy(), test.labels.numpy())
        content = path.read_bytes()
    facts = {"wrong": wrong, "images": len(test), "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (RESULTS / run.name / "integer.json").write_text(json.dumps(facts, indent=2) + "\n")


def row(run: Run) -> list[str]:
    """What the page says of a run."""
    seconds = sum(epoch["seconds"] for epoch in run.epochs)
    budget = f"{run.recipe['epochs']} epochs, {seconds / 60:.0f} min on {run.hardware['threads']} core(s)"
    asked = tomllib.loads((ROOT / "recipes" / f"{run.name}.toml").read_text())["epochs"]
    if asked != run.recipe["epochs"]:
        budget += f" (the recipe now asks for {asked} epochs, not run yet)"
    return [
        f"ResNet-{run.depth}",
        f"[{run.method}](../recipes/{run.name}.toml)",
        start(run),
        teacher(run),
        budget,
        f"{run.epochs[-1]['train_error']:.2%}",
        f"{run.final['test_error']:.2%}",
        integer_error(run),
        "–" if run.integer is None else f"{run.integer['bytes']:,}",
        "–" if run.recipe["method"] is None else f"{PARENTS[run.depth]:.2f} %",
        "–" if run.paper is None else f"{run.paper:.2f} %",
        f"[record](../results/{run.name}/record.jsonl)",
    ]


def start(run: Run) -> str:
    """What its first step begins with."""
    if run.recipe["init"] is None:
        return "random"
    if run.earlier:
        return f"the end of [{run.earlier}](../recipes/{run.earlier}.toml)"
    return "float" + (" by way of post-training" if run.recipe.get("post_training_images") else "")


def teachers(run: Run) -> list[str]:
    """Their models; none: the run has labels alone."""
    model = (run.recipe["distill"] or {"model": []})["model"]
    return [model] if isinstance(model, str) else model


def teacher(run: Run) -> str:
    if not teachers(run):
        return "–"
    depths = ", ".join(model.removeprefix("cifar-resnet") for model in teachers(run))
    mixed = ", also to images mixed by CutMix" if run.recipe.get("cutmix") else ""
    return f"ResNet-{depths}" + (" in 8 bits" if run.recipe["distill"].get("bits") == 8 else "") + mixed


def integer_error(run: Run) -> str:
    facts = run.integer
    return "–" if facts is None else f"**{facts['wrong'] / facts['images']:.2%}**"


def page(found: list[Run]) -> str:
    head = ["network", "method, recipe", "start", "teacher", "budget", "training error", "test error, simulated"]
    head += ["test error, `Session`", "bytes", "float parent", "paper", "record"]
    table = [_line(head), "|---" * len(head) + "|", *(_line(row(run)) for run in found)]
    return INTRO + "\n".join(table) + "\n" + FIGURES


def readme(found: list[Run]) -> str:
    """README's table: for each depth the network in the package and TTQ in its own form, both in `Session`."""
    packaged = {entry["sha256"] for entry in json.loads(MANIFEST.read_text()).values()}
    lines = ["| CIFAR-10, test error | float | ternary, in the package | file | TTQ, two scales a layer | its paper |"]
    lines.append("|---|---|---|---|---|---|")
    for depth, parent in PARENTS.items():
        of_depth = [run for run in found if run.depth == depth and run.method != "float"]
        ours = next(run for run in of_depth if run.integer and run.integer["sha256"] in packaged)
        ttq = [run for run in of_depth if run.method == "ttq"][-1]  # later ones have longer names
        size = f"{ours.integer['bytes']:,} bytes" if ours.integer else "–"
        errors = [f"{integer_error(run)} [record](results/{run.name}/record.jsonl)" for run in (ours, ttq)]
        lines.append(_line([f"ResNet-{depth}", f"{parent:.2f}%", errors[0], size, errors[1], f"{ttq.paper:.2f}%"]))
    return "\n".join(lines)


def _line(values: list[str]) -> str:
    return "| " + " | ".join(values) + " |"


def draw(run: Run) -> None:
    """Wp, Wn and the density of a layer of each stage over the epochs, as in TTQ's Figure 2."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    names = [name for name in run.final["layers"] if name.endswith(("1.1.conv1", "2.1.conv1", "3.1.conv1"))]
    figure, (scales, shares) = plt.subplots(2, 1, figsize=(8, 6), sharex=True, layout="constrained")
    epochs = [epoch["epoch"] for epoch in run.epochs]
    for color, name in enumerate(names):
        layers = [epoch["layers"][name] for epoch in run.epochs]
        scales.plot(epochs, [layer["wp"] for layer in layers], color=f"C{color}", label=f"{name}  Wp")
        scales.plot(epochs, [-layer["wn"] for layer in layers], color=f"C{color}", linestyle="--", label=f"{name}  −Wn")
        shares.plot(epochs, [100 * layer["density"] for layer in layers], color=f"C{color}", label=name)
    scales.set(ylabel="value of the weights", title=f"{run.name}: scales and densities while it trains")
    shares.set(xlabel="epoch", ylabel="weights that are not zero, %")
    for axes in (scales, shares):
        axes.grid(alpha=0.3)
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    figure.savefig(FIGURE, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--measure", action="store_true", help="export and evaluate the runs without integer.json")
    parser.add_argument("--data", help="the folder of CIFAR-10")
    arguments = parser.parse_args()
    found = runs()
    if arguments.measure:
        for run in found:
            if run.integer is None:
                measure(run, arguments.data)
    PAGE.write_text(page(found))
    text = README.read_text()
    README.write_text(TABLE.sub(lambda match: match[1] + readme(found) + match[2], text))
    draw(next(run for run in found if run.name == SHOWN))


INTRO = """# CIFAR-10

Made by `benchmarks/cifar10.py` of the records in `results/`; a record is written while its run goes on.

Every ternary network starts from published float weights (the float parent), or where another run ended, keeps its
first layer and classifier in int8, unless the row says all layers, and has 8-bit activations. Test errors are of the
whole test set, which a run reads once, at its end, and which chose no setting: *simulated* by PyTorch with float
arithmetic on 8-bit values, and of the exported file in `Session`.
One seed each; the standard error of one test set is about 0.27 points. Minutes are of a machine with other work to do.
Training errors are of augmented images, with CutMix of mixed ones.

"""

FIGURES = f"""
TTQ's paper trains with float activations, that of TGA's figures from scratch, both to longer schedules. Notes in a
record say what was mended on the way.

![Scales and densities](pictures/{FIGURE.name})

All methods with one schedule of ten epochs, side by side: [table](../results/methods/table.md),
[curves](../results/methods/curves.png).
"""

if __name__ == "__main__":
    main()
