"""k-means on numbers: sorted once, then every step of Lloyd is a few binary searches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tritkit.errors import UserError

__all__ = ["DensityInit", "Init", "LinearInit", "RandomInit", "cluster"]

Float64 = NDArray[np.float64]
_MAX_STEPS = 1000  # Lloyd in one dimension settles in tens of steps; this only bounds the worst case


class Init(Protocol):
    """Where k-means starts: k ascending centroids for values that are sorted and not empty."""

    def centroids(self, values: Float64, k: int) -> Float64: ...


@dataclass(frozen=True)
class LinearInit:
    """Evenly spaced from the smallest value to the largest: the paper's choice, as it gives the few large weights
    centroids of their own.
    """

    def centroids(self, values: Float64, k: int) -> Float64:
        return np.linspace(values[0], values[-1], k)


@dataclass(frozen=True)
class DensityInit:
    """Evenly spaced in the cumulative distribution: the quantiles (2i + 1) / 2k."""

    def centroids(self, values: Float64, k: int) -> Float64:
        quantiles: Float64 = np.quantile(values, (2 * np.arange(k) + 1) / (2 * k))
        return quantiles


@dataclass(frozen=True)
class RandomInit:
    """k of the values, drawn without repetition while there are enough (Forgy)."""

    seed: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or self.seed < 0:
            raise UserError(f"seed must be an integer of at least 0, got {self.seed!r}")

    def centroids(self, values: Float64, k: int) -> Float64:
        drawn = np.random.default_rng(self.seed).choice(values, k, replace=k > len(values))
        return np.sort(drawn)


def cluster(values: Float64, starts: Float64) -> NDArray[np.int64]:
    """The cluster, 0..k−1, of each value after Lloyd's algorithm from ascending `starts` [k].

    A value belongs to the nearest centroid, the lower of two as near. A cluster without values keeps its centroid.
    It ends when no value changes its cluster.
    """
    order = np.argsort(values, kind="stable")
    ranked = values[order]
    sums = np.concatenate([[0.0], np.cumsum(ranked)])
    centroids, bounds = starts.astype(np.float64), np.empty(0, np.int64)
    for _ in range(_MAX_STEPS):
        found = _bounds(ranked, centroids)
        if np.array_equal(found, bounds):
            break
        bounds = found
        centroids = _means(ranked, sums, bounds, centroids)
    labels = np.empty(len(values), np.int64)
    labels[order] = np.repeat(np.arange(len(starts)), np.diff(bounds))
    return labels


def _bounds(ranked: Float64, centroids: Float64) -> NDArray[np.int64]:
    """Cluster i holds ranked[bounds[i] : bounds[i + 1]]; int64 [k + 1]."""
    middles = (centroids[:-1] + centroids[1:]) / 2
    inner = np.searchsorted(ranked, middles, side="right")
    return np.concatenate([[0], inner, [len(ranked)]])


def _means(ranked: Float64, sums: Float64, bounds: NDArray[np.int64], centroids: Float64) -> Float64:
    counts = np.diff(bounds)
    means = np.diff(sums[bounds]) / np.maximum(counts, 1)
    # rounding of the running sums must not carry a mean out of its cluster: centroids stay ascending
    low, high = ranked[np.minimum(bounds[:-1], len(ranked) - 1)], ranked[np.maximum(bounds[1:] - 1, 0)]
    means = np.minimum(np.maximum(means, low), high)
    return np.where(counts > 0, means, centroids)
