"""What a network takes in bytes at each stage. Every number is the length of bytes that were really made."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["STAGES", "LayerSizes", "Sizes"]

STAGES = ("dense", "pruned", "shared", "huffman")


@dataclass(frozen=True)
class LayerSizes:
    """Bytes of one layer's weight (no bias), and what they hold.

    weights, kept: how many there are, and are not removed.  fillers: stored zeros that bridge wide gaps.
    dense: float32.  pruned: a float32 and a gap an entry (kept weight or filler).  shared: the centroids in float32,
    an index and a gap an entry.  huffman: the centroids, indices and gaps Huffman-coded, with their code lengths.
    """

    name: str
    weights: int
    kept: int
    fillers: int
    dense: int
    pruned: int
    shared: int
    huffman: int

    @property
    def density(self) -> float:
        """Share of the weights that are kept, 0..1."""
        return self.kept / self.weights


@dataclass(frozen=True)
class Sizes:
    """Bytes of a whole network.

    layers: the compressed ones.  rest: all other tensors, as they are (biases, batch norm, layers left alone).
    framing: names, shapes, lengths and checksum of the file; only the last stage has them.
    """

    layers: tuple[LayerSizes, ...]
    rest: int
    framing: int

    @property
    def dense(self) -> int:
        """As float32."""
        return self.rest + sum(layer.dense for layer in self.layers)

    @property
    def pruned(self) -> int:
        """After pruning."""
        return self.rest + sum(layer.pruned for layer in self.layers)

    @property
    def shared(self) -> int:
        """After weight sharing."""
        return self.rest + sum(layer.shared for layer in self.layers)

    @property
    def huffman(self) -> int:
        """After Huffman coding: the file."""
        return self.framing + self.rest + sum(layer.huffman for layer in self.layers)

    @property
    def ratio(self) -> float:
        """How many times the file is smaller than the network in float32."""
        return self.dense / self.huffman

    def facts(self) -> dict[str, Any]:
        """All of it as plain values for JSON."""
        totals = {stage: getattr(self, stage) for stage in STAGES}
        rows = {layer.name: {k: v for k, v in asdict(layer).items() if k != "name"} for layer in self.layers}
        return {**totals, "rest": self.rest, "framing": self.framing, "ratio": self.ratio, "layers": rows}
