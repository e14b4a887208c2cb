"""FGQ against brute force over all 3^N codes, its geometry, and the paper's count of multiplications."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from tritkit.errors import UserError
from tritkit.methods import FGQ, get


def random_weight(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def best_by_brute_force(group: np.ndarray) -> tuple[float, float]:
    """(error, α) of the best of all 3^N ternary vectors with one scale."""
    codes = np.array(list(itertools.product((-1, 0, 1), repeat=len(group))), dtype=np.float64)
    alpha = np.clip(codes @ group / np.maximum((codes**2).sum(axis=1), 1), 0, None)
    errors = ((group - alpha[:, None] * codes) ** 2).sum(axis=1)
    best = int(errors.argmin())
    return float(errors[best]), float(alpha[best])


def squared_error(weight: torch.Tensor, method: FGQ) -> float:
    return float((weight - method.project(weight).dequantize()).double().square().sum())


@pytest.mark.parametrize("size", range(1, 9))
def test_shared_scale_is_the_best_of_all_codes(size: int) -> None:
    weight = random_weight(30, size, seed=size)
    value = FGQ(group_size=size).project(weight)
    errors = (weight - value.dequantize()).double().square().sum(dim=1)
    for row, error, scale in zip(weight.double().numpy(), errors, value.scale_pos[:, 0], strict=True):
        best, alpha = best_by_brute_force(row)
        assert float(error) == pytest.approx(best, rel=1e-5, abs=1e-12)
        assert float(scale) == pytest.approx(alpha, rel=1e-6)


def test_small_integers_with_many_ties_are_as_good_as_brute_force() -> None:
    weight = torch.randint(-3, 4, (200, 6), generator=torch.Generator().manual_seed(1)).float()
    value = FGQ(group_size=6).project(weight)
    errors = (weight - value.dequantize()).double().square().sum(dim=1)
    for row, codes, error in zip(weight, value.codes, errors, strict=True):
        assert float(error) == pytest.approx(best_by_brute_force(row.double().numpy())[0], rel=1e-5, abs=1e-10)
        kept, dropped = row.abs()[codes != 0], row.abs()[codes == 0]
        assert not set(kept.tolist()) & set(dropped.tolist())


@pytest.mark.parametrize("size", [1, 2, 5, 8])
def test_separate_scales_are_the_best_on_each_side(size: int) -> None:
    weight = random_weight(30, size, seed=size)
    value = FGQ(group_size=size, scales="separate").project(weight)
    errors = (weight - value.dequantize()).double().square().sum(dim=1)
    for row, error, pos, neg in zip(
        weight.double().numpy(), errors, value.scale_pos[:, 0], value.scale_neg[:, 0], strict=True
    ):
        plus, wp = best_by_brute_force(row.clip(min=0))
        minus, wn = best_by_brute_force((-row).clip(min=0))
        assert float(error) == pytest.approx(plus + minus, rel=1e-5, abs=1e-12)
        assert (float(pos), float(neg)) == (pytest.approx(wp, rel=1e-6), pytest.approx(wn, rel=1e-6))
    assert squared_error(weight, FGQ(size, scales="separate")) <= squared_error(weight, FGQ(size)) + 1e-9


@pytest.mark.parametrize("group_size", [2, 4, 7, 64])
def test_weights_are_grouped_along_the_input_channels_of_one_position(group_size: int) -> None:
    weight = random_weight(3, 10, 3, 2)
    value = FGQ(group_size=group_size).project(weight)
    assert value.scale_pos.shape == (3, math.ceil(10 / group_size), 3, 2)
    assert value.group_size == min(group_size, 10)
    for o, y, x in itertools.product(range(3), range(3), range(2)):
        for g, start in enumerate(range(0, 10, group_size)):
            row = weight[o, start : start + group_size, y, x].reshape(1, -1)
            alone = FGQ(group_size=64).project(row)
            assert torch.equal(value.codes[o, start : start + group_size, y, x], alone.codes[0])
            torch.testing.assert_close(value.scale_pos[o, g, y, x], alone.scale_pos[0, 0])


@pytest.mark.parametrize("group_size", [2, 4, 100])
def test_kernels_share_a_scale(group_size: int) -> None:
    weight = random_weight(3, 5, 3, 3)
    value = FGQ(group_size=group_size, group="kernels").project(weight)
    for o in range(3):
        for g, start in enumerate(range(0, 5, group_size)):
            row = weight[o, start : start + group_size].reshape(1, -1)
            alone = FGQ(group_size=64).project(row)
            assert torch.equal(value.codes[o, start : start + group_size].flatten(), alone.codes[0])
            torch.testing.assert_close(value.scale_pos[o, g], alone.scale_pos[0, 0].expand(3, 3))


def test_finer_nested_groups_are_never_worse_and_single_weights_are_exact() -> None:
    weight = random_weight(8, 64, 3, 3)
    errors = [squared_error(weight, FGQ(group_size=size)) for size in (64, 16, 4, 2, 1)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] == 0


def test_an_output_does_not_depend_on_the_others() -> None:
    weight = random_weight(6, 12, 3, 3)
    whole, part = FGQ().project(weight), FGQ().project(weight[2:4])
    assert torch.equal(whole.codes[2:4], part.codes)
    assert torch.equal(whole.scale_pos[2:4], part.scale_pos)


@pytest.mark.parametrize("magnitude", [1e-38, 1e-20, 1e20, 1e36])
def test_codes_do_not_depend_on_the_unit(magnitude: float) -> None:
    weight = random_weight(4, 12)
    assert torch.equal(FGQ().project(weight * magnitude).codes, FGQ().project(weight).codes)


@pytest.mark.parametrize(("size", "saved"), [(4, 0.75), (64, 0.984375)])
def test_multiplications_saved_as_in_the_paper(size: int, saved: float) -> None:
    shape = (64, 128, 3, 3)
    assert 1 - FGQ(group_size=size).multiplications(shape) / math.prod(shape) == saved


@pytest.mark.parametrize(
    ("method", "shape", "count"),
    [
        (FGQ(4), (2, 10, 3, 3), 2 * 3 * 9),
        (FGQ(4), (10, 64), 160),
        (FGQ(1), (2, 3, 3, 3), 54),
        (FGQ(1, scales="separate"), (2, 3, 3, 3), 54),
        (FGQ(4, scales="separate"), (2, 9), 2 * (2 + 2 + 1)),
        (FGQ(4, group="kernels"), (2, 10, 3, 3), 6),
        (FGQ(4, group="kernels", scales="separate"), (2, 9, 3, 3), 12),
        (FGQ(10**12), (7, 3, 1, 1), 7),
    ],
)
def test_multiplications_of_other_groups(method: FGQ, shape: tuple[int, ...], count: int) -> None:
    assert method.multiplications(shape) == count


@pytest.mark.parametrize("name", ["shared", "separate"])
@pytest.mark.parametrize("group", ["weights", "kernels"])
def test_training_computes_with_the_projected_weight(name: str, group: str) -> None:
    method = get("fgq", group_size=3, group=group, scales=name)
    weight = random_weight(4, 7, 3, 3)
    ternarizer = method.build(weight)
    latent = weight.clone().requires_grad_()
    out = ternarizer(latent)
    assert torch.equal(out, method.project(weight).dequantize())
    out.backward(random_weight(4, 7, 3, 3, seed=1))
    assert torch.equal(latent.grad, random_weight(4, 7, 3, 3, seed=1))
    assert torch.equal(out != 0, weight.abs() > ternarizer.delta(weight))


@pytest.mark.parametrize("scales", ["shared", "separate"])
@pytest.mark.parametrize("group", ["weights", "kernels"])
def test_power_of_two_multipliers_keep_the_codes(scales: str, group: str) -> None:
    any_, powers = (get("fgq", group=group, scales=scales, multipliers=name) for name in ("any", "power-of-two"))
    weight = random_weight(4, 10, 3, 3)
    value, truth = powers.project(weight), any_.project(weight)
    assert torch.equal(value.codes, truth.codes)
    book = value.codebook()
    assert set(torch.stack([book.p, book.n]).unique().tolist()) <= {1, 2, 4, 8, 16, 32, 64}
    assert len(set(truth.codebook().p.unique().tolist())) > 7
    change = squared_error(weight, powers) - squared_error(weight, any_)
    assert 0 < change <= float(truth.dequantize().square().sum()) / 9  # a scale of 1.5 units goes a third of itself
    assert torch.equal(powers.project(value.dequantize()).codes, value.codes)
    torch.testing.assert_close(powers.project(value.dequantize()).dequantize(), value.dequantize())


def test_a_huge_group_takes_no_memory() -> None:
    value = FGQ(group_size=10**12).project(random_weight(2, 3))
    assert value.scale_pos.shape == (2, 1)
    assert FGQ(group_size=10**12).build(random_weight(2, 3))(random_weight(2, 3)).shape == (2, 3)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"group_size": 0}, "group_size must be a whole number of input channels, 1 or more, got 0"),
        ({"group_size": 4.0}, "got 4.0"),
        ({"group_size": True}, "got True"),
        ({"group": "rows"}, "group must be one of 'weights', 'kernels', got 'rows'"),
        ({"scales": "two"}, "scales must be one of 'shared', 'separate', got 'two'"),
        ({"multipliers": "even"}, "multipliers must be one of 'any', 'power-of-two', got 'even'"),
    ],
)
def test_bad_fields_say_what_is_allowed(fields: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        FGQ(**fields)


def test_vectors_have_no_input_channels() -> None:
    with pytest.raises(UserError, match=r"weight of shape \[O, I, ...\], got \[3\]"):
        FGQ().project(torch.ones(3))
