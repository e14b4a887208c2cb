"""The ImageNet networks: sizes and keys of the published weights, shapes, traces, refusals."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tritkit.errors import UserError
from tritkit.models import alexnet, build, image_size, resnet, vgg16

# weights with biases and batch norms: torchvision's tables of its models; AlexNet by the layers of the published graph
SIZES = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "vgg16-bn": 138_365_992,
    "alexnet-bn": (3 * 144 * 96 + 96)
    + (48 * 25 * 256 + 512)
    + (256 * 9 * 384 + 768)
    + (192 * 9 * 384 + 768)
    + (192 * 9 * 256 + 512)
    + (9216 * 4096 + 8192)
    + (4096 * 4096 + 8192)
    + (4096 * 1000 + 1000),
}

# some keys and shapes of torchvision's files, one of each kind
KEYS = {
    "resnet18": {"conv1.weight": (64, 3, 7, 7), "layer2.0.downsample.0.weight": (128, 64, 1, 1), "fc.bias": (1000,)},
    "resnet50": {"layer1.0.downsample.1.running_var": (256,), "layer4.2.conv3.weight": (2048, 512, 1, 1)},
    "vgg16-bn": {
        "features.0.weight": (64, 3, 3, 3),
        "features.41.running_mean": (512,),
        "classifier.6.weight": (1000, 4096),
    },
}


@pytest.mark.parametrize("name", SIZES)
def test_size_and_keys(name: str) -> None:
    with torch.device("meta"):
        net = build(name)
    assert sum(p.numel() for p in net.parameters()) == SIZES[name]
    shapes = {key: tuple(value.shape) for key, value in net.state_dict().items()}
    assert {key: shapes[key] for key in KEYS.get(name, {})} == KEYS.get(name, {})


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "alexnet-bn", "vgg16-bn"])
def test_shapes_inside(name: str) -> None:
    with torch.device("meta"):
        net = build(name, num_classes=7).eval()
        size = image_size(name)
        planes = []
        for module in net.modules():
            if isinstance(module, nn.Conv2d | nn.MaxPool2d):
                module.register_forward_hook(lambda m, i, out: planes.append(out.shape[-1]))
        assert net(torch.empty(2, 3, size, size)).shape == (2, 7)
    distinct = list(dict.fromkeys(planes))
    expected = {"alexnet-bn": [54, 27, 14, 6], "vgg16-bn": [224, 112, 56, 28, 14, 7]}
    assert distinct == expected.get(name, [112, 56, 28, 14, 7])


def test_bottleneck_has_its_stride_on_the_3x3() -> None:
    with torch.device("meta"):
        block = resnet(50).layer2[0]
    assert (block.conv1.stride, block.conv2.stride, block.conv3.stride) == ((1, 1), (2, 2), (1, 1))


def test_small_images_pass_too() -> None:
    torch.manual_seed(0)
    assert resnet(18, 5)(torch.randn(2, 3, 64, 48)).isfinite().all()


def test_refusals() -> None:
    with pytest.raises(UserError, match="ResNet-20 here; allowed: 18, 34, 50, 101"):
        resnet(20)
    with pytest.raises(UserError, match=r"no model 'resnet19'; allowed: .*alexnet-bn, vgg16-bn"):
        build("resnet19")
    for make in (alexnet, vgg16, lambda n: resnet(18, n)):
        with pytest.raises(UserError, match="num_classes is 0"):
            make(0)
