"""Where the bytes went, and where the weights that are not zero are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tritkit.packing import layer_sizes, pack
from tritkit.report import published

Facts = dict[str, Any]
_STEPS = 40  # layers that the waterfall shows one by one; the least savings beyond are one step


def size_facts(inspected: Facts, codes: dict[str, Facts], packed: Facts | None) -> Facts:
    """Bytes as float32, in the file, packed, and the least that an entropy coder could reach, layer by layer.

    inspected: what `inspect_file` says. codes: `code_facts` of the ternary layers, by name. packed: `packed_facts`.
    """
    by_name = {} if packed is None else packed["layers"]
    rows = [_layer(row, codes.get(row["name"]), inspected["bytes"]) for row in inspected["layers"]]
    rows = [row | {"packed_bytes": by_name.get(row["name"])} for row in rows]
    known = [row for row in rows if row["bytes"] is not None]
    ternary = [row for row in known if row["bound_bytes"] is not None]
    stored = sum(row["bytes"] for row in known)
    stored_codes, bound = (sum(row[key] for row in ternary) for key in ("code_bytes", "bound_bytes"))
    totals = inspected["totals"]
    return {
        "float_bytes": totals["float_bytes"],
        "bytes": inspected["bytes"],
        "ratio": totals["ratio"],
        "layers": rows,
        "layer_bytes": stored,
        "other_bytes": inspected["bytes"] - stored,
        "other_share": (inspected["bytes"] - stored) / inspected["bytes"],
        "code_bytes": stored_codes,
        "five_trit_bytes": sum(-(-row["weights"] // 5) for row in ternary),
        "bound_bytes": bound,
        "bound_share": bound / stored_codes if stored_codes else None,
        "packed_bytes": None if packed is None else packed["bytes"],
        "packed_ratio": None if packed is None else totals["float_bytes"] / packed["bytes"],
        "waterfall": _waterfall(known, totals["float_bytes"], inspected["bytes"]),
    }


def packed_facts(inspected: Facts, path: Path) -> Facts | None:
    """The whole file as `tritkit pack` writes it, and the codes of its layers; None for files of other tools."""
    if inspected["format"] != "tritkit-onnx":
        return None
    data = path.read_bytes()
    return {"bytes": len(pack(data)), "layers": {row.name: row.packed for row in layer_sizes(data)}}


def _layer(row: Facts, codes: Facts | None, file_bytes: int) -> Facts:
    outputs = row["shape"][0] if row["shape"] else 0
    size, weights = row["bytes"], row["weights"]
    code_bytes = None if codes is None else -(-weights * row["bits"] // 8)
    bound = None if codes is None else -(-int(np.ceil(weights * codes["entropy"])) // 8)
    float_bytes = 4 * (weights + outputs)
    return {
        "name": row["name"],
        "kind": row["kind"],
        "weights": weights,
        "float_bytes": float_bytes,
        "bytes": size,
        "saved": None if size is None else float_bytes - size,
        "ratio": float_bytes / size if size else None,
        "share": None if size is None else size / file_bytes,
        "bits_a_weight": 8 * size / weights if size and weights else None,
        "code_bytes": code_bytes,
        "bound_bytes": bound,
    }


def _waterfall(rows: list[Facts], float_bytes: int, file_bytes: int) -> list[Facts]:
    """From the float network to the file: each step begins where the one before ended."""
    if not rows:
        return []
    shown = {id(row) for row in sorted(rows, key=lambda row: -abs(row["saved"]))[:_STEPS]}
    steps = [_step("as float32", "total", 0, float_bytes, float_bytes)]
    level = float_bytes
    for row in rows:
        if id(row) in shown:
            level -= row["saved"]
            kind = "saved" if row["saved"] >= 0 else "added"
            steps.append(_step(row["name"], kind, min(level, level + row["saved"]), abs(row["saved"]), level))
    rest = [row["saved"] for row in rows if id(row) not in shown]
    if rest:
        level -= sum(rest)
        steps.append(_step(f"{len(rest)} other layers", "saved", level, sum(rest), level))
    other = file_bytes - level
    kind = "added" if other >= 0 else "saved"
    name = "structure, scales" if other >= 0 else "what layers share"
    steps.append(_step(name, kind, min(level, file_bytes), abs(other), file_bytes))
    return [*steps, _step("the file", "file", 0, file_bytes, file_bytes)]


def _step(name: str, kind: str, start: int, length: int, left: int) -> Facts:
    """A bar from `start`; `left` bytes remain after it."""
    change = {"saved": -length, "added": length}.get(kind)
    return {"name": name, "kind": kind, "start": start, "length": length, "change": change, "left": left}


def code_facts(codes: NDArray[np.int8]) -> Facts:
    """Counts of −1, 0 and +1, their shares, and the entropy of a code in bits."""
    total = codes.size
    plus = int(np.count_nonzero(codes == 1))
    zero = total - int(np.count_nonzero(codes))
    counts = (total - plus - zero, zero, plus)
    shares = [count / total for count in counts]
    entropy = -sum(share * float(np.log2(share)) for share in shares if share)
    names = ("minus", "zero", "plus")
    return {
        **dict(zip(names, counts, strict=True)),
        **{f"{name}_share": share for name, share in zip(names, shares, strict=True)},
        "entropy": entropy,
    }


def density_facts(inspected: Facts, codes: dict[str, Facts], pruned: dict[str, Facts] | None) -> Facts:
    """Density and width by layer and in sum. pruned: `density` and `bits` of another run's layers, to stand beside."""
    layers = inspected["layers"]
    alexnet = published.looks_like_alexnet([row["shape"] for row in layers])
    rows = []
    for i, row in enumerate(layers):
        made = {key: row[key] for key in ("name", "kind", "method", "weights", "density", "bits", "group_size")}
        made["shape"] = "×".join(map(str, row["shape"]))
        made |= {key: codes.get(row["name"], {}).get(key) for key in ("minus_share", "zero_share", "plus_share")}
        made |= {key: _mean(row[key]) for key in ("wp", "wn")}
        other = (pruned or {}).get(row["name"], {})
        made |= {"pruned": other.get("density"), "pruned_bits": _width(other, row["shape"])}
        made["published_pruned"] = published.ALEXNET_PRUNED[i] if alexnet else None
        made["published_pruned_bits"] = published.ALEXNET_PRUNED_BITS[i] if alexnet else None
        made["published_ttq"] = published.ALEXNET_TTQ[i] if alexnet else None
        made["published_ttq_bits"] = published.ALEXNET_TTQ_BITS[i] if alexnet else None
        rows.append(made)
    return {
        "layers": rows,
        "totals": _density_totals(rows, [len(row["shape"]) for row in layers], alexnet),
        "ternary": inspected["totals"].get("ternary_density"),
        "ternary_weights": inspected["totals"].get("ternary_weights", 0),
        "weights": inspected["totals"]["weights"],
        "beside": "run" if pruned else "published" if alexnet else None,
        "source": published.ALEXNET_SOURCE if alexnet else None,
    }


def _width(pruned: Facts, shape: list[int]) -> int | None:
    """Bits of an index of the weights that a pruning run shares, for a convolution or for a linear layer."""
    found: int | None = pruned.get("bits_conv" if len(shape) == 4 else "bits_fc")
    return found


def _density_totals(rows: list[Facts], ranks: list[int], alexnet: bool) -> list[Facts]:
    """Convolutions, linear layers, and all: mean density and width of their weights; none of kinds there are not."""
    made = []
    for name, wanted in (("convolutions", (4,)), ("linear layers", (2,)), ("all layers", (2, 4))):
        chosen = [row for row, rank in zip(rows, ranks, strict=True) if rank in wanted]
        if len(chosen) < 2 or any(row["density"] is None for row in chosen):
            continue
        published_pruned, published_ttq = published.ALEXNET_TOTALS[name] if alexnet else (None, None)
        means = {key: _weighted(chosen, key) for key in ("density", "bits", "pruned")}
        made.append({"name": name, **means, "published_pruned": published_pruned, "published_ttq": published_ttq})
    return made


def _weighted(rows: list[Facts], key: str) -> float | None:
    """Mean over the weights of layers; None where one has no such number."""
    weights = sum(row["weights"] for row in rows)
    if not weights or any(row[key] is None for row in rows):
        return None
    return float(sum(row["weights"] * row[key] for row in rows) / weights)


def _mean(scale: float | list[float] | None) -> float | None:
    """A layer's scale, or the mean of its channels' or groups' scales."""
    return float(np.mean(scale)) if isinstance(scale, list) else scale
