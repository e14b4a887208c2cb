"""`tritkit fold`: a network's file without channels that do nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from rich.console import Console

from tritkit.cli.output import Facts, Json, emit, percent, say, table
from tritkit.cli.running import model_path
from tritkit.errors import TritkitError

if TYPE_CHECKING:
    from tritkit.deploy import Graph

_IMAGES = 4  # random ones, on which both networks must give the same bits


def command(
    model: Annotated[str, typer.Argument(help="An .onnx file of tritkit, or the name of a packaged network.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The .onnx file to write.")],
    as_json: Json = False,
) -> None:
    """Remove channels that do nothing, exactly.

    The network's integers stay as they are: both files are run and compared before anything is written.
    """
    path = model_path(model)
    from tritkit.deploy.empty import fold_empty
    from tritkit.deploy.exporting import check_target, make_model, write_atomically
    from tritkit.deploy.onnx_reader import from_onnx

    check_target(out)
    graph = from_onnx(path)
    folded = fold_empty(graph)
    data = make_model(folded.graph).SerializeToString(deterministic=True)
    with write_atomically(out, data) as scratch:
        checked = _check(graph, folded.graph, scratch)
    facts = {
        "model": str(path),
        "file": str(out),
        "bytes_before": path.stat().st_size,
        "bytes": len(data),
        "weights_before": folded.weights[0],
        "weights": folded.weights[1],
        "removed": [{"layer": name, "channels": count} for name, count in folded.removed.items()],
        "same_bits_in": checked,
    }
    emit(facts, as_json, _render)


def _check(before: Graph, after: Graph, path: Path) -> list[str]:
    """The engines in which the new file has the old network's bits. TritkitError where one has not."""
    import torch

    from tritkit.deploy import Simulation
    from tritkit.deploy.checking import check_file

    shape = before.values[before.inputs[0]].shape
    images = torch.from_numpy(np.random.default_rng(0).normal(size=(_IMAGES, *shape)).astype(np.float32))
    old, new = Simulation(before).values(images), Simulation(after).values(images)
    if not all(torch.equal(old[name], new[name]) for name in before.outputs):
        raise TritkitError("the folded network gives other results; nothing was written. Please report this")
    return list(check_file(after, path, images, "function")[0])


def _render(facts: Facts, console: Console) -> None:
    if facts["removed"]:
        console.print(table(["layer", "channels removed"], [list(row.values()) for row in facts["removed"]]))
    gone = 1 - facts["weights"] / facts["weights_before"] if facts["weights_before"] else 0.0
    sizes = f"{facts['bytes']:,} bytes, {facts['bytes_before']:,} before"
    say(console, f"{facts['file']}: {sizes}; {percent(gone)} of the weights removed")
    say(console, f"same bits as before, also in {', '.join(facts['same_bits_in'])}")
