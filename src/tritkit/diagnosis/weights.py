"""What can be seen in the weights alone, of any file whose layers `tritkit.inspection.read_weights` knows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tritkit.diagnosis.finding import Finding, percent, share
from tritkit.inspection import LayerWeights

_DEAD = 0.01  # density at and below which a layer says nothing
_DENSE = 0.95  # density at and above which zeros save nothing
_EMPTY = 0.2  # share of a layer's filters without a weight; trained networks have up to an eighth
_COLLAPSED = 1 / 16  # of the other scale
_FEWEST = 64  # weights of a layer, below which shares say nothing
_LOSING_BYTES = 0.5  # of all weights' bytes
_BINARY = ("bwn", "dorefa", "binary-connect")  # methods whose weights have no zeros by design


def weight_findings(layers: Sequence[LayerWeights]) -> Iterator[Finding]:
    """Dead, dense and empty ternary layers, and scales that collapsed or changed their sign."""
    total = sum(layer.values.size for layer in layers)
    for layer in layers:
        if layer.kind != "ternary" or layer.values.size < _FEWEST:
            continue
        if layer.density <= _DEAD:
            yield _dead(layer, total)
            continue
        yield from _dense(layer, total)
        yield from _empty(layer)
        yield from _signs(layer)
        yield from _collapsed(layer)


def byte_findings(rows: Sequence[dict[str, Any]], size: int) -> Iterator[Finding]:
    """Layers not in 2 bits that make most of a file. rows: `layers` of `inspect_file`; size: the file's bytes."""
    held = [row for row in rows if row["bytes"] is not None]
    weights = sum(row["bytes"] for row in held)
    for wide, kind in ((16, "float-bytes"), (8, "int8-bytes")):
        those = [row for row in held if (row["bits"] == 8 if wide == 8 else (row["bits"] or 0) >= wide)]
        bytes_ = sum(row["bytes"] for row in those)
        if those and share(bytes_, weights) >= _LOSING_BYTES:
            yield _bytes(kind, max(those, key=lambda row: int(row["bytes"])), those, bytes_, size)


def _bytes(kind: str, largest: dict[str, Any], rows: list[dict[str, Any]], held: int, size: int) -> Finding:
    would = sum(row["weights"] // 4 for row in rows)
    bits, more = largest["bits"], f", like {len(rows) - 1} other layers" if len(rows) > 1 else ""
    state = "ternary values stored" if largest["kind"] == "ternary" else "not ternary: stored"
    fix = "make them ternary (tritkit.ternarize_ without them in exclude)"
    if largest["kind"] == "ternary":
        fix = "write the network with tritkit.export, which stores 2 bits a weight"
    elif kind == "float-bytes":
        fix += ", or at least int8: policies={'NAME': 'int8'} in tritkit.export"
    return Finding(
        kind,
        str(largest["name"]) or "weights",
        f"{state} with {bits} bits a weight{more}",
        f"{held:,} of the file's {size:,} bytes ({percent(share(held, size))}); ternary they would be {would:,}",
        fix,
        {"bytes": held, "share_of_file": share(held, size), "bytes_if_ternary": would},
    )


def _dead(layer: LayerWeights, total: int) -> Finding:
    part = share(layer.values.size, total)
    return Finding(
        "dead-layer",
        layer.name,
        f"only {np.count_nonzero(layer.values):,} of {layer.values.size:,} weights are not zero",
        f"its result hardly depends on the image; {layer.values.size:,} weights ({percent(part)} of the network) idle",
        "lower the threshold (TTQ: threshold, TTQConstantSparsity: sparsity) or start it from trained float weights",
        {"density": layer.density, "share_of_weights": part},
    )


def _dense(layer: LayerWeights, total: int) -> Iterator[Finding]:
    if layer.density < _DENSE or layer.method in _BINARY:
        return
    part = share(layer.values.size, total)
    yield Finding(
        "dense-layer",
        layer.name,
        f"{percent(layer.density)} of the weights are not zero: the layer is all but binary",
        f"kernels that skip zeros gain nothing on {layer.values.size:,} weights ({percent(part)} of the network)",
        "raise the threshold (TTQ: threshold=0.05 and above, TTQConstantSparsity(sparsity=0.5))",
        {"density": layer.density, "share_of_weights": part},
    )


def _empty(layer: LayerWeights) -> Iterator[Finding]:
    rows = layer.rows()
    empty = int((~rows.any(axis=1)).sum())
    if share(empty, len(rows)) < _EMPTY:
        return
    idle = empty * rows.shape[1]
    yield Finding(
        "empty-filters",
        layer.name,
        f"{empty} of {len(rows)} filters have no weight that is not zero",
        f"these channels are constant; {idle:,} weights ({(idle + 3) // 4:,} bytes) and their share of time do nothing",
        "lower the threshold, or take one a channel (TWN(per='channel'), FGQ); tritkit fold removes them from the file",
        {"filters": empty, "share_of_filters": share(empty, len(rows)), "bytes": (idle + 3) // 4},
    )


def _signs(layer: LayerWeights) -> Iterator[Finding]:
    """Wp or Wn below zero: both signs of the code then mean one sign of the weight."""
    plus, minus = layer.sides()
    codes = layer.values
    flipped = int(((codes > 0) & (plus < 0)).sum() + ((codes < 0) & (minus < 0)).sum())
    below = [(n, code, v) for n, code, v in zip(("Wp", "Wn"), (1, -1), layer.trained or (1, 1), strict=True) if v < 0]
    if not flipped and not below:
        return
    flipped = flipped or sum(int((codes == code).sum()) for _, code, _ in below)
    part = share(flipped, int(np.count_nonzero(codes)))
    said = " and ".join(f"{n} = {v:.4g}" for n, _, v in below) if below else "both values of the weights have one sign"
    yield Finding(
        "scale-sign",
        layer.name,
        f"a scale changed its sign: {said}",
        f"{flipped:,} weights ({percent(part)} of those that are not zero) pull the wrong way or not at all",
        "give the scales a smaller learning rate (param_groups(net, scale_lr=...)) and start from TTQ(init='data')",
        {"weights": flipped, "share_of_nonzero": part},
    )


def _collapsed(layer: LayerWeights) -> Iterator[Finding]:
    """One of Wp and Wn next to nothing beside the other, where codes use both."""
    plus, minus = (np.broadcast_to(np.abs(side.astype(np.float64)), layer.values.shape) for side in layer.sides())
    lost = _lost(layer.values, plus, minus)
    part = share(lost, int(np.count_nonzero(layer.values)))
    if part < 0.05 or (layer.trained is not None and min(layer.trained) < 0):
        return
    said = _range(plus, layer.values > 0, "Wp") + ", " + _range(minus, layer.values < 0, "Wn")
    if layer.trained is not None:
        said = "Wp {:.3g}, Wn {:.3g}".format(*layer.trained)
    yield Finding(
        "collapsed-scale",
        layer.name,
        f"one of Wp and Wn is less than a sixteenth of the other ({said})",
        f"{lost:,} weights ({percent(part)} of those that are not zero) count for next to nothing",
        "start from TTQ(init='data'), lower scale_lr in param_groups, or take scales that follow the weights (TWN)",
        {"weights": lost, "share_of_nonzero": part},
    )


def _lost(codes: NDArray[Any], plus: NDArray[Any], minus: NDArray[Any]) -> int:
    """Weights on the side that collapsed."""
    return int(((codes > 0) & (plus <= _COLLAPSED * minus)).sum() + ((codes < 0) & (minus <= _COLLAPSED * plus)).sum())


def _range(side: NDArray[Any], used: NDArray[Any], name: str) -> str:
    if not used.any():
        return f"{name} unused"
    low, high = float(side[used].min()), float(side[used].max())
    return f"{name} {low:.3g}" if low == high else f"{name} {low:.3g} to {high:.3g}"
