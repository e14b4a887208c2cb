"""Each method trains all layers of a network, exports, and runs to the same bits everywhere; or export says why not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from test_binary_export import IMAGES, check_bits, network, train

import tritkit
from tritkit.errors import UnsupportedError
from tritkit.methods import TTQ, TWN, Method, Residual, TWNExact, get, names

BINARY = {"binary-connect", "bwn", "dorefa"}  # run as ternary without zeros
FIELDS: dict[str, dict[str, Any]] = {"binary-connect": {"scale": "data"}, "ternary-connect": {"scale": "data"}}
METHODS = [
    *(get(name, **FIELDS.get(name, {})) for name in names()),
    TTQ(init="data", latent_gradient="straight-through"),
    TWN(per="channel"),
    TWNExact(per="channel"),
]


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_trained_networks_run_bit_for_bit(method: Method, tmp_path: Path) -> None:
    net = network()
    tritkit.ternarize_(net, method)  # all layers, as the papers of TGA and residual expansion do
    train(net)
    if method.name != "fgq":  # whose scales `export` puts on the grid of their channel
        assert bool(tritkit.snap_scales_(net)) is method.name.startswith("ttq")  # one scale for both signs is on it
    check_bits(net, tmp_path / "net.onnx", ["ternary", "ternary", "ternary"])
    densities = [value.density for _, _, value in tritkit.named_ternary(net)]
    assert all(density == 1 if method.name in BINARY else 0 < density < 1 for density in densities)


def test_a_sum_of_ternary_weights_is_refused_with_the_reason(tmp_path: Path) -> None:
    net = network()
    tritkit.ternarize_(net, Residual(thresholds=(0.05, 0.1)), exclude=["0"])
    train(net)
    reason = r"layer '3': the weight is the sum of 2 ternary ones \(one .*\); give it a policy, int8 or float32"
    with pytest.raises(UnsupportedError, match=reason):
        tritkit.export(net, tmp_path / "net.onnx", IMAGES[:1], calibration=[IMAGES])
    assert not list(tmp_path.iterdir())
