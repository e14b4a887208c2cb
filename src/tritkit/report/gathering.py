"""All facts of a report, gathered from a file and from whatever else is at hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tritkit.errors import TritkitError, UserError
from tritkit.inspection import LayerWeights, inspect_file, read_weights
from tritkit.report.accuracy import (
    FloatParent,
    Labelled,
    accuracy_facts,
    mistake_facts,
    predictions,
    sensitivity_facts,
)
from tritkit.report.kernels import kernel_facts, kernel_totals
from tritkit.report.operations import operation_facts
from tritkit.report.plan import parts
from tritkit.report.sizes import code_facts, density_facts, packed_facts, size_facts
from tritkit.report.timing import time_facts
from tritkit.report.training import latent_facts, latent_file, pruned_layers, read_run, training_facts
from tritkit.report.verdict import read_bench, verdict_facts
from tritkit.runtime import Session

Facts = dict[str, Any]
Say = Callable[[str], None]
FORMAT = 1


@dataclass(frozen=True)
class Evidence:
    """What a report may use besides the model file; each may be missing.

    run: a run record or its folder. pruned: the record of a pruning run. bench: a file of `tritkit bench -o`.
    data: labelled images. parent: the float network; it needs data.
    """

    run: Path | None = None
    pruned: Path | None = None
    bench: Path | None = None
    data: Labelled | None = None
    parent: FloatParent | None = None


def gather(path: Path, evidence: Evidence, threads: int | None, say: Say = lambda line: None) -> Facts:
    """The facts of a report, plain values only; a section without evidence is None.

    Raises UserError for evidence of another network, ModelFileError for a damaged file.
    """
    inspected = inspect_file(path)
    if inspected["format"] not in ("tritkit-onnx", "onnx"):
        raise UserError(
            f"{path} holds weights for training; make a network of it first: tritkit export {path} -o net.onnx"
        )
    return _Gathering(path, inspected, evidence, say).run(threads)


class _Gathering:
    """The sections, one after another, and what is missing."""

    def __init__(self, path: Path, inspected: Facts, evidence: Evidence, say: Say) -> None:
        self.path, self.inspected, self.evidence, self.say = path, inspected, evidence, say
        self.missing: list[Facts] = []
        self.names = [row["name"] for row in inspected["layers"]]

    def run(self, threads: int | None) -> Facts:
        training, latents = self._training()
        pruned = None if self.evidence.pruned is None else pruned_layers(read_run(self.evidence.pruned))
        speed = self._speed()
        session = self._session(threads)
        macs = {} if session is None else _macs(session, set(self.names))
        ternary, codes, kernels = self._weights(macs)
        sizes = size_facts(self.inspected, codes, packed_facts(self.inspected, self.path))
        facts: Facts = {
            "format": FORMAT,
            "model": self._model(),
            "sizes": sizes,
            "densities": density_facts(self.inspected, codes, pruned),
            "times": None if session is None else self._times(session),
            "speed": speed,
            "training": training,
            "weights": {"codes": [{"name": name, **row} for name, row in codes.items()], "latents": latents},
            "kernels": kernel_totals(kernels, sum(macs.values())) if kernels else None,
            "operations": operation_facts(self.inspected["layers"], macs, ternary, sizes),
            **self._accuracy(session),
        }
        return {"verdict": verdict_facts(facts, self.missing), **facts}

    def _lacks(self, what: str, how: str) -> None:
        self.missing.append({"what": what, "how": how})

    def _model(self) -> Facts:
        found, totals = self.inspected, self.inspected["totals"]
        methods = sorted({row["method"] for row in found["layers"] if row["method"]})
        kinds = [row["kind"] for row in found["layers"]]
        return {
            "name": self.path.stem,
            "file": self.path.name,
            "format": found["format"],
            "bytes": found["bytes"],
            "version": found["metadata"].get("tritkit.version"),
            "layers": len(kinds),
            "kinds": [{"kind": kind, "layers": kinds.count(kind)} for kind in dict.fromkeys(kinds)],
            "methods": methods,
            "weights": totals["weights"],
            "ternary_weights": totals.get("ternary_weights", 0),
        }

    def _training(self) -> tuple[Facts | None, list[Facts] | None]:
        run = self.evidence.run
        if run is None:
            self._lacks("how it was trained, and its latent weights", "--run RUN, the folder of tritkit train")
            return None, None
        training = training_facts(read_run(run), self.names, run)
        weights = latent_file(run)
        if weights is None:
            self._lacks("its latent weights", "keep the run's final.safetensors beside its record")
            return training, None
        return training, latent_facts(weights, training) or None

    def _speed(self) -> Facts | None:
        if self.evidence.bench is None:
            made = "tritkit bench MODEL.onnx -o bench.json, then --bench bench.json"
            self._lacks("how much faster it is than other engines and than its float form", made)
            return None
        return read_bench(self.evidence.bench, self.inspected["bytes"])

    def _session(self, threads: int | None) -> Session | None:
        try:
            return Session(self.path, threads=threads)
        except TritkitError as error:
            self._lacks("its time by layer, its operations and its accuracy", f"our engine does not run it: {error}")
            return None

    def _times(self, session: Session) -> Facts:
        self.say("timing its layers")
        return time_facts(session)

    def _weights(self, macs: dict[str, int]) -> tuple[dict[str, LayerWeights], dict[str, Facts], list[Facts]]:
        """The ternary layers by name, their code facts, and the kernels of those that have some."""
        ternary = {layer.name: layer for layer in read_weights(self.path) if layer.kind == "ternary"}
        codes, kernels = {}, []
        for name, layer in ternary.items():
            values = layer.values
            codes[name] = code_facts(values)
            positions = macs[name] // values.size if name in macs else None
            found = kernel_facts(name, values, positions)
            if found is not None:
                kernels.append(found)
        return ternary, codes, kernels

    def _accuracy(self, session: Session | None) -> Facts:
        data, parent = self.evidence.data, self.evidence.parent
        empty: Facts = {"accuracy": None, "mistakes": None, "sensitivity": None}
        if data is None or session is None:
            if data is None:
                self._lacks("its accuracy, and the images it gets wrong", "--data DIR (or sample) and --float WEIGHTS")
            return empty
        self.say(f"running {len(data.images):,} images")
        logits = predictions(session.run, data)
        if parent is None:
            self._lacks("what ternary weights cost in accuracy, and which layer costs what", "--float WEIGHTS")
            return empty | {"accuracy": accuracy_facts(logits, None, data)}
        self.say(f"running {len(data.images):,} images in the float network")
        own = replace(data, normalise=parent.normalise)
        float_logits = np.asarray(predictions(parent.logits, own))
        if float_logits.shape != logits.shape:
            raise UserError(
                f"the float network has {float_logits.shape[1]} classes, this one {logits.shape[1]}; give its parent"
            )
        ternary = [row["name"] for row in self.inspected["layers"] if row["kind"] == "ternary"]
        return {
            "accuracy": accuracy_facts(logits, float_logits, data),
            "mistakes": mistake_facts(logits, float_logits, data),
            "sensitivity": sensitivity_facts(parent, ternary, own, self.say),
        }


def _macs(session: Session, names: set[str]) -> dict[str, int]:
    """Multiply-accumulates of an image, by layer."""
    steps = ((name, step.macs) for step in session.summary() if step.weights for name in parts(step.name))
    return {name: macs for name, macs in steps if name in names}
