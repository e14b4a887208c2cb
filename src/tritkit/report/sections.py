"""The sections of a report, from its facts. A section whose facts are missing is left out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tritkit.report.blocks import Bars, Block, Column, Figure, Part, Prose, Section, Table
from tritkit.report.plan import uses_tiles
from tritkit.report.sections_accuracy import accuracy, mistakes, sensitivity

Facts = dict[str, Any]
_LAYER = Column("layer", "name")
_BUSY = 1.25  # times the sum of its steps that a network takes at most on a quiet machine
TRITS = (("minus", "−Wn"), ("zero", "0"), ("plus", "+Wp"))


def sections(facts: Facts) -> list[Section]:
    """In reading order."""
    makers = (
        ("sizes", sizes), ("densities", densities), ("times", times), ("speed", speed), ("accuracy", accuracy),
        ("sensitivity", sensitivity), ("mistakes", mistakes), ("training", training), ("weights", weights),
        ("kernels", kernels), ("operations", operations),
    )  # fmt: skip
    made = []
    for key, make in makers:
        blocks = tuple(make(facts)) if facts[key] is not None else ()
        if blocks:
            made.append(Section(key, _TITLES[key], blocks))
    return made


_TITLES = {
    "sizes": "Where the bytes went",
    "densities": "How many weights are left",
    "times": "Where the time goes",
    "speed": "Beside other engines",
    "accuracy": "How often it is wrong",
    "sensitivity": "Which layer costs what",
    "mistakes": "What it no longer sees",
    "training": "How the weights got there",
    "weights": "What the thresholds cut",
    "kernels": "The kernels themselves",
    "operations": "What is left to compute",
}


def sizes(facts: Facts) -> Iterator[Block]:
    found = facts["sizes"]
    if not found["layers"]:
        return
    rest = ", of which {sizes.other_share|percent} are no layer’s: the network’s structure and its activations’ scales"
    shared = "; tensors that several layers share are counted in each"
    yield Prose(
        "As float32 the weights and biases take {sizes.float_bytes|bytes}; the file has {sizes.bytes|bytes}"
        + (rest if found["other_bytes"] >= 0 else shared)
        + ".",
        "lead",
    )
    if found["waterfall"]:
        fall = Bars("", (Part("start"), Part("length", colour_key="kind")))
        ends = (Column("change", "change", "change"), Column("left", "left", "bytes"))
        yield Table("From float to file, layer by layer", "sizes.waterfall", (Column("", "name"), fall, *ends))
    if found["code_bytes"]:
        yield Prose(
            "The ternary codes take {sizes.code_bytes|bytes} in the file; five to a byte they would take "
            "{sizes.five_trit_bytes|bytes}, and no coder of single weights goes below {sizes.bound_bytes|bytes}, "
            "{sizes.bound_share|percent} of what they take."
            + " For download tritkit pack makes the file {sizes.packed_bytes|bytes}, {sizes.packed_ratio|times} times "
            "smaller than float32." * (found["packed_bytes"] is not None)
        )
    yield Table(
        "Bytes by layer; the bound is that of an entropy coder that codes each weight on its own",
        "sizes.layers",
        (
            _LAYER,
            Column("kind", "kind"),
            Column("weights", "weights", "count"),
            Column("float32", "float_bytes", "bytes"),
            Column("in the file", "bytes", "bytes"),
            Column("times smaller", "ratio", "times"),
            Column("bits a weight", "bits_a_weight", "two"),
            Column("share of file", "share", "percent"),
            Column("codes packed", "packed_bytes", "bytes"),
            Column("entropy bound", "bound_bytes", "bytes"),
        ),
    )


def densities(facts: Facts) -> Iterator[Block]:
    found = facts["densities"]
    if not found["layers"]:
        return
    if found["ternary"] is not None:
        yield Prose(
            "{densities.ternary|percent} of the {densities.ternary_weights|count} ternary weights are not zero.", "lead"
        )
    beside = {
        "run": (Column("pruned", "pruned", "percent"), Column("bits", "pruned_bits", "count")),
        "published": (
            Column("pruned, published", "published_pruned", "percent0"),
            Column("bits", "published_pruned_bits", "count"),
            Column("TTQ, published", "published_ttq", "percent0"),
            Column("bits", "published_ttq_bits", "count"),
        ),
    }.get(found["beside"] or "", ())
    signs = tuple(Part(f"{name}_share", name) for name, _ in TRITS)
    split = (Bars("−Wn · 0 · +Wp", signs, 1.0),) if found["ternary"] is not None else ()
    yield Table(
        "Density and width (bits a weight) by layer, as TTQ’s Table 4 gives them",
        "densities.layers",
        (
            _LAYER, Column("shape", "shape"), Column("density", "density", "percent"), Column("bits", "bits", "count"),
            *beside, *split, Column("Wn", "wn", "number"), Column("Wp", "wp", "number"),
        ),
    )  # fmt: skip
    if found["totals"]:
        own = (Column("density", "density", "percent"), Column("mean bits", "bits", "two"))
        others = tuple(column for column in beside if not column.key.endswith("bits"))
        yield Table("Together, all weights counted alike", "densities.totals", (Column("", "name"), *own, *others))
    if found["beside"] == "run":
        yield Prose(
            "The columns “pruned” are the end of another run, of pruning: the share of weights it keeps, and the bits "
            "that say which value a kept weight has; where it stands takes more.",
            "note",
        )
    if found["source"] and found["beside"] == "published":
        yield Prose("Published: {densities.source}.", "note")


def times(facts: Facts) -> Iterator[Block]:
    limit = facts["times"]["limit_macs_per_cycle"]
    threads = _threads(facts["times"])
    yield Prose(
        f"One image takes {{times.microseconds|time}} on {{times.threads|count}} {threads} of {{times.cpu}}: "
        "{times.images_per_second|whole} images a second.",
        "lead",
    )
    if facts["times"]["microseconds"] > _BUSY * facts["times"]["steps_microseconds"]:
        yield Prose(
            "Its steps, timed one by one, add up to {times.steps_microseconds|time} only: other programs ran meanwhile."
            " Make the report again on a quiet machine."
        )
    if limit is not None:
        yield Prose(
            "The limit is what this processor’s int8 dot product instruction reaches here: "
            "{times.limit_macs_per_cycle|whole} multiply-adds a cycle and core, at {times.gigahertz|two} GHz."
            + _tiles(facts["times"])
            + " Zero weights count as work, so a layer that skips them can pass it; a linear layer of one image waits "
            "for its weights from memory, far below it."
        )
    yield Table(
        "Time by step of the engine’s plan; its bar has the colour of the family of its kernels",
        "times.steps",
        (
            Column("step", "name"), Column("kernels", "family"), Bars("", (Part("microseconds", colour_key="family"),)),
            Column("time", "microseconds", "time"), Column("share", "share", "percent"),
            Column("multiply-adds", "macs", "large"), Column("a cycle", "macs_per_cycle", "one"),
            Column("of limit", "of_limit", "percent0"),
        ),
    )  # fmt: skip
    yield Table(
        "The same by family",
        "times.families",
        (
            Column("kernels", "family"), Bars("", (Part("share", colour_key="family"),), 1.0),
            Column("steps", "steps", "count"), Column("share", "share", "percent"),
        ),
    )  # fmt: skip


def _tiles(found: Facts) -> str:
    if found["tile_limit_macs_per_cycle"] is None:
        return ""
    if any(uses_tiles(step["kernel"]) for step in found["steps"]):
        return " For kernels of its tile instructions (AMX) it is {times.tile_limit_macs_per_cycle|whole}."
    return " Its tile instructions (AMX), which no layer uses here, reach {times.tile_limit_macs_per_cycle|whole}."


def speed(facts: Facts) -> Iterator[Block]:
    yield Prose(
        "All engines in turn on the same network, batch {speed.batch|count}, {speed.threads|count} "
        f"{_threads(facts['speed'])} of {{speed.cpu}}."
    )
    yield Table(
        "Median of an image’s time, and how many times as long as ours it is",
        "speed.rows",
        (
            Column("engine", "engine"), Bars("", (Part("median_ms", colour_key="family"),)),
            Column("median", "median_ms", "ms"), Column("10 %", "p10_ms", "ms"), Column("90 %", "p90_ms", "ms"),
            Column("times ours", "times", "times2"), Column("its file", "file_bytes", "bytes"),
        ),
    )  # fmt: skip


def _threads(found: Facts) -> str:
    return "thread" if found["threads"] == 1 else "threads"


def training(facts: Facts) -> Iterator[Block]:
    found = facts["training"]
    if found["test_error"] is not None:
        yield Prose(
            "The record of {training.recipe}: {training.hours|one} hours, {training.test_error|percent2} of the test "
            "images wrong at its end.",
            "lead",
        )
    if len(found["epochs"]) > 1:
        yield Figure("curves", "training", "Loss and error of the training images over the epochs")
        columns = (("loss", "loss", "number"), ("error on training images", "train_error", "percent2"),
                   ("on held-out images", "held_out_error", "percent2"))  # fmt: skip
        known = (Column(*column) for column in columns if any(v is not None for v in found[column[1]]))
        yield Table("The same at some epochs", "training.milestones", (Column("epoch", "epoch", "count"), *known))
    if any(row["wp_last"] is not None for row in found["layers"]) and len(found["epochs"]) > 1:
        yield Figure(
            "scales", "training.layers",
            "Above: Wp and Wn of each layer over the epochs, all to one scale. Below: the share of its weights that "
            "are not zero",
            (("plus", "Wp"), ("minus", "Wn"), ("dense", "not zero")),
        )  # fmt: skip
    if found["layers"]:
        yield Table(
            "First epoch and end of the run",
            "training.layers",
            (
                _LAYER,
                Column("Wp first", "wp_first", "number"), Column("end", "wp_last", "number"),
                Column("Wn first", "wn_first", "number"), Column("end", "wn_last", "number"),
                Column("threshold", "threshold_last", "number"),
                Column("density first", "density_first", "percent"), Column("end", "density_last", "percent"),
            ),
        )  # fmt: skip
    for i in range(len(found["notes"])):
        yield Prose(f"A note in the record: {{training.notes.{i}}}", "note")


def weights(facts: Facts) -> Iterator[Block]:
    if not facts["weights"]["latents"]:
        return
    yield Prose(
        "Behind every ternary weight stands the float weight that training moves, its latent. The threshold cuts it: "
        "below become −Wn, above +Wp, between them zero."
    )
    yield Figure(
        "histograms", "weights.latents",
        "Latent weights of each layer, with the thresholds ±Δ as lines; each layer to its own scale",
        TRITS,
    )  # fmt: skip
    yield Table(
        "Latent weights; σ is their standard deviation, “beyond” those outside the drawing",
        "weights.latents",
        (
            _LAYER, Column("threshold", "threshold", "number"), Column("σ", "deviation", "number"),
            Column("−Wn", "below", "count"), Column("0", "within", "count"), Column("+Wp", "above", "count"),
            Column("beyond", "outside", "count"),
        ),
    )  # fmt: skip


def kernels(facts: Facts) -> Iterator[Block]:
    yield Prose(
        "Of {kernels.kernels|count} kernels {kernels.empty|count} are empty ({kernels.empty_share|percent}) and "
        "{kernels.single|count} have a single weight ({kernels.single_share|percent}).",
        "lead",
    )
    if facts["kernels"]["empty"]:
        yield _savings(facts["kernels"])
    yield Figure(
        "kernels", "kernels.layers", "Kernels of each layer, taken at even distances",
        (("white", "+Wp"), ("grey", "0"), ("black", "−Wn")),
    )  # fmt: skip
    yield Table(
        "Kernels by layer",
        "kernels.layers",
        (
            _LAYER, Column("kernels", "kernels", "count"), Column("empty", "empty", "count"),
            Column("share", "empty_share", "percent"), Column("single weight", "single", "count"),
            Column("share", "single_share", "percent"), Column("empty filters", "empty_outputs", "count"),
            Column("unread inputs", "unread_inputs", "count"), Column("codes of empty ones", "saved_bytes", "bytes"),
        ),
    )  # fmt: skip


def _savings(found: Facts) -> Prose:
    saved = " and {kernels.saved_macs_share|percent} of the network’s multiply-adds" * (found["saved_macs"] is not None)
    return Prose(
        "An empty kernel adds nothing to its output: leaving all of them out would save {kernels.saved_bytes|bytes} of "
        f"codes{saved}. A kernel of a single weight needs one addition a pixel. Whole filters that are empty: "
        "{kernels.empty_outputs|count}; input channels that no kernel reads: {kernels.unread_inputs|count}. Those that "
        "nothing else holds, such as a shortcut, tritkit fold takes out without changing any integer of the result."
    )


def operations(facts: Facts) -> Iterator[Block]:
    if facts["operations"]["removed"] is not None:
        yield Prose(
            "{operations.removed|percent} of the multiplications are gone: {operations.multiplications|large} are "
            "left of {operations.macs|large}, beside {operations.additions|large} additions. By the published "
            "energies of single operations an image’s arithmetic takes {operations.pj|energy} instead of "
            "{operations.float_pj|energy} in float32 and {operations.int8_pj|energy} in int8.",
            "lead",
        )
    yield Table(
        "The network in three forms: arithmetic of an image, and reading all weights once from memory",
        "operations.ways",
        (
            Column("weights", "way"), Bars("", (Part("pj", "plus"), Part("memory_pj", "zero"))),
            Column("multiplications", "multiplications", "large"), Column("additions", "additions", "large"),
            Column("arithmetic", "pj", "energy"), Column("memory", "memory_pj", "energy"),
            Column("both", "total_pj", "energy"),
        ),
    )  # fmt: skip
    yield Table(
        "Arithmetic by layer",
        "operations.layers",
        (
            _LAYER, Column("multiply-adds", "macs", "large"),
            Column("multiplications left", "multiplications", "large"), Column("additions", "additions", "large"),
            Bars("", (Part("pj", "plus"),)), Column("energy", "pj", "energy"),
            Column("in int8", "int8_pj", "energy"), Column("in float32", "float_pj", "energy"),
        ),
        "operations",
    )  # fmt: skip
    yield Prose(
        "An estimate from counts, not a measurement of this machine. Energies in pJ: float32 multiplication "
        "{operations.energies_pj.float32_multiply}, addition {operations.energies_pj.float32_add}; int32 "
        "multiplication {operations.energies_pj.int32_multiply}, addition {operations.energies_pj.int32_add}; int8 "
        "multiplication {operations.energies_pj.int8_multiply}; 64 bits of DRAM "
        "{operations.energies_pj.dram_64_bits|whole}. Source: {operations.source}.",
        "note",
    )
