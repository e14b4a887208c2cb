"""Making networks ternary and back: what is touched, what stays, and every way to ask for something wrong."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from tritkit import surgery
from tritkit.errors import UnsupportedError, UserError
from tritkit.methods import TTQ, TWN
from tritkit.surgery import (
    freeze_codes_,
    latent_of,
    named_ternary,
    param_groups,
    reestimate_bn_,
    snap_scales_,
    strip_,
    ternarize_,
    ternarizer_of,
    ternary_layers,
)


class Small(nn.Module):
    """conv1, two convolutions in layer1, and a classifier; 3x6x6 in, 5 out."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv1 = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        self.layer1 = nn.Sequential(
            nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4, momentum=0.3), nn.ReLU(), nn.Conv2d(4, 4, 1)
        )
        self.dropout = nn.Dropout(0.5)
        self.linear = nn.Linear(4 * 36, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(self.dropout(self.layer1(self.bn1(self.conv1(x))).flatten(1)))


X = torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(7))


class TestTernarize:
    def test_takes_every_layer_unless_told(self) -> None:
        net = Small()
        names = ternarize_(net, TWN())
        assert names == ["conv1", "layer1.0", "layer1.3", "linear"]
        assert list(ternary_layers(net)) == names

    @pytest.mark.parametrize(
        ("include", "exclude", "expected"),
        [
            (None, ["conv1", "linear"], ["layer1.0", "layer1.3"]),
            (None, "layer1.*", ["conv1", "linear"]),
            ("layer1.*", (), ["layer1.0", "layer1.3"]),
            (["conv1", "layer1.[0-2]"], (), ["conv1", "layer1.0"]),
            ("*", lambda name, layer: isinstance(layer, nn.Conv2d), ["linear"]),
            (lambda name, layer: name.endswith("0"), (), ["layer1.0"]),
            (("linear", "conv1"), ["conv1"], ["linear"]),
        ],
    )
    def test_selection(self, include: Any, exclude: Any, expected: list[str]) -> None:
        assert ternarize_(Small(), TWN(), include=include, exclude=exclude) == expected

    def test_weights_become_ternary_and_latents_stay(self) -> None:
        net = Small()
        parameter, before = net.conv1.weight, net.conv1.weight.detach().clone()
        ternarize_(net, TWN())
        assert latent_of(net.conv1) is parameter
        assert torch.equal(parameter, before)
        assert torch.equal(net.conv1.weight, TWN().project(before).dequantize())
        assert net.conv1.weight.unique().numel() == 3

    def test_a_single_layer_is_a_network(self) -> None:
        layer = nn.Linear(4, 3)
        assert ternarize_(layer, TTQ()) == [""]
        assert [name for name, _, _ in named_ternary(layer)] == [""]
        assert strip_(layer) == [""]

    def test_two_methods_in_one_network(self) -> None:
        net = Small()
        ternarize_(net, TTQ(), include="layer1.*")
        ternarize_(net, TWN(), include="linear")
        kinds = [type(ternarizer_of(layer).method) for layer in ternary_layers(net).values()]
        assert kinds == [TTQ, TTQ, TWN]

    def test_tied_weights_stay_tied(self) -> None:
        net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
        net[1].weight = net[0].weight
        ternarize_(net, TWN())
        assert latent_of(net[0]) is latent_of(net[1])


class Odd(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 1)
        self.up = nn.ConvTranspose2d(2, 2, 2)
        self.audio = nn.Conv1d(2, 2, 3)
        self.volume = nn.Conv3d(2, 2, 3)
        self.block = nn.Sequential(nn.Linear(2, 2))


class TestTernarizeMistakes:
    @pytest.mark.parametrize(
        ("include", "exclude", "message"),
        [
            ("conv2", (), r"include: 'conv2' matches no .* did you mean 'conv1'"),
            (None, ["lineer"], "exclude: 'lineer' matches no .* did you mean 'linear'"),
            ("stem.*", (), r"include: 'stem.\*' matches no Conv2d or Linear layer"),
            (None, "layer1", r"exclude: 'layer1' is a Sequential, not a layer; write 'layer1.\*'"),
            (None, "bn1", "exclude: 'bn1' is a BatchNorm2d; only Conv2d and Linear"),
            ("conv1", "conv1", "no layer is left .* 4 Conv2d and Linear .* takes 1 and exclude leaves out 1"),
            (lambda name, layer: False, (), "no layer is left .* include takes 0"),
            ([], (), "include takes 0"),
        ],
    )
    def test_selection(self, include: Any, exclude: Any, message: str) -> None:
        net = Small()
        with pytest.raises(UserError, match=message):
            ternarize_(net, TWN(), include=include, exclude=exclude)
        assert not ternary_layers(net)

    @pytest.mark.parametrize(("name", "kind"), [("up", "ConvTranspose2d"), ("audio", "Conv1d"), ("volume", "Conv3d")])
    def test_unsupported_layers_are_named_only_when_asked_for(self, name: str, kind: str) -> None:
        with pytest.raises(UnsupportedError, match=f"include: '{name}' is a {kind}; only Conv2d and Linear"):
            ternarize_(Odd(), TWN(), include=["conv", name])
        assert ternarize_(Odd(), TWN()) == ["conv", "block.0"]

    def test_twice_is_refused_and_changes_nothing(self) -> None:
        net = Small()
        ternarize_(net, TTQ(), include="linear")
        with pytest.raises(UserError, match=r"layer 'linear' is ternary already \(TTQ\(.*exclude it or strip_"):
            ternarize_(net, TWN())
        assert list(ternary_layers(net)) == ["linear"]

    def test_weight_norm_is_refused(self) -> None:
        net = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)))
        with pytest.raises(UserError, match="weight of layer '0' is no plain parameter"):
            ternarize_(net, TWN())

    def test_bad_weights_are_refused_before_anything_changes(self) -> None:
        net = Small()
        with torch.no_grad():
            net.linear.weight[0, 0] = float("nan")
        with pytest.raises(UserError, match="layer 'linear': 1 of 720 weights are NaN"):
            ternarize_(net, TWN())
        assert not ternary_layers(net)

    def test_lazy_layers_are_refused(self) -> None:
        with pytest.raises(UserError, match="layer '0' is lazy"):
            ternarize_(nn.Sequential(nn.LazyLinear(4)), TWN())

    def test_nan_in_training_is_reported_with_the_layer(self) -> None:
        net = Small()
        ternarize_(net, TTQ())
        with torch.no_grad():
            latent_of(net.linear)[0, 0] = float("inf")
        with pytest.raises(UserError, match="layer 'linear': 1 of 720 weights"):
            list(named_ternary(net))


class TestStrip:
    @pytest.mark.parametrize("method", [TTQ(init="data"), TWN()])
    def test_ternary_values_remain(self, method: Any) -> None:
        net = Small().eval()
        keys = set(net.state_dict())
        names = ternarize_(net, method)
        expected = net(X)
        assert strip_(net) == names
        assert torch.equal(net(X), expected)
        assert set(net.state_dict()) == keys
        assert type(net.conv1) is nn.Conv2d
        assert isinstance(net.conv1.weight, nn.Parameter)

    def test_latents_come_back(self) -> None:
        net = Small()
        original = copy.deepcopy(net.state_dict())
        ternarize_(net, TTQ())
        strip_(net, keep="latent")
        for key, value in net.state_dict().items():
            assert torch.equal(value, original[key])

    @pytest.mark.parametrize("keep", ["ternary", "latent"])
    def test_a_copy_and_its_original_are_stripped_each_on_its_own(self, keep: Any) -> None:
        net = Small().eval()
        names = ternarize_(net, TTQ())
        copied, expected = copy.deepcopy(net), net(X)
        strip_(copied, keep)
        assert torch.equal(net(X), expected)
        assert list(ternary_layers(net)) == names
        assert not ternary_layers(copied)
        assert ternarize_(copied, TTQ()) == names
        strip_(net)
        assert torch.equal(net(X), expected)
        assert list(ternary_layers(copied)) == names

    def test_mistakes(self) -> None:
        net = Small()
        with pytest.raises(UserError, match="no ternary layer; call ternarize_ first"):
            strip_(net)
        ternarize_(net, TWN())
        with pytest.raises(UserError, match="keep must be 'ternary' or 'latent', got 'float'"):
            strip_(net, keep="float")  # type: ignore[arg-type]
        parametrize.register_parametrization(net.conv1, "weight", nn.Identity())
        with pytest.raises(UserError, match="layer 'conv1' has other parametrizations"):
            strip_(net)

    def test_a_float_layer_has_no_latent(self) -> None:
        assert ternarizer_of(nn.Linear(2, 2)) is None
        with pytest.raises(UserError, match="Linear is not a ternary layer"):
            latent_of(nn.Linear(2, 2))


class TestParamGroups:
    def test_every_parameter_once(self) -> None:
        net = Small()
        ternarize_(net, TTQ(), exclude="conv1")
        groups = {group["name"]: group for group in param_groups(net, 0.1, 2e-4, scale_lr=0.01)}
        shapes = {name: sorted(tuple(p.shape) for p in group["params"]) for name, group in groups.items()}
        assert shapes == {
            "weights": [(4, 3, 3, 3), (4, 4, 1, 1), (4, 4, 3, 3), (5, 144)],
            "scales": [(1,)] * 6,
            "no_decay": [(4,)] * 6 + [(5,)],
        }
        assert sum(len(group["params"]) for group in groups.values()) == len(list(net.parameters()))
        settings = {name: (group["lr"], group["weight_decay"]) for name, group in groups.items()}
        assert settings == {"weights": (0.1, 2e-4), "scales": (0.01, 0.0), "no_decay": (0.1, 0.0)}
        torch.optim.SGD(groups.values(), momentum=0.9)

    def test_without_scales_and_frozen_parameters(self) -> None:
        net = Small()
        ternarize_(net, TWN())
        assert [group["name"] for group in param_groups(net, 0.1, 0.0)] == ["weights", "no_decay"]
        freeze_codes_(net)
        assert [group["name"] for group in param_groups(net, 0.1, 0.0)] == ["no_decay"]

    def test_scales_follow_the_learning_rate_and_may_decay(self) -> None:
        net = Small()
        ternarize_(net, TTQ())
        scales = param_groups(net, 0.1, 2e-4, scale_weight_decay=1e-3)[1]
        assert (scales["lr"], scales["weight_decay"]) == (0.1, 1e-3)


class TestScalesAndCodes:
    def trained(self) -> Small:
        net = Small()
        ternarize_(net, TTQ(), exclude="conv1")
        optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
        net(X).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        return net

    def test_snapped_scales_are_on_the_grid(self) -> None:
        net = self.trained()
        codes = {name: value.codes for name, _, value in named_ternary(net)}
        changed = snap_scales_(net)
        assert changed
        assert snap_scales_(net) == []
        for name, layer, value in named_ternary(net):
            book = value.codebook()
            assert torch.equal(value.codes, codes[name])
            assert torch.equal(book.ws[0] * book.p[0], value.scale_pos)
            assert torch.equal(book.ws[0] * book.n[0], value.scale_neg)
            assert torch.equal(layer.weight, value.dequantize())

    def test_symmetric_methods_are_on_the_grid(self) -> None:
        net = Small()
        ternarize_(net, TWN(per="channel"))
        assert snap_scales_(net) == []

    def test_computed_scales_cannot_be_set(self) -> None:
        layer = nn.Linear(4, 4)
        ternarize_(layer, TWN())
        with pytest.raises(UserError, match="twn computes its scales from the latent weights"):
            ternarizer_of(layer).set_scales_(torch.ones(1), torch.ones(1))

    def test_frozen_codes_do_not_change_while_scales_train(self) -> None:
        net = self.trained()
        net(X).square().mean().backward()  # leaves gradients behind, which an optimizer would still apply
        assert freeze_codes_(net) == ["layer1.0", "layer1.3", "linear"]
        before = {name: value for name, _, value in named_ternary(net)}
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1, weight_decay=0.1)
        net(X).square().mean().backward()
        optimizer.step()
        for name, _, value in named_ternary(net):
            assert torch.equal(value.codes, before[name].codes)
        assert all(latent_of(layer).grad is None for layer in ternary_layers(net).values())
        assert any(float(v.scale_pos) != float(before[n].scale_pos) for n, _, v in named_ternary(net))
        with pytest.raises(UserError, match="no ternary layer"):
            freeze_codes_(nn.Linear(2, 2))


def flags(net: nn.Module) -> list[tuple[bool, Any]]:
    return [(module.training, getattr(module, "momentum", None)) for module in net.modules()]


class TestReestimate:
    def test_statistics_are_the_plain_average_over_batches(self) -> None:
        net = Small().train()
        net.layer1.eval()
        before = flags(net)
        batches = list(torch.randn(3, 4, 3, 6, 6, generator=torch.Generator().manual_seed(1)))
        reestimate_bn_(net, iter([(batches[0], 1), [batches[1]], batches[2]]))
        assert flags(net) == before
        outputs = [net.conv1(batch).detach().numpy() for batch in batches]  # the first norm's input
        mean = sum(y.mean(axis=(0, 2, 3)) for y in outputs) / 3
        variance = sum(_unbiased(y) for y in outputs) / 3
        torch.testing.assert_close(net.bn1.running_mean, torch.from_numpy(mean))
        torch.testing.assert_close(net.bn1.running_var, torch.from_numpy(variance))
        assert int(net.bn1.num_batches_tracked) == 3

    def test_other_layers_run_as_in_evaluation(self) -> None:
        net = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(3))
        x = torch.randn(50, 3, generator=torch.Generator().manual_seed(1))
        reestimate_bn_(net.train(), [x])
        torch.testing.assert_close(net[1].running_mean, x.mean(0))
        assert net[0].training

    def test_an_error_restores_everything(self) -> None:
        net = Small()
        net(X)
        before, state = flags(net), copy.deepcopy(net.state_dict())
        with pytest.raises(RuntimeError):
            reestimate_bn_(net, [X, torch.ones(1, 2, 3)])
        with pytest.raises(UserError, match="batches is empty"):
            reestimate_bn_(net, iter(()))
        assert flags(net) == before
        for key, value in net.state_dict().items():
            assert torch.equal(value, state[key])

    @pytest.mark.parametrize("norm", [nn.Identity(), nn.BatchNorm1d(4, track_running_stats=False)])
    def test_nothing_to_estimate(self, norm: nn.Module) -> None:
        with pytest.raises(UserError, match="no batch norm with running statistics"):
            reestimate_bn_(nn.Sequential(nn.Linear(4, 4), norm), [torch.ones(2, 4)])


def _unbiased(y: Any) -> Any:
    count = y.size // y.shape[1]
    return y.var(axis=(0, 2, 3)) * count / (count - 1)


def test_public_names() -> None:
    assert all(hasattr(surgery, name) for name in surgery.__all__)
