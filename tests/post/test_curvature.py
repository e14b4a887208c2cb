"""What errors of a layer do to the network's outputs, against gradients taken one image at a time."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from small_residual import TERNARY, images
from torch import Tensor, nn

from tritkit.activations import quantize_activations
from tritkit.methods import FGQ
from tritkit.post import BETTER, LAYERWISE, DescendLogits, curvature, quantize, search
from tritkit.post.curvature import Curvature, curvatures
from tritkit.post.groups import Layout
from tritkit.post.layers import find_layers
from tritkit.post.moments import Share
from tritkit.post.steps import Fold
from tritkit.processes import ALONE

NORMS = ["block1.bn1", "block1.bn2", "block2.bn1", "block2.bn2", None]


def _measured(net: nn.Module, pictures: Tensor) -> dict[str, Curvature]:
    traced = quantize_activations(copy.deepcopy(net).eval())
    layers, _ = find_layers(traced, lambda name, _: name not in TERNARY)
    return curvatures(traced, layers, pictures, Share.of(pictures, ALONE))


def test_it_is_the_mean_of_gradients_of_single_images(small_net: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = images(5)
    directions = torch.randn(5, 10, generator=torch.Generator().manual_seed(1))
    monkeypatch.setattr(curvature, "_direction", lambda outputs, _: directions)
    monkeypatch.setattr(curvature, "VECTORS", 1)
    found = _measured(small_net, pictures)
    for name, norm in zip(TERNARY, NORMS, strict=True):
        gradients = _gradients(small_net, name, norm, pictures, directions)
        outputs = torch.stack([m @ m.T for m in gradients]).sum(dim=0)
        inputs = torch.stack([m.T @ m for m in gradients]).sum(dim=0)
        assert torch.allclose(found[name].outputs, outputs, rtol=1e-4, atol=1e-6)
        assert torch.allclose(found[name].inputs, inputs, rtol=1e-4, atol=1e-6)


def _gradients(net: nn.Module, name: str, norm: str | None, pictures: Tensor, directions: Tensor) -> list[Tensor]:
    """M of each image: of the weight behind its batch norm, its inputs without their mean."""
    net = copy.deepcopy(net)
    layer = net.get_submodule(name)
    assert isinstance(layer, nn.Conv2d)
    seen: list[Tensor] = []
    handle = layer.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].detach()))
    net(pictures)
    handle.remove()
    patches = F.unfold(seen[0], layer.kernel_size, 1, layer.padding, layer.stride)  # type: ignore[arg-type]
    mean = patches.mean(dim=(0, 2)).reshape(layer.weight[0].shape)
    found = []
    for picture, direction in zip(pictures, directions, strict=True):
        net.zero_grad()
        (net(picture[None])[0] * direction).sum().backward()
        assert layer.weight.grad is not None
        behind = net.get_submodule(norm) if norm is not None else layer
        assert isinstance(behind, nn.BatchNorm2d | nn.Conv2d)
        assert isinstance(behind.bias, Tensor)
        shift = behind.bias.grad
        assert shift is not None
        factor = torch.ones(len(shift))
        if isinstance(behind, nn.BatchNorm2d):
            assert behind.running_var is not None
            factor = behind.weight.detach() / (behind.running_var + behind.eps).sqrt()
        m = layer.weight.grad / factor[:, None, None, None] - shift[:, None, None, None] * mean
        found.append(m.permute(0, 2, 3, 1).flatten(1).double())
    return found


def test_many_rows_are_mixed_at_random_without_bias(small_net: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = _measured(small_net, images(512))["block2.conv2"]
    monkeypatch.setattr(curvature, "_SKETCH", 8)
    mixed = _measured(small_net, images(512))["block2.conv2"]
    for exact, drawn in ((whole.inputs, mixed.inputs), (whole.outputs, mixed.outputs)):
        assert 0 < float((exact - drawn).norm() / exact.norm()) < 0.2


@pytest.mark.parametrize("positions", [1, 3])
def test_rows_have_the_squares_of_the_products(positions: int) -> None:
    draw = torch.Generator().manual_seed(0)
    left, right = (torch.randn(4, n, positions, generator=draw, dtype=torch.float64) for n in (5, 7))
    rows = curvature._rows(left, right, None)
    products = [a @ b.T for a, b in zip(left, right, strict=True)]
    assert torch.allclose(rows.T @ rows, torch.stack([m.T @ m for m in products]).sum(dim=0))


@pytest.mark.parametrize("shape", [(64, 6), (64, 5, 6)], ids=["vectors", "tokens"])
def test_linear_layers_have_it_too(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4))
    x = torch.randn(*shape)
    layerwise, better = (quantize(net, FGQ(4), [x], steps=steps).state_dict() for steps in (LAYERWISE, BETTER))
    key = next(key for key in better if key.startswith("2.") and key.endswith("original"))
    assert not torch.equal(layerwise[key], better[key])


def test_directions_have_the_covariance_of_fisher() -> None:
    outputs = torch.tensor([[3.0, -1.0, 0.5]]).expand(200_000, 3)
    drawn = curvature._direction(outputs, torch.Generator().manual_seed(0))
    p = (outputs[0] / 4).softmax(0)
    assert torch.allclose(drawn.T @ drawn / len(drawn), p.diag() - torch.outer(p, p), atol=3e-3)
    assert float(curvature._direction(torch.zeros(50, 1), torch.Generator().manual_seed(0)).std()) > 0.5


@pytest.mark.parametrize("method", [FGQ(4), FGQ(64), FGQ(4, multipliers="power-of-two"), FGQ(3, "kernels", "separate")])
def test_descent_lowers_what_the_rows_do_together(method: FGQ) -> None:
    draw = torch.Generator().manual_seed(0)
    w, x, g = (torch.randn(*s, generator=draw, dtype=torch.float64) for s in ((24, 72), (300, 72), (30, 24)))
    h = x.T @ x / 300
    fold = Fold(Layout.of(method, torch.Size((24, 8, 3, 3))), w, h, w @ h, 0.0, Curvature(h, g.T @ g))
    for step in LAYERWISE.weights:
        step(fold)

    def change() -> float:
        gap = fold.taken().weights() - w
        return float(((g.T @ g) @ gap @ h * gap).sum())

    before, rows = change(), fold.taken()
    DescendLogits(layerwise=0)(fold)
    assert change() < 0.8 * before
    if method.multipliers == "power-of-two":
        steps = (rows.pos.amax(dim=1, keepdim=True) / fold.taken().pos).log2()
        assert torch.allclose(steps, steps.round())
    assert float(search.row_errors(w, fold.taken(), h).sum()) > float(search.row_errors(w, rows, h).sum())


def test_outputs_stay_closer_on_new_images(small_net: nn.Module) -> None:
    sure = copy.deepcopy(small_net)  # of its answers, so that softmax bends
    seen, new = images(256), images(512, seed=9)
    away = []
    with torch.no_grad():
        sure.get_parameter("linear.weight").mul_(30)
        wanted = sure(new).log_softmax(1)
        for steps in (LAYERWISE, BETTER):
            ours = quantize(sure, FGQ(4), [seen], steps=steps)(new).log_softmax(1)
            away.append(float((wanted.exp() * (wanted - ours)).sum(1).mean()))
    assert away[1] < 0.9 * away[0]


class _Two(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.net(x), x


def test_without_one_output_the_layers_alone_decide(small_net: nn.Module) -> None:
    both = [quantize(_Two(small_net), FGQ(4), [images(32)], steps=steps) for steps in (LAYERWISE, BETTER)]
    states = [net.state_dict() for net in both]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_it_works_where_gradients_are_off_and_weights_are_fixed(small_net: nn.Module) -> None:
    fixed = copy.deepcopy(small_net).requires_grad_(False)
    with torch.inference_mode():
        quiet = quantize(fixed, FGQ(4), [images(32)])
    loud = quantize(small_net, FGQ(4), [images(32)])
    states = quiet.state_dict(), loud.state_dict()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
