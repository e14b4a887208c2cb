"""Observers, the quantizer's formula and gradient, and where quantizers are placed."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import tritkit
from tritkit.activations import FakeQuantize, quantizers
from tritkit.errors import UnsupportedError, UserError
from tritkit.observers import MSE, MinMax, Percentile, Range, quant_params


def _truth(x: np.ndarray, scale: float, zero: int) -> np.ndarray:
    """The contract's two formulas in NumPy float32."""
    codes = np.clip(np.rint(x.astype(np.float32) / np.float32(scale)) + zero, 0, 255)
    return ((codes - zero) * np.float32(scale)).astype(np.float32)


@pytest.mark.parametrize(
    ("low", "high", "zero"), [(0.0, 2.55, 0), (-1.0, 1.55, 100), (-2.55, 0.0, 255), (0.5, 5.1, 0), (-5.1, -1.0, 255)]
)
def test_range_is_widened_to_hold_zero(low: float, high: float, zero: int) -> None:
    params = quant_params(low, high)
    assert params.zero_point == zero
    assert params.scale == pytest.approx((max(high, 0) - min(low, 0)) / 255, rel=1e-6)
    assert params.scale == float(np.float32(params.scale))


def test_constant_zero_tensor_has_a_harmless_scale() -> None:
    assert quant_params(0.0, 0.0) == (float(np.float32(1 / 255)), 0)


@pytest.mark.parametrize("ends", [(float("nan"), 1.0), (0.0, float("inf")), (2.0, 1.0)])
def test_impossible_range_is_refused(ends: tuple[float, float]) -> None:
    with pytest.raises(UserError, match="not finite"):
        quant_params(*ends)


def test_quantizer_equals_the_formula_bit_for_bit() -> None:
    q = FakeQuantize().eval()
    q.set_range(-1.3, 2.9)
    step = float(q.scale)
    x = torch.cat([torch.randn(4000, generator=torch.Generator().manual_seed(0)) * 2, torch.arange(-9, 9) * step / 2])
    assert np.array_equal(q(x).numpy(), _truth(x.numpy(), step, int(q.zero_point)))


@pytest.mark.parametrize(("low", "high"), [(0.0, 2.9), (-1.3, 2.9), (-2.0, 0.0)])
def test_training_has_the_bits_of_the_fused_kernel(low: float, high: float) -> None:
    q = FakeQuantize().train()
    q.set_range(low, high)
    q.freeze()
    x = 2 * torch.randn(4, 8, 16, 16, generator=torch.Generator().manual_seed(0))
    x = x.to(memory_format=torch.channels_last)
    ours, fused = x.clone().requires_grad_(), x.clone().requires_grad_()
    y, truth = q(ours), torch.fake_quantize_per_tensor_affine(fused, q.scale, q.zero_point, 0, 255)
    assert type(y.grad_fn).__name__ == "_StraightThroughBackward"  # it is the fast path that has them
    assert torch.equal(y, truth)
    for values in (y, truth):
        (values * x).sum().backward()
    assert ours.grad is not None
    assert fused.grad is not None
    assert torch.equal(ours.grad, fused.grad)
    assert 0 < int((ours.grad == 0).sum()) < x.numel()


@pytest.mark.parametrize("percent", [100, 99.99, 99.7, 90, 51])
@pytest.mark.parametrize("count", [1, 2, 3, 100, 65_536])
def test_percentiles_have_the_bits_of_torch_quantile(percent: float, count: int) -> None:
    x = torch.randn(count, generator=torch.Generator().manual_seed(1)).relu() - 0.1
    tail = (100 - percent) / 100
    truth = torch.quantile(x, torch.tensor([tail, 1 - tail], dtype=torch.float32))
    assert Percentile(percent).batch_range(x) == tuple(truth.tolist())
    x[count // 2] = torch.nan
    assert all(np.isnan(Percentile(percent).batch_range(x)))


def test_gradient_passes_inside_the_range_only() -> None:
    q = FakeQuantize().train()
    q.set_range(0.0, 2.55)
    q.freeze()
    x = torch.tensor([-1.0, 0.004, 1.0, 2.54, 3.0], requires_grad=True)
    q(x).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0, 1, 1, 1, 0]


def test_range_follows_slowly_in_training_until_frozen() -> None:
    q = FakeQuantize(MinMax(), momentum=0.5).train()
    q.set_range(0.0, 2.0)
    q(torch.tensor([0.0, 4.0]))
    assert q.bounds.tolist() == [0.0, 3.0]
    q.freeze()
    q(torch.tensor([0.0, 40.0]))
    assert q.bounds.tolist() == [0.0, 3.0]
    q.eval()
    q.freeze(False)
    q(torch.tensor([0.0, 40.0]))
    assert q.bounds.tolist() == [0.0, 3.0], "evaluation must not move the range"


def test_observers_choose_what_they_say() -> None:
    x = torch.cat([torch.linspace(-1, 1, 9_999), torch.tensor([100.0])])
    assert MinMax().batch_range(x) == (-1.0, 100.0)
    low, high = Percentile(99.9).batch_range(x)
    assert -1.0 <= low < -0.99
    assert 0.99 < high < 1.01
    gauss = torch.randn(60_000, generator=torch.Generator().manual_seed(1))
    low, high = MSE().batch_range(gauss)
    assert high < gauss.max(), "clipping a little lowers the error of a Gaussian"
    # the choice is the best of its own candidates, computed here without its code
    errors = []
    for ratio in [1 - i * 0.7 / 32 for i in range(32)]:
        lo, hi = float(gauss.min()) * ratio, float(gauss.max()) * ratio
        scale = np.float32((hi - lo) / 255)
        simulated = _truth(gauss.numpy(), scale, round(-lo / scale))
        errors.append((np.square(simulated - gauss.numpy()).mean(), hi))
    assert high == pytest.approx(min(errors)[1], rel=1e-5)


def test_batches_are_joined() -> None:
    widest, mean = Range(MinMax()), Range(Percentile(100))
    for top in (1.0, 3.0, 2.0):
        widest.update(torch.tensor([0.0, top]))
        mean.update(torch.tensor([0.0, top]))
    assert (widest.low, widest.high) == (0.0, 3.0)
    assert mean.high == pytest.approx(2.0)
    with pytest.raises(UserError, match="no data"):
        Range(MinMax()).quant()


class _Block(nn.Module):
    """conv-bn-relu, residual with a functional relu, pool, classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(8)
        self.linear = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)) + x)
        x = F.adaptive_avg_pool2d(F.max_pool2d(x, 2), 1)
        return self.linear(torch.flatten(x, 1))


def _images(n: int = 4) -> torch.Tensor:
    return torch.randn(n, 3, 8, 8, generator=torch.Generator().manual_seed(2))


def test_quantizers_stand_where_the_integer_network_has_u8() -> None:
    net = tritkit.quantize_activations(_Block())
    # the input, relu(bn1(conv1)), bn2(conv2), relu(add), the average pool; not the max pool, not the logits
    assert len(list(quantizers(net))) == 5
    ids = {id(p) for p in net.parameters()}
    assert len(ids) == 8


def test_containers_are_looked_into() -> None:
    inner = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU()))
    net = tritkit.quantize_activations(nn.Sequential(inner, nn.Flatten(), nn.Linear(64, 2)))
    assert len(list(quantizers(net))) == 3  # the input and both ReLUs
    # the input, the stem, 3 for each of 9 blocks (first convolution, second, their sum), the pool
    assert len(list(quantizers(tritkit.quantize_activations(tritkit.models.cifar_resnet(20))))) == 30


def test_copy_shares_parameters_and_state_dict_names() -> None:
    block = _Block()
    net = tritkit.quantize_activations(block)
    extra = set(net.state_dict()) - set(block.state_dict())
    assert set(block.state_dict()) <= set(net.state_dict())
    assert all(name.startswith("activation_quantizers.") for name in extra)
    with torch.no_grad():
        block.linear.bias.fill_(7)
    assert net.linear.bias is block.linear.bias


def test_calibration_then_state_dict_round_trip() -> None:
    net = tritkit.quantize_activations(_Block()).eval()
    x = _images()
    before = net(x)
    tritkit.calibrate(net, [x, (x, torch.zeros(4))])
    after = net(x)
    assert not torch.equal(before, after)
    torch.testing.assert_close(before, after, atol=0.1, rtol=0.1)
    other = tritkit.quantize_activations(_Block()).eval()
    other.load_state_dict(net.state_dict())
    assert torch.equal(other(x), after)
    assert torch.equal(copy.deepcopy(net)(x), after)


def test_training_with_quantizers_learns() -> None:
    torch.manual_seed(0)
    net = tritkit.quantize_activations(_Block()).train()
    y = torch.arange(32) % 5
    x = _images(32) + y.view(-1, 1, 1, 1)  # something to learn
    tritkit.calibrate(net, [x])
    assert net.training
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    losses = []
    for _ in range(30):
        loss = F.cross_entropy(net(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    tritkit.freeze_(net)
    assert all(q.frozen for _, q in quantizers(net))


@pytest.mark.parametrize(
    ("batches", "says"),
    [
        ([], "no batch"),
        ([torch.full((2, 3, 8, 8), float("nan"))], "NaN"),
        ([torch.zeros(0, 3, 8, 8)], "empty"),
        ([torch.zeros(2, 3, 8, 8, dtype=torch.uint8)], "uint8"),
    ],
)
def test_bad_calibration_data_is_named_and_changes_nothing(batches: list[torch.Tensor], says: str) -> None:
    net = tritkit.quantize_activations(_Block())
    with pytest.raises(UserError, match=says):
        tritkit.calibrate(net, batches)
    assert net.training
    assert all(not q.ready and q.seen is None for _, q in quantizers(net))


def test_mistakes_are_named() -> None:
    with pytest.raises(UserError, match="quantize_activations"):
        tritkit.calibrate(_Block(), [_images()])
    with pytest.raises(UserError, match="no activation quantizers"):
        tritkit.freeze_(_Block())
    net = tritkit.quantize_activations(_Block())
    with pytest.raises(UserError, match="already"):
        tritkit.quantize_activations(net)

    class Dynamic(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(UnsupportedError, match=r"Dynamic cannot be traced.*export"):
        tritkit.quantize_activations(Dynamic())
