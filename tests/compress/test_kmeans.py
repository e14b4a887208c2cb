"""k-means on numbers: Lloyd's steps against a plain version of them, its fixed points against every partition."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tritkit.compress import DensityInit, LinearInit, RandomInit
from tritkit.compress.kmeans import cluster
from tritkit.errors import UserError

INITS = [LinearInit(), DensityInit(), RandomInit(3)]


def plain_lloyd(values: list[float], starts: list[float]) -> list[int]:
    """Textbook Lloyd: nearest centroid (the lower of two), mean of the members, until nothing moves."""
    centroids, labels = list(starts), []
    for _ in range(1000):
        now = [min(range(len(centroids)), key=lambda k: (abs(v - centroids[k]), k)) for v in values]
        if now == labels:
            break
        labels = now
        for k in range(len(centroids)):
            members = [v for v, label in zip(values, labels, strict=True) if label == k]
            if members:
                centroids[k] = sum(members) / len(members)
    return labels


def loss(values: np.ndarray, labels: np.ndarray) -> float:
    return sum(float(np.square(values[labels == k] - values[labels == k].mean()).sum()) for k in set(labels.tolist()))


def best_loss(values: np.ndarray, k: int) -> float:
    """The least squared error over all cuts of the sorted values into k runs (the optimum in one dimension)."""
    ranked, losses = np.sort(values), []
    for cuts in combinations(range(1, len(values)), k - 1):
        runs = np.split(ranked, cuts)
        losses.append(sum(float(np.square(run - run.mean()).sum()) for run in runs))
    return min(losses)


@pytest.mark.parametrize("init", INITS, ids=repr)
@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.lists(st.integers(-64, 64), min_size=1, max_size=40), st.integers(1, 8))
def test_it_is_lloyd(init: LinearInit | DensityInit | RandomInit, numbers: list[int], k: int) -> None:
    values = np.array(numbers, np.float64) / 8 + 0.01 * np.arange(len(numbers))  # no exact ties by construction
    starts = init.centroids(np.sort(values), k)
    assert len(starts) == k
    assert (np.diff(starts) >= 0).all()
    if len(np.unique(starts)) == k:
        assert cluster(values, starts).tolist() == plain_lloyd(values.tolist(), starts.tolist())


@settings(derandomize=True, deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.integers(2, 3))
def test_the_best_of_all_starts_is_the_optimum(seed: int, k: int) -> None:
    values = np.random.default_rng(seed).normal(size=7)
    starts = [np.array(start) for start in combinations(sorted(values), k)]
    found = [loss(values, cluster(values, start)) for start in starts]
    assert min(found) >= best_loss(values, k) - 1e-12
    exact = next(cuts for cuts in combinations(range(1, 7), k - 1) if _loss_of(values, cuts) == best_loss(values, k))
    means = np.array([run.mean() for run in np.split(np.sort(values), exact)])
    assert loss(values, cluster(values, means)) == pytest.approx(best_loss(values, k), abs=1e-12)  # a fixed point


def _loss_of(values: np.ndarray, cuts: tuple[int, ...]) -> float:
    return sum(float(np.square(run - run.mean()).sum()) for run in np.split(np.sort(values), cuts))


def test_two_clumps_by_hand() -> None:
    values = np.array([0.9, -1.0, 1.1, -1.2, 1.0])
    assert cluster(values, np.array([-2.0, 3.0])).tolist() == [1, 0, 1, 0, 1]


def test_a_value_between_two_centroids_goes_to_the_lower() -> None:
    assert cluster(np.array([0.0, 1.0, 2.0]), np.array([0.0, 2.0])).tolist() == [0, 0, 1]


def test_an_empty_cluster_is_left_alone() -> None:
    assert cluster(np.array([0.0, 0.1, 9.0]), np.array([0.0, 5.0, 9.0])).tolist() == [0, 0, 2]


@pytest.mark.parametrize("init", INITS, ids=repr)
@pytest.mark.parametrize("values", [[0.5], [0.5] * 9, [1e30, -1e30, 1e-30]])
def test_few_and_equal_values(init: LinearInit | DensityInit | RandomInit, values: list[float]) -> None:
    numbers = np.array(values)
    labels = cluster(numbers, init.centroids(np.sort(numbers), 31))
    assert ((labels >= 0) & (labels < 31)).all()
    for one in set(values):
        assert len(set(labels[numbers == one].tolist())) == 1


def test_where_the_inits_start() -> None:
    values = np.array([0.0, 1.0, 2.0, 3.0, 10.0])
    assert LinearInit().centroids(values, 3).tolist() == [0, 5, 10]
    assert DensityInit().centroids(values, 2).tolist() == [1, 3]  # quantiles 1/4 and 3/4
    drawn = RandomInit(5).centroids(values, 4)
    assert len(set(drawn)) == 4
    assert set(drawn) <= set(values)
    assert drawn.tolist() == RandomInit(5).centroids(values, 4).tolist()
    with pytest.raises(UserError, match="seed must be"):
        RandomInit(-1)


def test_linear_keeps_the_large_weights_best() -> None:
    """The paper's reason for it: the largest weights lie nearest to their centroids."""
    values = np.sort(np.random.default_rng(0).normal(size=4000))
    worst = []
    for init in INITS:
        starts = init.centroids(values, 15)
        tail = np.abs(values) > 2.5
        worst.append(np.abs(values[tail][:, None] - starts).min(axis=1).max())
    assert worst[0] < min(worst[1:])
