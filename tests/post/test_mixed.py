"""Group sizes by layer: within the budget, smallest where the outputs need them, and what is refused."""

from __future__ import annotations

import copy
from itertools import product

import pytest
import torch
from small_residual import TERNARY
from torch import Tensor, nn

from tritkit.errors import UserError
from tritkit.methods import FGQ
from tritkit.post import BitsPerWeight, Multiplications, choose_group_sizes, count, quantize
from tritkit.post.mixed import Choice, _within

SIZES = (2, 4, 8)


def test_the_budget_is_kept_and_used(small_net: nn.Module, pictures: Tensor) -> None:
    chosen = choose_group_sizes(small_net, [pictures], BitsPerWeight(4.2), sizes=SIZES)
    assert list(chosen) == TERNARY
    net = quantize(small_net, chosen, [pictures])
    rows = [row for row in count(net, pictures).layers if row.kind == "ternary"]
    bits = sum(row.bits for row in rows) / sum(row.weights for row in rows)
    assert 3.5 < bits <= 4.2
    assert {row.name: row.group_size for row in rows} == {name: method.group_size for name, method in chosen.items()}


def test_multiplications_are_counted_as_the_paper_does(small_net: nn.Module, pictures: Tensor) -> None:
    chosen = choose_group_sizes(small_net, [pictures], Multiplications(0.2), sizes=SIZES)
    facts = count(quantize(small_net, chosen, [pictures]), pictures).facts()["ternary"]
    assert 1 / 8 <= facts["multiplications"] / facts["macs"] <= 0.2


def test_the_network_stays_as_it_was(small_net: nn.Module, pictures: Tensor) -> None:
    before = copy.deepcopy(small_net.state_dict())
    choose_group_sizes(small_net, [pictures], BitsPerWeight(4), sizes=SIZES)
    assert all(torch.equal(before[key], value) for key, value in small_net.state_dict().items())


def test_the_extremes_leave_no_choice(small_net: nn.Module, pictures: Tensor) -> None:
    smallest = choose_group_sizes(small_net, [pictures], BitsPerWeight(6), sizes=SIZES)
    largest = choose_group_sizes(small_net, [pictures], BitsPerWeight(3), sizes=SIZES)
    assert set(smallest.values()) == {FGQ(2)}
    assert set(largest.values()) == {FGQ(8)}


def test_the_choice_is_near_the_best_of_all(pictures: Tensor) -> None:
    """Of all 3^6 choices for made-up layers, at most a step of one layer worse than the best within the budget."""
    generator = torch.Generator().manual_seed(0)
    choices = {}
    for i in range(6):
        scale, weights = (float(torch.rand((), generator=generator)) + 0.1 for _ in range(2))
        change = {2: 0.2 * scale, 4: 0.5 * scale, 8: scale}
        choices[str(i)] = Choice(int(1000 * weights), 1000, change)
    budget = BitsPerWeight(4)
    allowed = budget.allowed(choices.values())

    def total(sizes: dict[str, int]) -> float:
        return sum(choices[name].change[size] for name, size in sizes.items())

    every = [dict(zip(choices, sizes, strict=True)) for sizes in product(SIZES, repeat=6)]
    fit = [s for s in every if sum(budget.cost(choices[name], size) for name, size in s.items()) <= allowed]
    best, ours = min(map(total, fit)), _within(choices, SIZES, budget)
    assert ours in fit
    assert total(ours) <= best + max(choice.change[8] - choice.change[2] for choice in choices.values()) / 2


@pytest.mark.parametrize(
    ("sizes", "limit", "sentence"),
    [((), 4, "give whole numbers"), ((0, 4), 4, "give whole numbers"), ((8,), 2.5, "less than groups of 8 cost")],
)
def test_mistakes_get_a_sentence(
    small_net: nn.Module, pictures: Tensor, sizes: tuple[int, ...], limit: float, sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        choose_group_sizes(small_net, [pictures], BitsPerWeight(limit), sizes=sizes)


def test_methods_by_layer_must_fit(small_net: nn.Module, pictures: Tensor) -> None:
    with pytest.raises(UserError, match=r"\['block1.conv2', .*have none, and \['nowhere'\] are no"):
        quantize(small_net, {"block1.conv1": FGQ(4), "nowhere": FGQ(4)}, [pictures])
