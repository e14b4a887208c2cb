"""Weight sharing: centroids, their gradients, and what stays fixed."""

from __future__ import annotations

import copy

import pytest
import torch
from nets import batch, tiny_net, train
from torch import nn

from tritkit.compress import (
    BySparsity,
    DensityInit,
    centroids_of,
    prune_,
    restore_,
    share_,
    shared_layers,
    strip_,
)
from tritkit.errors import UserError


def _linear(*rows: list[float]) -> nn.Sequential:
    layer = nn.Linear(len(rows[0]), len(rows), bias=False)
    layer.weight.data = torch.tensor(rows)
    return nn.Sequential(layer)


def test_by_hand() -> None:
    net = _linear([-1.0, 0.0, 1.9, 2.1], [-1.2, 0.5, 0.0, 2.0])
    assert share_(net, linear_bits=2) == ["0"]  # starts: -1.2, 0.45, 2.1
    assert shared_layers(net)["0"].index.tolist() == [[1, 0, 3, 3], [1, 2, 0, 3]]
    torch.testing.assert_close(centroids_of(net)["0"], torch.tensor([-1.1, 0.5, 2.0]), check_dtype=True)
    torch.testing.assert_close(net[0].weight, torch.tensor([[-1.1, 0.0, 2.0, 2.0], [-1.1, 0.5, 0.0, 2.0]]))


def test_gradients_are_sums_by_hand() -> None:
    net = _linear([-1.0, 0.0, 1.9, 2.1], [-1.2, 0.5, 0.0, 2.0])
    share_(net, linear_bits=2)
    upstream = torch.tensor([[1.0, 2.0, 4.0, 8.0], [16.0, 32.0, 64.0, 128.0]])
    (net[0].weight * upstream).sum().backward()
    assert centroids_of(net)["0"].grad.tolist() == [1 + 16, 32, 4 + 8 + 128]


def test_gradients_by_finite_differences() -> None:
    net = tiny_net()
    prune_(net, BySparsity(0.5))
    share_(net, 2, 3)
    net.double().eval()
    x, y = batch()

    def loss() -> torch.Tensor:
        return nn.functional.cross_entropy(net(x.double()), y)

    loss().backward()
    for centroids in centroids_of(net).values():
        for k in range(len(centroids)):
            ends = []
            for step in (1e-6, -1e-6):
                with torch.no_grad():
                    centroids[k] += step
                    ends.append(float(loss()))
                    centroids[k] -= step
            assert float(centroids.grad[k]) == pytest.approx((ends[0] - ends[1]) / 2e-6, abs=1e-7)


def test_training_moves_centroids_only() -> None:
    net = tiny_net()
    prune_(net, BySparsity(0.6))
    kept = {name: net.get_submodule(name).weight != 0 for name in ("0", "3", "6")}
    share_(net, 4, 3)
    before = copy.deepcopy(net.state_dict())
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, weight_decay=0.01)
    first = train(net, optimizer, 1)
    assert train(net, optimizer, 40) < first
    for name, shared in shared_layers(net).items():
        assert torch.equal(shared.index, before[f"{name}.parametrizations.weight.0.index"])
        assert torch.equal(shared.index != 0, kept[name])
        assert not torch.equal(centroids_of(net)[name], before[f"{name}.parametrizations.weight.original"])
        assert len(net.get_submodule(name).weight.unique()) <= 2**shared.bits


def test_bits_of_each_kind_of_layer() -> None:
    net = tiny_net()
    share_(net)
    assert {name: shared.bits for name, shared in shared_layers(net).items()} == {"0": 8, "3": 8, "6": 5}
    assert [len(c) for c in centroids_of(net).values()] == [255, 255, 31]


def test_enough_values_lose_nothing() -> None:
    net = tiny_net()
    prune_(net, BySparsity(0.7))
    before = net[3].weight.detach().clone()
    assert len(before.unique()) == 87  # fewer than 255 values: they need not share...
    share_(net, 8, init=DensityInit())
    assert (net[3].weight - before).abs().max() < 0.01  # ...but k-means from quantiles may join neighbours


def test_memory_format_and_order() -> None:
    plain, strided = tiny_net(), tiny_net().to(memory_format=torch.channels_last)
    for net in (plain, strided):
        prune_(net, BySparsity(0.5))
        share_(net, 3, 3)
    for name, layer in plain.named_modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            assert torch.equal(layer.weight, strided.get_submodule(name).weight)


def test_copy_compile_and_state() -> None:
    net = tiny_net()
    prune_(net, BySparsity(0.5), exclude=["6"])
    share_(net, 3, include=["0"])
    x, _ = batch()
    expected = net.eval()(x)
    assert torch.equal(copy.deepcopy(net)(x), expected)
    assert torch.equal(torch.compile(net, backend="eager", fullgraph=True)(x), expected)
    other = tiny_net(1).eval()
    restore_(other, net.state_dict())
    other.load_state_dict(net.state_dict())
    assert torch.equal(other(x), expected)
    assert strip_(other) == ["0", "3"]
    assert torch.equal(other(x), expected)
    assert set(other.state_dict()) == set(tiny_net().state_dict())


@pytest.mark.parametrize("shared", [False, True])
def test_autocast_leaves_weights_in_float32(shared: bool) -> None:
    net = tiny_net()
    prune_(net, BySparsity(0.5))
    if shared:
        share_(net, 3, 3)
    x, y = batch()
    exact = net[0].weight.clone()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(net[0].weight, exact)
        loss = nn.functional.cross_entropy(net(x), y)
    loss.backward()
    assert all(p.grad.dtype == torch.float32 and bool(p.grad.isfinite().all()) for p in net.parameters())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, on its way to the compiler
@pytest.mark.parametrize("shared", [False, True])
def test_compiled_gradients_are_the_same(shared: bool) -> None:
    net = tiny_net()
    prune_(net, BySparsity(0.5))
    if shared:
        share_(net, 3, 3)
    x, y = batch()
    torch.compiler.reset()
    compiled = torch.compile(copy.deepcopy(net), backend="aot_eager", fullgraph=True)
    for each in (net, compiled):
        nn.functional.cross_entropy(each(x), y).backward()
    for a, b in zip(net.parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-5, atol=1e-7)


def test_copies_are_independent() -> None:
    net = tiny_net()
    prune_(net, BySparsity(0.5))
    x, _ = batch()
    copies = [copy.deepcopy(net).eval() for _ in range(3)]
    expected = net.eval()(x)
    share_(copies[0], 8, 8)
    strip_(copies[1])
    restore_(copies[2], copies[0].state_dict())
    copies[2].load_state_dict(copies[0].state_dict())
    assert torch.equal(net(x), expected)
    assert torch.equal(copies[1](x), expected)
    assert torch.equal(copies[2](x), copies[0](x))
    assert not torch.equal(copies[0](x), expected)
    share_(net, 8, 8)
    assert torch.equal(net(x), copies[0](x))


def test_sharing_again_and_assigning() -> None:
    net = _linear([1.0, 2.0, 3.0, 0.0])
    share_(net, linear_bits=2)
    net[0].weight = torch.tensor([[5.0, 6.0, 8.0, 7.0]])  # the removed weight stays removed
    assert net[0].weight.tolist() == [[5.0, 6.0, 8.0, 0.0]]
    with pytest.raises(UserError, match="layer '0' is made by Shared already"):
        share_(net)


@pytest.mark.parametrize("bits", [1, 9, 4.0, True])
def test_bits_out_of_range(bits: object) -> None:
    for name in ("conv_bits", "linear_bits"):
        with pytest.raises(UserError, match=rf"{name} must be an integer in 2\.\.8"):
            share_(tiny_net(), **{name: bits})


def test_mistakes_leave_the_network() -> None:
    net = tiny_net()
    net[6].weight.data.zero_()
    with pytest.raises(UserError, match="all weights of layer '6' are zero"):
        share_(net)
    net[6].weight.data[0, 0] = float("inf")
    with pytest.raises(UserError, match="1 of 80 weights are NaN or infinite"):
        share_(net)
    assert not shared_layers(net)
