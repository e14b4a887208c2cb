"""The networks: shapes, published weights with their published errors, traceability, refusals."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from tritkit.data import ImageSet, load_cifar10
from tritkit.errors import ModelFileError, UserError
from tritkit.models import build, cifar_resnet, load_float
from tritkit.train import evaluate

_ROOTS = [Path(os.environ.get("TRITKIT_DATA", "/nowhere")), Path(__file__).resolve().parents[3] / "shared" / "data"]


def _published(depth: int) -> Path:
    for root in _ROOTS:
        path = root / "pretrained" / f"resnet{depth}-cifar10.safetensors"
        if path.is_file():
            return path
    pytest.skip("no published weights: set TRITKIT_DATA to the folder that holds pretrained/ and cifar10/")


@pytest.fixture(scope="module")
def test_images() -> ImageSet:
    _published(20)
    return load_cifar10(split="test")


# number of weights: He et al. 2015, table 6 prints 0.27, 0.46, 0.66, 0.85 million
@pytest.mark.parametrize(("depth", "parameters"), [(20, 269_722), (32, 464_154), (44, 658_586), (56, 853_018)])
def test_sizes(depth: int, parameters: int) -> None:
    net = cifar_resnet(depth)
    assert sum(p.numel() for p in net.parameters()) == parameters
    weighted = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(weighted) == depth


def test_shortcut_takes_every_second_pixel_and_pads_zero_channels_on_both_sides() -> None:
    block = cifar_resnet(8).layer2[0].eval()
    for conv in (block.conv1, block.conv2):
        nn.init.zeros_(conv.weight)  # leaves relu(shortcut(x))
    x = torch.arange(16 * 4 * 4, dtype=torch.float32).reshape(1, 16, 4, 4)
    y = block(x)
    assert y.shape == (1, 32, 2, 2)
    assert not y[:, :8].any()
    assert not y[:, 24:].any()
    for c, i, j in [(0, 0, 0), (3, 1, 0), (15, 1, 1)]:
        assert y[0, 8 + c, i, j] == x[0, c, 2 * i, 2 * j]


# the authors of the weights state these errors; a count of wrong images is exact
@pytest.mark.parametrize(("depth", "wrong"), [(20, 827), (56, 661)])
def test_published_weights_give_their_published_error(depth: int, wrong: int, test_images: ImageSet) -> None:
    net = cifar_resnet(depth)
    metadata = load_float(_published(depth), net)
    mean, std = ([float(v) for v in metadata[f"normalize_{k}"].split(",")] for k in ("mean", "std"))
    net = net.to(memory_format=torch.channels_last)
    assert round(evaluate(net, test_images, mean, std) * 10_000) == wrong


@pytest.mark.parametrize("depth", [32, 44])
def test_published_keys_fit_without_renaming(depth: int) -> None:
    net = cifar_resnet(depth)
    load_float(_published(depth), net)
    with safe_open(_published(depth), "pt") as file:
        assert torch.equal(net.state_dict()["layer3.1.conv2.weight"], file.get_tensor("layer3.1.conv2.weight"))


def test_traces_and_exports() -> None:
    torch.manual_seed(0)
    net = cifar_resnet(8).eval()
    x = torch.randn(2, 3, 32, 32)
    want = net(x)
    assert torch.equal(torch.fx.symbolic_trace(net)(x), want)
    assert torch.equal(torch.export.export(net, (x,)).module()(x), want)


@pytest.mark.parametrize("depth", [0, 2, 7, 21, -4])
def test_depth_must_be_6n_plus_2(depth: int) -> None:
    with pytest.raises(UserError, match="6n \\+ 2"):
        cifar_resnet(depth)


def test_build_names_what_is_allowed() -> None:
    assert len(build("cifar-resnet14", num_classes=7).linear.bias) == 7
    with pytest.raises(UserError, match="cifar-resnetD"):
        build("vgg16")


def test_weights_that_do_not_fit(tmp_path: Path) -> None:
    net = cifar_resnet(8)
    good = {k: v for k, v in net.state_dict().items() if not k.endswith("num_batches_tracked")}
    before = {k: v.clone() for k, v in net.state_dict().items()}
    spoilt = {
        "linear.weight has shape": {**good, "linear.weight": torch.zeros(10, 32)},
        "conv1.weight is missing": {k: v for k, v in good.items() if k != "conv1.weight"},
        "extra is not in the network": {**good, "extra": torch.zeros(1)},
        "bn1.bias has a value that is not finite": {**good, "bn1.bias": torch.full((16,), torch.nan)},
    }
    for sentence, tensors in spoilt.items():
        save_file(tensors, tmp_path / "w.safetensors")
        with pytest.raises(ModelFileError, match=sentence):
            load_float(tmp_path / "w.safetensors", net)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_weights_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no weights at"):
        load_float(tmp_path / "absent.safetensors", cifar_resnet(8))
    (tmp_path / "bad.safetensors").write_bytes(b"\xff" * 40)
    with pytest.raises(ModelFileError, match="not a readable safetensors file"):
        load_float(tmp_path / "bad.safetensors", cifar_resnet(8))
