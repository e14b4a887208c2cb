"""The later methods train, export like any ternary one and run to the same bits everywhere."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_binary_export import IMAGES, check_bits, network, train

import tritkit
from tritkit.errors import UnsupportedError
from tritkit.methods import LSQ, SEQ, TGA, AbsMean, Method, Residual, TGAWindow, TWNExact

METHODS = [AbsMean(), LSQ(), SEQ(), TGA(), TGAWindow(), TWNExact(per="channel"), Residual()]


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_trained_networks_run_bit_for_bit(method: Method, tmp_path: Path) -> None:
    net = network()
    tritkit.ternarize_(net, method)  # all layers, as the papers of TGA and residual expansion do
    train(net)
    assert tritkit.snap_scales_(net) == []  # one scale for both signs is always on the grid
    check_bits(net, tmp_path / "net.onnx", ["ternary", "ternary", "ternary"])
    assert all(0 < value.density < 1 for _, _, value in tritkit.named_ternary(net))


def test_a_sum_of_ternary_weights_is_refused_with_the_reason(tmp_path: Path) -> None:
    net = network()
    tritkit.ternarize_(net, Residual(thresholds=(0.05, 0.1)), exclude=["0"])
    train(net)
    reason = r"layer '3': the weight is the sum of 2 ternary ones \(one .*\); give it a policy, int8 or float32"
    with pytest.raises(UnsupportedError, match=reason):
        tritkit.export(net, tmp_path / "net.onnx", IMAGES[:1], calibration=[IMAGES])
    assert not list(tmp_path.iterdir())
