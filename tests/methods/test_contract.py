"""What every method must do: its worked numbers, and the properties the rest of tritkit builds on."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from cases import ALL, Case
from torch import nn
from torch.nn.utils import parametrize

from tritkit.errors import UserError
from tritkit.methods import BWN, FGQ, LSQ, TGA, TTQ, DoReFa, Method, Residual, get, method_class, names
from tritkit.surgery import latent_of, ternarize_, ternarizer_of
from tritkit.ternary import Ternary

ALL_CASES = [pytest.param(case, id=f"{case.method.name}: {case.title}") for case in ALL]
SHAPES = [(1, 1), (5, 7), (4, 3, 3, 3), (2, 8, 1, 1)]
NO_TIES = {"twn-exact"}  # its threshold lies between weights
ALWAYS_SIGNED = {"binary-connect"}  # binary with a scale that is never 0: a zero weight has the code +1


def random_weight(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", names())
def test_worked_numbers_cover_the_corners(name: str) -> None:
    cases = [case for case in ALL if case.method.name == name]
    rows = [[abs(w) for w in row] for case in cases for row in case.latent]
    assert any(len(case.latent) == len(case.latent[0]) == 1 for case in cases), "one element"
    assert any(len(row) > 1 and row[0] and set(row) == {row[0]} for row in rows), "a row of equal magnitudes"
    assert any(set(row) == {0.0} for row in rows), "a row of zeros"
    assert name in NO_TIES or any(ties(case) for case in cases), "a weight at the threshold"


def ties(case: Case) -> bool:
    latent = torch.tensor(case.latent)
    return bool((latent.abs() == case.method.build(latent).delta(latent)).any())


@pytest.mark.parametrize("case", ALL_CASES)
def test_projection_as_worked_by_hand(case: Case) -> None:
    value = case.method.project(torch.tensor(case.latent))
    assert value.codes.tolist() == case.codes
    torch.testing.assert_close(value.scale_pos, torch.tensor(case.scale_pos), rtol=1e-6, atol=0)
    torch.testing.assert_close(value.scale_neg, torch.tensor(case.scale_neg), rtol=1e-6, atol=0)


@pytest.mark.parametrize("case", ALL_CASES)
def test_gradients_as_worked_by_hand(case: Case) -> None:
    latent = torch.tensor(case.latent, requires_grad=True)
    ternarizer = case.method.build(latent)
    if case.trained is not None:
        ternarizer.set_scales_(*torch.tensor(case.trained))
    ternarizer(latent).backward(torch.tensor(case.g))
    torch.testing.assert_close(latent.grad, torch.tensor(case.latent_grad), rtol=1e-6, atol=0)
    grads = {name: parameter.grad for name, parameter in ternarizer.named_parameters()}
    assert set(grads) == set(case.scale_grads)
    for name, expected in case.scale_grads.items():
        torch.testing.assert_close(grads[name], torch.tensor(expected), rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", names())
class TestEveryMethod:
    def test_describes_itself(self, name: str) -> None:
        cls = method_class(name)
        assert len(cls.summary.splitlines()) == 1
        assert "https://" in cls.paper
        for word in ("Forward", "Gradient", "Ties", *(f.name for f in dataclasses.fields(cls))):
            assert word in (cls.__doc__ or ""), f"the docstring is the specification; it lacks {word!r}"

    def test_comes_back_from_its_name_and_fields(self, name: str) -> None:
        method = method_class(name)()
        assert get(name, **method.params()) == method
        assert hash(method) == hash(get(name))

    @pytest.mark.parametrize("shape", SHAPES)
    def test_codes_are_odd_and_follow_the_threshold(self, name: str, shape: tuple[int, ...]) -> None:
        weight = random_weight(*shape)
        value, mirrored = get(name).project(weight), get(name).project(-weight)
        assert torch.equal(mirrored.codes, -value.codes)
        delta = get(name).build(weight).delta(weight)
        assert torch.equal(value.codes != 0, (weight.abs() > delta).expand(shape))
        assert torch.equal(value.codes.sign() * weight.sign() >= 0, torch.ones(shape, dtype=torch.bool))

    @pytest.mark.parametrize("shape", SHAPES)
    def test_forward_is_the_dequantized_value(self, name: str, shape: tuple[int, ...]) -> None:
        weight = random_weight(*shape)
        ternarizer = get(name).build(weight).eval()  # in training a method may draw its codes
        assert torch.equal(ternarizer(weight), ternarizer.ternary(weight).dequantize())
        assert torch.equal(get(name).project(weight).codes, ternarizer.ternary(weight).codes)

    def test_zero_weights_give_zero_codes(self, name: str) -> None:
        weight = torch.zeros(3, 2, 3, 3)
        value, code = get(name).project(weight), int(name in ALWAYS_SIGNED)
        assert torch.equal(value.codes, torch.full_like(weight, code, dtype=torch.int8))
        assert torch.equal(value.dequantize(), code * value.expand(value.scale_pos).expand(3, 2, 3, 3))
        assert torch.equal(get(name).build(weight).eval()(weight), value.dequantize())
        assert value.codebook().ws.isfinite().all()

    @pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
    def test_rejects_weights_that_are_not_finite(self, name: str, bad: float) -> None:
        weight = random_weight(3, 4)
        ternarizer = get(name).build(weight)
        weight[1, 2] = bad
        for action in (get(name).project, get(name).build, ternarizer.ternary):
            with pytest.raises(UserError, match="1 of 12 weights are NaN or infinite"):
                action(weight)

    def test_rejects_what_is_no_float_weight(self, name: str) -> None:
        for action in (get(name).project, get(name).build):
            with pytest.raises(UserError, match=r"floating-point weights .* got torch.int8"):
                action(torch.ones(2, 2, dtype=torch.int8))
            with pytest.raises(UserError, match=r"without empty sides, got \[2, 0\]"):
                action(torch.ones(2, 0))

    def test_value_does_not_share_memory_with_training(self, name: str) -> None:
        weight = random_weight(3, 4)
        ternarizer = get(name).build(weight)
        value = ternarizer.ternary(weight)
        before = value.dequantize()
        with torch.no_grad():
            weight.mul_(-3)
            for parameter in ternarizer.parameters():
                parameter.mul_(2)
        assert torch.equal(value.dequantize(), before)


VARIANTS = [  # settings with code of their own
    TTQ(init="data", latent_gradient="straight-through"),
    BWN(latent_gradient="full"),
    DoReFa(weight_bits=2),
    FGQ(group_size=2, group="kernels", scales="separate"),
    FGQ(group_size=2, scales="separate", multipliers="power-of-two"),
    LSQ(per="channel"),
    Residual(thresholds=(0.05, 0.1)),
    TGA(latent_gradient="scaled"),
]
TRAINED = [
    *(pytest.param(get(name), id=name) for name in names()),
    *(pytest.param(each, id=repr(each)) for each in VARIANTS),
]


def network(method: Method) -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5))
    ternarize_(net, method)
    return net


def step(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    torch.manual_seed(1)  # for methods that draw their codes
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9)
    loss = net(x).square().mean()
    loss.backward()
    optimizer.step()
    return loss.detach()


@pytest.mark.parametrize("method", TRAINED)
class TestInTraining:
    x = random_weight(2, 3, 6, 6, seed=1)

    def test_state_dict_round_trip(self, method: Method) -> None:
        net, other = network(method), network(method)
        step(net, self.x)
        assert "0.parametrizations.weight.original" in net.state_dict()
        other.load_state_dict(net.state_dict())
        assert torch.equal(net.eval()(self.x), other.eval()(self.x))

    def test_deepcopy_is_independent_and_equal(self, method: Method) -> None:
        net = network(method)
        other = copy.deepcopy(net)
        assert torch.equal(step(net, self.x), step(other, self.x))
        assert torch.equal(net.eval()[4].weight, other.eval()[4].weight)
        step(net.train(), self.x)
        assert not torch.equal(latent_of(net[4]), latent_of(other[4]))

    def test_cached_projects_once_and_changes_nothing(self, method: Method) -> None:
        net = network(method)
        with parametrize.cached():
            assert net[0].weight is net[0].weight
            loss = net(self.x).square().mean()
        loss.backward()
        cached = latent_of(net[0]).grad
        other = network(method)
        other(self.x).square().mean().backward()
        assert torch.equal(cached, latent_of(other[0]).grad)

    def test_autocast_leaves_the_ternarizer_in_float32(self, method: Method) -> None:
        net = network(method)
        torch.manual_seed(1)
        exact = net[0].weight.clone()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            torch.manual_seed(1)
            assert torch.equal(net[0].weight, exact)
            loss = net(self.x).float().square().mean()
        loss.backward()
        assert all(parameter.grad.dtype == torch.float32 for parameter in net.parameters())

    def test_double_weights_stay_double(self, method: Method) -> None:
        weight = random_weight(4, 6).double()
        ternarizer = method.build(weight)
        assert ternarizer(weight).dtype == torch.float64
        if method.why_not_ternary is None:
            assert isinstance(ternarizer.ternary(weight), Ternary)

    @pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, on its way to the compiler
    def test_traces_into_one_graph_with_the_same_gradients(self, method: Method) -> None:
        torch.compiler.reset()  # every method counts as one recompilation of the same forward, and 8 are the limit
        net = network(method)
        compiled = torch.compile(copy.deepcopy(net), backend="aot_eager", fullgraph=True)
        for other in (net, compiled):
            torch.manual_seed(1)
            other(self.x).square().mean().backward()
        for a, b in zip(net.parameters(), compiled.parameters(), strict=True):
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-5, atol=1e-7)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_inductor_compiles_a_ternary_layer() -> None:
    layer = nn.Linear(16, 8)
    ternarize_(layer, get("ttq"))
    compiled = torch.compile(copy.deepcopy(layer), backend="inductor")
    x = random_weight(4, 16)
    for each in (layer, compiled):
        each(x).square().mean().backward()
    torch.testing.assert_close(compiled(x), layer(x))
    for a, b in zip(layer.parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_ternarizer_shows_its_method() -> None:
    layer = nn.Linear(4, 4)
    ternarize_(layer, get("twn", per="channel"))
    assert "TWN(threshold_factor=0.7, per='channel')" in repr(ternarizer_of(layer))
