"""A published ResNet-20 made ternary in groups of four without training: the same bits from every engine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import tritkit
from tritkit import models
from tritkit.data import find_file, load_cifar10, normalise
from tritkit.deploy import Reference, from_onnx
from tritkit.errors import UserError
from tritkit.methods import FGQ
from tritkit.runtime import Session, kernels


@pytest.fixture(scope="module")
def images() -> tuple[Tensor, Tensor, Tensor]:
    """Normalised training images, test images and their labels."""
    try:
        train, test = load_cifar10(split="train"), load_cifar10(split="test")
    except UserError as error:
        pytest.skip(f"needs CIFAR-10: {error}")
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    return normalise(train.images[:1024], mean, std), normalise(test.images[:256], mean, std), test.labels[:256]


def test_resnet20_in_groups_of_four(images: tuple[Tensor, Tensor, Tensor], tmp_path: Path) -> None:
    train, test, labels = images
    net = models.build("cifar-resnet20")
    try:
        models.load_float(find_file("pretrained/resnet20-cifar10.safetensors"), net)
    except UserError as error:
        pytest.skip(f"needs the published weights: {error}")
    tritkit.ternarize_(net.eval(), FGQ(group_size=4), exclude=["conv1", "linear"])
    batches = list(train.split(128))
    tritkit.reestimate_bn_(net, batches)
    path = tmp_path / "net.onnx"
    tritkit.export(net, path, test[:1], calibration=batches[:2], check=False)
    assert path.stat().st_size < 160_000  # 4 bits a weight
    expected = Reference(from_onnx(path)).run(test.numpy())
    for isa in sorted({kernel.isa for kernel in kernels()}):
        with Session(path, threads=1, isa=isa) as session:
            assert np.array_equal(session.run(test.numpy()), expected), isa
    with torch.no_grad():
        floating = net(test).argmax(1)
    assert float((torch.from_numpy(expected).argmax(1) == floating).float().mean()) > 0.95
    assert float((torch.from_numpy(expected).argmax(1) != labels).float().mean()) < 0.2
