"""The packaged files: named, checked, and what they say they are."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from tritkit.cli.evaluation import wrong_in_session
from tritkit.data import load_cifar10
from tritkit.errors import TritkitError, UserError
from tritkit.runtime import Session
from tritkit.zoo import folder, hub, manifest, sample


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(folder(), tmp_path / "zoo")
    monkeypatch.setenv("TRITKIT_ZOO", str(tmp_path / "zoo"))
    return tmp_path / "zoo"


def test_every_name_is_whole_and_licensed() -> None:
    for name, entry in manifest().items():
        path = hub(name)
        assert path.stat().st_size == entry["bytes"]
        assert entry["licence"]
        assert entry["source"]


def test_networks_together_stay_small() -> None:
    sizes = [entry["bytes"] for name, entry in manifest().items() if name.startswith("resnet")]
    assert sum(sizes) < 2_000_000


@pytest.mark.parametrize(("depth", "most"), [(20, 90_000), (32, 150_000), (44, 205_000), (56, 260_000)])
def test_a_ternary_network_of_each_depth_is_small_and_as_good_as_the_manifest_says(depth: int, most: int) -> None:
    name = f"resnet{depth}-cifar10-ternary"
    entry, session = manifest()[name], Session(hub(name), threads=1)
    assert entry["bytes"] < most
    images, labels, _ = sample("test")
    wrong = wrong_in_session(session, images, labels)
    assert abs(wrong / 1000 - entry["test_error"]) < 0.025  # three standard errors of 1,000 images


@pytest.mark.parametrize("split", ["test", "train"])
def test_sample_is_the_first_hundred_of_each_class(split: str) -> None:
    images, labels, classes = sample(split)
    assert (images.shape, images.dtype) == ((1000, 3, 32, 32), np.uint8)
    assert np.bincount(labels).tolist() == [100] * 10
    try:
        whole = load_cifar10(None, split)
    except UserError:
        pytest.skip("CIFAR-10 is not on this machine; set TRITKIT_DATA")
    index = torch.cat([torch.nonzero(whole.labels == k)[:100, 0] for k in range(10)]).sort().values
    assert classes == whole.classes
    assert np.array_equal(images, whole.images[index].numpy())
    assert np.array_equal(labels, whole.labels[index].numpy())


def test_unknown_names_are_proposed_others() -> None:
    with pytest.raises(UserError, match="cifar10-sample-test"):
        hub("cifar10-sample-tset")
    with pytest.raises(UserError, match="'test', 'train'"):
        sample("validation")  # type: ignore[arg-type]


def test_a_changed_file_is_refused(copy: Path) -> None:
    path = hub("cifar10-sample-test")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(TritkitError, match=r"changed.*reinstall"):
        sample("test")


def test_a_missing_file_or_manifest_is_said(copy: Path) -> None:
    hub("cifar10-sample-labels").unlink()
    with pytest.raises(TritkitError, match="reinstall"):
        sample("test")
    (copy / "manifest.json").write_text("[1, 2")
    with pytest.raises(TritkitError, match="manifest"):
        hub("cifar10-sample-test")


def test_a_manifest_cannot_lead_out_of_its_folder(copy: Path) -> None:
    entries = json.loads((copy / "manifest.json").read_text())
    entries["cifar10-sample-test"]["file"] = "../../etc/passwd"
    (copy / "manifest.json").write_text(json.dumps(entries))
    with pytest.raises(TritkitError, match="passwd"):
        hub("cifar10-sample-test")
