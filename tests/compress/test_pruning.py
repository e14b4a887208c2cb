"""Pruning: which weights go, and that they stay away."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from nets import batch, tiny_net, train
from torch import nn

from tritkit.compress import ByDeviation, BySparsity, masks, prune_, strip_
from tritkit.errors import UserError
from tritkit.methods import TTQ
from tritkit.surgery import ternarize_


def _linear(*rows: list[float]) -> nn.Linear:
    layer = nn.Linear(len(rows[0]), len(rows), bias=False)
    layer.weight.data = torch.tensor(rows)
    return layer


def test_by_deviation_by_hand() -> None:
    # the mean is 1, so the deviation over n is sqrt((9 + 0.25 + 9 + 0.25) / 4) = 2.1506
    net = nn.Sequential(_linear([4.0, 0.5, -2.0, 1.5]))
    values = net[0].weight.detach()
    assert float(values.std(correction=0)) == pytest.approx(2.1506, abs=1e-4)
    assert ByDeviation(1.0).keep(values).tolist() == [[True, False, False, False]]
    assert ByDeviation(0.9).keep(values).tolist() == [[True, False, True, False]]  # above 1.9356
    assert prune_(net, ByDeviation(0.9)) == ["0"]
    assert net[0].weight.tolist() == [[4.0, 0.0, -2.0, 0.0]]


def test_by_deviation_again_looks_at_what_is_left() -> None:
    net = nn.Sequential(_linear([4.0, 0.5, -2.0, 1.5]))
    prune_(net, ByDeviation(0.9))
    prune_(net, ByDeviation(1.0))  # 4 and -2 deviate by 3 from their mean 1
    assert net[0].weight.tolist() == [[4.0, 0.0, 0.0, 0.0]]
    assert masks(net)["0"].tolist() == [[True, False, False, False]]


def test_pruning_less_brings_nothing_back() -> None:
    net = nn.Sequential(_linear([4.0, 0.5, -2.0, 1.5]))
    prune_(net, BySparsity(0.75))
    prune_(net, BySparsity(0.25))  # alone it would keep two of the zeros
    assert masks(net)["0"].tolist() == [[True, False, False, False]]


@pytest.mark.parametrize(
    ("sparsity", "kept"),
    [
        (0.0, [[1, 1, 1], [1, 1, 1]]),
        (0.5, [[0, 1, 0], [1, 1, 0]]),
        (2 / 6, [[1, 1, 0], [1, 1, 0]]),  # 0, then 1 of row 2
        (0.99, [[0, 1, 0], [0, 0, 0]]),  # one always stays
    ],
)
def test_by_sparsity_by_hand(sparsity: float, kept: list[list[int]]) -> None:
    weight = torch.tensor([[2.0, -5.0, 0.0], [3.0, -2.5, 1.0]])
    assert BySparsity(sparsity).keep(weight).int().tolist() == kept


def test_by_sparsity_takes_the_earlier_of_equals() -> None:
    assert BySparsity(0.5).keep(torch.tensor([[1.0, -1.0, 1.0, 1.0]])).tolist() == [[False, False, True, True]]
    many = torch.ones(64, 32, 3, 3)
    assert BySparsity(0.3).keep(many).sum() == many.numel() - round(0.3 * many.numel())


def test_sparsity_holds_in_any_memory_format() -> None:
    weight = torch.randn(8, 4, 3, 3, generator=torch.Generator().manual_seed(0)).round(decimals=1)
    strided = weight.to(memory_format=torch.channels_last)
    assert torch.equal(BySparsity(0.6).keep(strided), BySparsity(0.6).keep(weight))


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1),
        lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
    ],
    ids=["sgd", "adamw"],
)
def test_zeros_stay_zero(make: Callable[..., torch.optim.Optimizer]) -> None:
    net = tiny_net()
    optimizer = make(net.parameters())
    train(net, optimizer, 3)  # momentum from before pruning
    prune_(net, BySparsity(0.7))
    before = {name: mask.clone() for name, mask in masks(net).items()}
    weights = {name: net.get_submodule(name).weight.detach().clone() for name in before}
    train(net, optimizer, 10)
    assert set(before) == {"0", "3", "6"}
    for name, mask in before.items():
        weight = net.get_submodule(name).weight
        assert torch.equal(weight != 0, mask)
        assert not torch.equal(weight, weights[name])
    fresh = tiny_net()
    prune_(fresh, BySparsity(0.7))
    train(fresh, make(fresh.parameters()), 5)
    for name in before:
        hidden = fresh.get_parameter(f"{name}.parametrizations.weight.original")
        assert (hidden[~masks(fresh)[name]] == 0).all()  # also behind the mask


def test_retraining_recovers() -> None:
    net = tiny_net()
    start = train(net, torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9), 60)
    prune_(net, BySparsity(0.8))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    cut = train(net, optimizer, 1)
    assert start < train(net, optimizer, 60) < cut / 4


def test_identity_state_copy_and_compile() -> None:
    net = tiny_net()
    weight = net[0].weight
    prune_(net, BySparsity(0.5), include=["0"])
    assert net[0].parametrizations.weight.original is weight
    copied = copy.deepcopy(net)
    other = tiny_net(1)
    prune_(other, BySparsity(0.9), include=["0"])
    other.load_state_dict(net.state_dict())
    x, _ = batch()
    assert torch.equal(copied.eval()(x), net.eval()(x))
    assert torch.equal(other.eval()(x), net(x))
    compiled = torch.compile(net, backend="eager", fullgraph=True)
    assert torch.equal(compiled(x), net(x))


def test_layers_are_chosen() -> None:
    net = tiny_net()
    assert prune_(net, BySparsity(0.9), include=["[03]"]) == ["0", "3"]
    assert prune_(net, ByDeviation(), exclude=["0", "3"]) == ["6"]
    assert strip_(net) == ["0", "3", "6"]
    assert set(net.state_dict()) == set(tiny_net().state_dict())
    assert float((net[0].weight != 0).float().mean()) == pytest.approx(0.1, abs=0.01)


@pytest.mark.parametrize("bad", [-0.1, 1.0, float("nan"), True, "0.5"])
def test_sparsity_out_of_range(bad: object) -> None:
    with pytest.raises(UserError, match=r"sparsity must be in \[0, 1\)"):
        BySparsity(bad)


@pytest.mark.parametrize("bad", [0, -1.0, float("nan"), float("inf"), None])
def test_quality_out_of_range(bad: object) -> None:
    with pytest.raises(UserError, match="quality must be a number above 0"):
        ByDeviation(bad)


def test_mistakes_leave_the_network() -> None:
    net = tiny_net()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    for options, sentence in [
        ({"rule": ByDeviation(9.0)}, "layer '0' would lose all 216 weights"),
        ({"rule": BySparsity(0.5), "exclude": ["fc"]}, "exclude: 'fc' matches no .* there are 0, 3, 6"),
        ({"rule": BySparsity(0.5), "exclude": ["*"]}, "no layer is left of the 3"),
        ({"rule": BySparsity(0.5), "include": "0"}, "must be a list"),
    ]:
        with pytest.raises(UserError, match=sentence):
            prune_(net, **options)
    with pytest.raises(UserError, match="no pruned or shared layer"):
        strip_(net)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_weights_that_cannot_be_pruned() -> None:
    net = tiny_net()
    net[3].weight.data[0, 0, 0, 0] = float("nan")
    with pytest.raises(UserError, match="layer '3': 1 of 288 weights are NaN"):
        prune_(net, BySparsity(0.5))
    with pytest.raises(UserError, match="must be a float32 tensor"):
        prune_(tiny_net().double(), BySparsity(0.5))
    ternary = tiny_net()
    ternarize_(ternary, TTQ())
    with pytest.raises(UserError, match=r"layer '0' is made by .* already"):
        prune_(ternary, BySparsity(0.5))
