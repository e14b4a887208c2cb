"""Whole networks: what the steps gain, what the result is, and what is refused."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from small_residual import TERNARY, images, multipliers
from torch import Tensor, nn

import tritkit
from tritkit.activations import quantizers
from tritkit.errors import UnsupportedError, UserError
from tritkit.methods import FGQ, TWN
from tritkit.observers import MinMax, Range
from tritkit.post import (
    BETTER,
    FAITHFUL,
    Compensate,
    Faithful,
    MatchMoments,
    PowerOfTwo,
    Regress,
    Solve,
    Steps,
    count,
    quantize,
)
from tritkit.post.layers import find_layers
from tritkit.post.moments import Share, moments_of
from tritkit.processes import ALONE
from tritkit.runtime import Session


def _distance(net: nn.Module, quantized: nn.Module) -> float:
    fresh = images(64, seed=5)
    with torch.no_grad():
        wanted = net(fresh)
        return float((quantized(fresh) - wanted).square().mean() / wanted.var())


def test_the_better_steps_stay_nearer_to_the_float_network(small_net: nn.Module, pictures: Tensor) -> None:
    faithful = _distance(small_net, quantize(small_net, FGQ(8), [pictures], steps=FAITHFUL))
    better = _distance(small_net, quantize(small_net, FGQ(8), [pictures]))
    assert better < faithful


def test_the_better_steps_are_better_with_power_of_two_multipliers_too(small_net: nn.Module, pictures: Tensor) -> None:
    method = FGQ(4, multipliers="power-of-two")
    faithful, better = (
        _distance(small_net, quantize(small_net, method, [pictures], steps=s)) for s in (FAITHFUL, BETTER)
    )
    assert better < 0.5 * faithful


def test_the_result_is_deterministic_and_the_network_unchanged(small_net: nn.Module, pictures: Tensor) -> None:
    before = copy.deepcopy(small_net.state_dict())
    first, second = (quantize(small_net, FGQ(4), [pictures]).state_dict() for _ in range(2))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert all(torch.equal(before[key], value) for key, value in small_net.state_dict().items())


@pytest.mark.parametrize("method", [FGQ(4), FGQ(5, scales="separate"), FGQ(1 << 20, "kernels")], ids=repr)
@pytest.mark.parametrize("steps", [FAITHFUL, BETTER], ids=["faithful", "better"])
def test_the_file_runs_as_the_network_computes(
    method: FGQ, steps: Steps | Faithful, small_net: nn.Module, pictures: Tensor, tmp_path: Path
) -> None:
    quantized = quantize(small_net, method, [pictures], steps=steps)
    report = tritkit.export(quantized, tmp_path / "net.onnx", pictures[:8])
    kinds = [row["kind"] for row in report.layers]
    assert kinds == ["int8", *["ternary"] * 5, "int8"]
    with torch.no_grad():
        simulated = quantized(pictures).numpy()
    deployed = np.asarray(Session(tmp_path / "net.onnx").run(pictures.numpy()))
    assert np.abs(simulated - deployed).max() < 0.05 * np.abs(simulated).max()


def test_norm_statistics_and_shift_are_those_of_the_calibration_images(small_net: nn.Module, pictures: Tensor) -> None:
    """Behind the first ternary layer: the float mean in each channel; the regression equals NumPy's."""
    steps = Steps((Solve(), Compensate()), Regress())
    quantized = quantize(small_net, FGQ(4), [pictures], steps=steps)
    seen: dict[str, Tensor] = {}
    _watch(quantized.get_submodule("block1.conv1"), "conv", seen)
    _watch(quantized.get_submodule("block1.bn1"), "norm", seen)
    _watch(small_net.get_submodule("block1.bn1"), "float", seen)
    with torch.no_grad():
        quantized(pictures)
        small_net(pictures)
    channels = {name: value.transpose(0, 1).flatten(1).double().numpy() for name, value in seen.items()}
    for conv, norm, wanted in zip(channels["conv"], channels["norm"], channels["float"], strict=True):
        line, *_ = np.linalg.lstsq(np.stack([conv, np.ones_like(conv)], 1), wanted, rcond=None)
        assert np.allclose(norm, line[0] * conv + line[1], atol=1e-3)


def _watch(module: nn.Module, name: str, seen: dict[str, Tensor]) -> None:
    module.register_forward_hook(lambda m, x, y: seen.__setitem__(name, y.clone()))


def test_matched_moments_are_those_of_the_float_network(small_net: nn.Module, pictures: Tensor) -> None:
    quantized = quantize(small_net, FGQ(4), [pictures], steps=Steps((Compensate(),), MatchMoments()))
    seen: dict[str, Tensor] = {}
    _watch(quantized.get_submodule("block1.bn1"), "ours", seen)
    _watch(small_net.get_submodule("block1.bn1"), "float", seen)
    with torch.no_grad():
        quantized(pictures)
        small_net(pictures)
    for reduce in (torch.mean, torch.var):
        ours, wanted = (reduce(value.transpose(0, 1).flatten(1), 1) for value in (seen["ours"], seen["float"]))
        assert torch.allclose(ours, wanted, rtol=1e-2, atol=1e-3)


def test_moments_are_those_of_the_patches() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, (3, 2), stride=2, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 1))
    traced = tritkit.quantize_activations(net)
    (layer,), _ = find_layers(traced, exclude="2")
    x = images(8)
    with torch.no_grad():
        y = net[0](x)
    moments = moments_of(layer, x, y, Share.of(x, ALONE))
    w = layer.weight().permute(0, 2, 3, 1).flatten(1).double()
    channels = y.transpose(0, 1).flatten(1).double()
    assert moments.count == channels.shape[1]
    assert torch.allclose(moments.t_mean, channels.mean(1), atol=1e-5)
    assert torch.allclose(moments.variance(w), channels.var(1, correction=0), rtol=1e-4)
    assert torch.allclose(moments.error(w), torch.zeros(4, dtype=torch.float64), atol=1e-4)


def test_layers_without_batch_norm_and_linear_layers(pictures: Tensor, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding="same", bias=False), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 24), nn.BatchNorm1d(24, affine=False), nn.ReLU(),
        nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, 4),
    ).eval()  # fmt: skip
    quantized = quantize(net, FGQ(4), [pictures])
    assert _distance(net, quantized) < 0.5
    report = tritkit.export(quantized, tmp_path / "net.onnx", pictures[:2])
    assert [row["kind"] for row in report.layers] == ["int8", "ternary", "ternary", "ternary", "int8"]


@pytest.mark.parametrize("steps", [FAITHFUL, BETTER], ids=["faithful", "better"])
@pytest.mark.parametrize("scales", ["shared", "separate"])
def test_power_of_two_multipliers_reach_the_file(
    scales: str, steps: Steps | Faithful, small_net: nn.Module, pictures: Tensor, tmp_path: Path
) -> None:
    method = FGQ(2, scales=scales, multipliers="power-of-two")  # type: ignore[arg-type]
    quantized = quantize(small_net, method, [pictures], steps=steps)
    tritkit.export(quantized, tmp_path / "net.onnx", pictures[:8])
    found = multipliers(tmp_path / "net.onnx")
    assert found <= {1, 2, 4, 8, 16, 32, 64}
    assert len(found) > 3


def test_power_of_two_activations(small_net: nn.Module, pictures: Tensor) -> None:
    quantized = quantize(small_net, FGQ(4), [pictures], steps=Faithful(PowerOfTwo()))
    found = [(float(q.scale), int(q.zero_point)) for _, q in quantizers(quantized)]
    assert found
    for scale, zero in found:
        assert np.log2(scale) == round(np.log2(scale))
        assert zero in (0, 128)


@pytest.mark.parametrize(
    ("values", "scale", "zero"), [([0.0, 1.0], 2**-8, 0), ([0.0, 1.01], 2**-7, 0), ([-3.9, 1.0], 2**-5, 128)]
)
def test_power_of_two_range(values: list[float], scale: float, zero: int) -> None:
    seen = Range(PowerOfTwo(MinMax()))
    seen.update(torch.tensor(values))
    assert seen.quant() == (scale, zero)


def test_counts_are_the_papers(small_net: nn.Module, pictures: Tensor) -> None:
    counts = count(quantize(small_net, FGQ(4), [pictures], steps=FAITHFUL), pictures).facts()
    assert counts["ternary"]["removed"] == 0.75
    assert counts["ternary"]["bits_a_weight"] == 2 + 8 / 4
    rows = {row["name"]: row for row in counts["layers"]}
    assert list(rows) == ["first", *TERNARY, "linear"]
    assert rows["first"]["macs"] == rows["first"]["multiplications"] == 12 * 12 * 8 * 27
    assert rows["block2.conv1"]["macs"] == 6 * 6 * 16 * 8 * 9
    assert rows["block2.conv1"]["multiplications"] == 6 * 6 * 16 * 2 * 9
    macs = sum(row["macs"] for row in rows.values())
    assert counts["all"]["removed"] == 1 - sum(row["multiplications"] for row in rows.values()) / macs
    layer = rows["block1.conv1"]
    assert layer["additions"] == round(layer["density"] * layer["macs"])


def test_64_whole_groups_remove_98_percent() -> None:
    net = nn.Sequential(nn.Conv2d(3, 64, 1), nn.ReLU(), nn.Conv2d(64, 64, 3), nn.ReLU(), nn.Conv2d(64, 2, 1))
    counts = count(quantize(net, FGQ(64), [images()], steps=FAITHFUL), images()).facts()
    assert counts["ternary"]["removed"] == 1 - 1 / 64


@pytest.mark.parametrize(
    ("loader", "words"),
    [
        ([], "0 images"),
        ([images(3)], "3 images"),
        ([torch.full((32, 3, 12, 12), 0.5)], "are the same"),
        ([torch.arange(32.0)[:, None, None, None].expand(32, 3, 12, 12)], "constant value"),
        ([images(32) * float("nan")], "NaN"),
        ([images(32), images(32, 9)], "different shapes"),
        ([images(32)[:, :2]], "cannot take"),
        ([torch.zeros(32, 3, 12, 12, dtype=torch.uint8)], "uint8"),
        (["pictures"], "str"),
    ],
)
def test_bad_images_are_refused(loader: list[object], words: str, small_net: nn.Module) -> None:
    with pytest.raises(UserError, match=words):
        quantize(small_net, FGQ(4), loader)


class _Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.middle, self.last = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.middle(self.middle(self.first(x)).relu()))  # type: ignore[no-any-return]


def _tied() -> nn.Module:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 2, 1))
    net[3].weight = net[1].weight
    return net


@pytest.mark.parametrize(
    ("net", "words"),
    [
        (_Twice(), "'middle' runs 2 times"),
        (_tied(), "shares its weight"),
        (nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, groups=2), nn.Conv2d(4, 2, 1)), "in 2 groups"),
        (
            nn.Sequential(
                nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"), nn.Conv2d(4, 2, 1)
            ),
            "circular",
        ),
    ],
)
def test_networks_that_cannot_be_fitted_are_refused(net: nn.Module, words: str, pictures: Tensor) -> None:
    with pytest.raises(UnsupportedError, match=words):
        quantize(net, FGQ(4), [pictures])


def test_all_layers_that_must_be_excluded_are_named_at_once(pictures: Tensor, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, groups=2), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(),
        nn.Conv2d(4, 4, 3, groups=4), nn.ReLU(), nn.Conv2d(4, 2, 1),
    ).eval()  # fmt: skip
    with pytest.raises(UnsupportedError, match=r"'2' is a convolution in 2 groups.*'6' is .* 4 groups.*exclude 2, 6$"):
        quantize(net, FGQ(4), [pictures])
    report = tritkit.export(
        quantize(net, FGQ(4), [pictures], exclude=["0", "8", "2", "6"]), tmp_path / "net.onnx", pictures[:2]
    )
    assert [row["kind"] for row in report.layers] == ["int8", "int8", "ternary", "int8", "int8"]


def test_other_mistakes_are_refused(small_net: nn.Module, pictures: Tensor) -> None:
    with pytest.raises(UserError, match="takes FGQ"):
        quantize(small_net, TWN(), [pictures])
    with pytest.raises(UserError, match="matches no"):
        quantize(small_net, FGQ(4), [pictures], exclude=["layer9.*"])
    with pytest.raises(UserError, match="no layer is left"):
        quantize(small_net, FGQ(4), [pictures], exclude="*")
    with pytest.raises(UserError, match="add Nearest or Compensate"):
        quantize(small_net, FGQ(4), [pictures], steps=Steps((Solve(),), Regress()))
    with pytest.raises(UserError, match="no Conv2d or Linear"):
        quantize(nn.ReLU(), FGQ(4), [pictures])


def test_progress_names_every_layer(small_net: nn.Module, pictures: Tensor) -> None:
    calls: list[tuple[int, int, str]] = []
    quantize(small_net, FGQ(4), [pictures], steps=FAITHFUL, progress=lambda *args: calls.append(args))
    assert [call[:2] for call in calls] == [(k, 5) for k in range(5)]
    assert [call[2] for call in calls] == TERNARY
