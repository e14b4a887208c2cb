"""`tritkit compare`: two model files, or two training runs, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console

from tritkit.cli.evaluation import test_images
from tritkit.cli.output import Facts, Json, emit, percent, say, table, talk
from tritkit.cli.running import model_path, open_model
from tritkit.errors import UserError

_BATCH = 250


def command(
    a: Annotated[str, typer.Argument(help="An .onnx file or a packaged network; or a run's folder or record.jsonl.")],
    b: Annotated[str, typer.Argument(help="Another one of the same kind.")],
    data: Annotated[
        str | None, typer.Option(help="Folder of CIFAR-10 or ImageNet, or the word sample: what both say of it.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, max=1024, help="Of both sessions.")] = None,
    seconds: Annotated[float, typer.Option(min=0, max=3600, help="Of timing both in turn; 0: none.")] = 2.0,
    as_json: Json = False,
) -> None:
    """Compare two model files or two training runs: error, agreement, bytes, time, layer by layer."""
    runs = [_is_run(side) for side in (a, b)]
    if runs[0] != runs[1]:
        given, other = (a, b) if runs[0] else (b, a)
        raise UserError(
            f"{given} is a training run and {other} a model; compare two of one kind (export the run first)"
        )
    facts = _runs(Path(a), Path(b), data) if runs[0] else _models(model_path(a), model_path(b), data, threads, seconds)
    emit(facts, as_json, _render_runs if runs[0] else _render_models)


def _is_run(side: str) -> bool:
    return Path(side).is_dir() or side.endswith(".jsonl")


def _models(a: Path, b: Path, data: str | None, threads: int | None, seconds: float) -> Facts:
    from tritkit.report.accuracy import predictions
    from tritkit.report.comparing import agreement_facts, compare_models

    images = None
    if data is not None:
        from tritkit.cli.report import labelled

        images = [labelled(path, data) for path in (a, b)]
    sessions = (open_model(str(a), threads)[0], open_model(str(b), threads)[0])
    talk("timing both")
    facts = compare_models(a, b, sessions, seconds)
    if images is not None:
        talk(f"running {len(images[0].labels):,} images in both")
        logits = [predictions(session.run, own) for session, own in zip(sessions, images, strict=True)]
        facts["accuracy"] = agreement_facts(logits, images[0].labels)
    return facts


def _runs(a: Path, b: Path, data: str | None) -> Facts:
    from tritkit.report.comparing import agreement_facts, compare_runs

    facts = compare_runs(a, b)
    if data is not None:
        images, labels = test_images(data)
        talk(f"running {len(labels):,} images in both")
        facts["accuracy"] = agreement_facts([_trained_logits(side, images) for side in (a, b)], labels)
    return facts


def _trained_logits(run: Path, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Of the weights that lie beside a run's record."""
    import torch

    from tritkit.data import normalise
    from tritkit.train import load_trained

    weights = (run if run.is_dir() else run.parent) / "final.safetensors"
    if not weights.is_file():
        raise UserError(
            f"the run {run} has no final.safetensors, which --data needs; wait for its end, or leave --data out"
        )
    net, recipe = load_trained(weights)
    if recipe.dataset != "cifar10":
        raise UserError(f"the run {run} is of {recipe.dataset}: export both (tritkit export) and compare the files")
    net.eval()
    with torch.no_grad():
        batches = (torch.from_numpy(images[i : i + _BATCH]) for i in range(0, len(images), _BATCH))
        return np.concatenate([net(normalise(batch, recipe.mean, recipe.std)).numpy() for batch in batches])


def _render_models(facts: Facts, console: Console) -> None:
    a, b = facts["a"], facts["b"]
    rows = [
        ("file", a["file"], b["file"]),
        ("bytes", a["bytes"], b["bytes"]),
        ("smaller than float32", f"{a['float_ratio']:.1f}×", f"{b['float_ratio']:.1f}×"),
        ("ternary weights not zero", percent(a["density"]), percent(b["density"])),
        *_errors(facts),
        ("an image, µs", _one(a["microseconds"]), _one(b["microseconds"])),
    ]
    console.print(table(["", "A", "B"], rows))
    if facts["time_ratio"] is not None:
        say(console, f"B takes {facts['bytes_ratio']:.2f} of A's bytes and {facts['time_ratio']:.2f} of its time, "
            f"on {facts['threads']} thread{'s' * (facts['threads'] > 1)}, timed in turn.")  # fmt: skip
    _say_agreement(facts, console)
    say(console, "")
    columns = ("layer", "A", "B", "A not zero", "B", "A bytes", "B", "A µs", "B", "same codes")
    console.print(table(columns, [_model_row(row) for row in facts["layers"]], left=3))


def _model_row(row: Facts) -> list[Any]:
    both = [row["a"] or {}, row["b"] or {}]
    made: list[Any] = [row["name"], *(side.get("kind") for side in both)]
    made += [percent(side.get("density")) for side in both]
    made += [side.get("bytes") for side in both]
    return [*made, *(_one(side.get("microseconds")) for side in both), percent(row["same_codes"])]


def _render_runs(facts: Facts, console: Console) -> None:
    a, b = facts["a"], facts["b"]
    names = ("name", "recipe", "network", "method", "seed", "epochs")
    rows: list[tuple[Any, ...]] = [(name, a[name], b[name]) for name in names]
    rows += [
        (name.replace("_", " "), percent(a[name], 2), percent(b[name], 2)) for name in ("train_error", "test_error")
    ]
    rows += [("loss", a["loss"], b["loss"]), ("hours", _one(a["hours"]), _one(b["hours"])), *_errors(facts)]
    console.print(table(["", "A", "B"], rows))
    _say_agreement(facts, console)
    if facts["differences"]:
        changed = [(row["key"], _word(row["a"]), _word(row["b"])) for row in facts["differences"]]
        say(console, "", "Their recipes differ in:")
        console.print(table(["", "A", "B"], changed))
    say(console, "")
    columns = ("layer", "A not zero", "B", "A Wp", "B", "A Wn", "B")
    console.print(table(columns, [_run_row(row) for row in facts["layers"]]))


def _run_row(row: Facts) -> list[Any]:
    both = [row["a"] or {}, row["b"] or {}]
    densities = [percent(side.get("density")) for side in both]
    return [row["name"], *densities, *(side.get(key) for key in ("wp", "wn") for side in both)]


def _errors(facts: Facts) -> list[tuple[str, str | None, str | None]]:
    found = facts.get("accuracy")
    if found is None:
        return []
    return [(f"error, {found['images']:,} images", percent(found["a_error"], 2), percent(found["b_error"], 2))]


def _say_agreement(facts: Facts, console: Console) -> None:
    found = facts.get("accuracy")
    if found is None:
        return
    bits = "the same bits" if found["same_bits"] else f"logits at most {found['largest_logit_difference']:.3g} apart"
    say(console, f"They say the same of {percent(found['agree'], 2)} of the images ({bits}); only A is right on "
        f"{found['only_a_right']:,}, only B on {found['only_b_right']:,}, neither on {found['neither_right']:,}; "
        f"chance of so uneven a split between equal networks: {found['chance']:.2g}.")  # fmt: skip


def _one(value: float | None) -> str | None:
    return None if value is None else f"{value:,.1f}"


def _word(value: Any) -> str | None:
    return None if value is None else str(value)
