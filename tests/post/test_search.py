"""Codes and scales of one layer against brute force and NumPy."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from tritkit.methods import FGQ
from tritkit.post import search
from tritkit.post.groups import Layout, Rows, rows_of

Array = NDArray[np.float64]

METHODS = [
    FGQ(2),
    FGQ(3),
    FGQ(4, scales="separate"),
    FGQ(64),
    FGQ(2, "kernels"),
    FGQ(64, "kernels"),
    FGQ(3, "kernels", "separate"),
]


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _hessian(k: int, seed: int = 1) -> Tensor:
    """Of strongly correlated inputs."""
    x = _random(4 * k, k, seed=seed) @ _random(k, k, seed=seed + 1)
    return x.T @ x / len(x)


def _error(w: Array, q: Array, h: Array) -> float:
    return float(np.trace((w - q) @ h @ (w - q).T))


def _loss(w: Tensor, rows: Rows, h: Tensor) -> float:
    return _error(w.numpy(), rows.weights().numpy(), h.numpy())


def _columns(weight: Tensor, layout: Layout) -> Tensor:
    return weight.movedim(1, -1).reshape(len(weight), -1)[:, layout.order].double()


@pytest.mark.parametrize("method", METHODS, ids=repr)
@pytest.mark.parametrize("shape", [(5, 7, 3, 3), (4, 6)])
def test_plain_rows_are_the_methods_own_projection(method: FGQ, shape: tuple[int, ...]) -> None:
    weight = _random(*shape).float()
    layout = Layout.of(method, torch.Size(shape))
    rows = search.plain(_columns(weight, layout), layout)
    truth = method.project(weight)
    assert torch.equal(rows.ternary().codes, truth.codes)
    assert torch.allclose(rows.ternary().dequantize(), truth.snap().dequantize(), rtol=1e-6)
    again = rows_of(rows.ternary(), layout)
    assert torch.equal(again.codes, rows.codes)


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_compensation_with_independent_inputs_is_plain_fgq(method: FGQ) -> None:
    layout = Layout.of(method, torch.Size((6, 8, 3, 3)))
    w = _random(6, 72)
    plain, compensated = search.plain(w, layout), search.compensated(w, layout, torch.eye(72, dtype=torch.float64))
    assert torch.equal(plain.codes, compensated.codes)
    assert torch.allclose(plain.weights(), compensated.weights())


@pytest.mark.parametrize("method", METHODS, ids=repr)
@pytest.mark.parametrize("near", [1, 5, 30])
def test_far_columns_can_wait(method: FGQ, near: int, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = Layout.of(method, torch.Size((6, 8, 3, 3)))
    w, h = _random(6, 72), _hessian(72)
    at_once = search.compensated(w, layout, h)
    monkeypatch.setattr(search, "_NEAR", near)
    later = search.compensated(w, layout, h)
    assert torch.equal(at_once.codes, later.codes)
    assert torch.allclose(at_once.weights(), later.weights())


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_each_step_lowers_the_output_error(method: FGQ) -> None:
    layout = Layout.of(method, torch.Size((6, 8, 3, 3)))
    w, h = _random(6, 72), _hessian(72)
    plain = search.plain(w, layout)
    compensated = search.compensated(w, layout, h)
    fitted = search.refitted(w, compensated, h)
    descended = search.descended(w, fitted, h, sweeps=5)
    errors = [_loss(w, rows, h) for rows in (plain, compensated, fitted, descended)]
    assert errors == sorted(errors, reverse=True)
    assert errors[3] < 0.7 * errors[0]
    better = search.row_errors(w, fitted, h) <= search.row_errors(w, compensated, h) + 1e-9
    assert bool(better.all())


@pytest.mark.parametrize("scales", ["shared", "separate"])
def test_refit_is_the_least_squares_solution(scales: str) -> None:
    layout = Layout.of(FGQ(3, scales=scales), torch.Size((4, 8)))  # type: ignore[arg-type]
    x = np.random.default_rng(0).normal(size=(50, 8))
    h = torch.from_numpy(x.T @ x)
    w = _random(4, 8)
    rows = search.plain(w, layout)
    fitted = search.refitted(w, rows, h)
    for o in range(4):
        basis = _basis(rows.codes[o].numpy(), [0, 0, 0, 1, 1, 1, 2, 2], scales)
        wanted, *_ = np.linalg.lstsq(x @ basis.T, x @ w[o].numpy(), rcond=None)
        used = (basis != 0).any(axis=1)
        if (wanted[used] > 0).all():
            sides = (fitted.pos[o],) if scales == "shared" else (fitted.pos[o], fitted.neg[o])
            assert np.allclose(np.concatenate([s.numpy() for s in sides])[used], wanted[used], rtol=1e-5)


def _basis(codes: Array, groups: list[int], scales: str) -> Array:
    """One row a scale: the codes it multiplies."""
    rows = []
    for side in (codes,) if scales == "shared" else (np.maximum(codes, 0), np.minimum(codes, 0)):
        rows += [np.where(np.array(groups) == g, side, 0) for g in range(3)]
    return np.array(rows)


def test_descent_on_a_tiny_layer_comes_close_to_brute_force() -> None:
    layout = Layout.of(FGQ(6), torch.Size((8, 6)))
    w, h = _random(8, 6), _hessian(6)
    start = search.refitted(w, search.compensated(w, layout, h), h)
    found = search.descended(w, start, h, sweeps=10)
    for o in range(8):
        scale = float(start.pos[o, 0])
        row, truth = w[o : o + 1].numpy(), h.numpy()
        best = min(_error(row, scale * np.array([codes]), truth) for codes in product((-1, 0, 1), repeat=6))
        mine = _error(row, found.weights()[o : o + 1].numpy(), truth)
        assert best <= mine + 1e-12
        single = [  # no single code can be better
            _error(row, _with(found.weights()[o].numpy(), k, scale * code), truth)
            for k in range(6)
            for code in (-1, 0, 1)
        ]
        assert mine <= min(single) + 1e-9


def _with(values: Array, index: int, value: float) -> Array:
    changed = values.copy()
    changed[index] = value
    return changed[None]


def test_solving_finds_the_weights_behind_the_outputs() -> None:
    x, truth = np.random.default_rng(0).normal(size=(200, 9)), np.random.default_rng(1).normal(size=(3, 9))
    h, c = torch.from_numpy(x.T @ x), torch.from_numpy(truth @ x.T @ x)
    assert np.allclose(search.solved(torch.zeros(3, 9, dtype=torch.float64), h, c).numpy(), truth)


def test_powers_of_two_where_inputs_are_strong_count_more() -> None:
    """One unit for the scales 3 and 4, whose inputs have the mean squares given: (1 · 3 + 3 · 4) / 4 = 3.75."""
    layout = Layout.of(FGQ(1, multipliers="power-of-two"), torch.Size((1, 2)))
    scales = torch.tensor([[3.0, 4.0]], dtype=torch.float64)
    rows = Rows(layout, torch.tensor([[1.0, -1.0]], dtype=torch.float64), scales, scales)
    for squares, wanted in (((1.0, 3.0), (3.75, 3.75)), ((0.0, 3.0), (4.0, 4.0))):
        found = search.rounded(rows, torch.tensor(squares, dtype=torch.float64).diag())
        assert found.pos.tolist() == [pytest.approx(wanted)]
        assert found.weights().tolist() == [pytest.approx([wanted[0], -wanted[1]])]
    same = Layout.of(FGQ(1), torch.Size((1, 2)))
    assert search.rounded(Rows(same, rows.codes, scales, scales), torch.eye(2).double()).pos is scales


@pytest.mark.parametrize("scales", ["shared", "separate"])
def test_powers_of_two_chosen_during_compensation_are_better_than_rounded_ones(scales: str) -> None:
    layout = Layout.of(FGQ(3, scales=scales, multipliers="power-of-two"), torch.Size((6, 8, 3, 3)))  # type: ignore[arg-type]
    w, h = _random(6, 72), _hessian(72)
    rounded = search.rounded(search.compensated(w, layout, h), h)
    chosen = search.compensated(w, layout, h, search.of_grid(rounded))
    for side in (chosen.pos, chosen.neg):
        steps = (torch.maximum(rounded.pos, rounded.neg).amax(dim=1, keepdim=True) / side).log2()
        assert torch.allclose(steps, steps.round())
        assert 0 <= float(steps.min()) <= float(steps.max()) <= 6
    assert _loss(w, chosen, h) < _loss(w, rounded, h)


def test_the_power_of_two_with_the_nearest_codes_is_taken() -> None:
    """3.2 and 0.9 leave 0.8² + 0.9² with 4 and 1.2² + 0.9² with 2; 2.2 and 0.9 leave 0.2² + 0.9² with 2."""
    layout = Layout.of(FGQ(2, multipliers="power-of-two"), torch.Size((1, 2)))
    four = torch.full((1, 1), 4.0, dtype=torch.float64)
    choose = search.of_grid(Rows(layout, torch.ones(1, 2, dtype=torch.float64), four, four))
    for weights, wanted in (((3.2, -0.9), 4), ((2.2, 0.9), 2), ((0.0, 0.06), 0.0625), ((9.0, 9.0), 4)):
        assert [float(s) for s in choose(0, torch.tensor([weights], dtype=torch.float64))] == [wanted, wanted]


@pytest.mark.parametrize("multipliers", ["any", "power-of-two"])
def test_all_codes_of_a_small_group_are_tried(multipliers: str) -> None:
    layout = Layout.of(FGQ(4, multipliers=multipliers), torch.Size((8, 4)))  # type: ignore[arg-type]
    w, h = _random(8, 4), _hessian(4)
    start = search.plain(w, layout)
    found = search.tried(w, start, h, sweeps=1)
    for o in range(8):
        row, truth = w[o : o + 1].numpy(), h.numpy()
        errors = []
        for codes in product((-1.0, 0.0, 1.0), repeat=4):
            c = np.array([codes])
            fitted = [((c @ truth @ row.T) / (c @ truth @ c.T)).item()] if c.any() else [0.0]
            scales = fitted if multipliers == "any" else [float(start.pos[o, 0]) / 2**j for j in range(7)]
            errors += [_error(row, s * c, truth) for s in scales]
        assert _error(row, found.weights()[o : o + 1].numpy(), truth) == pytest.approx(min(errors))
    assert bool((found.pos >= 0).all())


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_improving_never_makes_a_row_worse(method: FGQ) -> None:
    layout = Layout.of(method, torch.Size((6, 8, 3, 3)))
    w, h = _random(6, 72), _hessian(72)
    start = search.plain(w, layout)
    errors = [search.row_errors(w, rows, h) for rows in (start, search.improved(w, start, h, sweeps=3))]
    assert bool((errors[1] <= errors[0] * (1 + 1e-9)).all())
    assert float(errors[1].sum()) < 0.8 * float(errors[0].sum())
