"""Post-training, fresh batch norms and activation ranges, shared by processes: what one process makes of all images."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from calibration_worker import main
from safetensors.torch import load_file, save_file
from torch import Tensor

import tritkit
from tritkit import models
from tritkit.cli.app import run_app
from tritkit.processes import ALONE
from tritkit.runtime import Session
from tritkit.train.ranks import Ranks
from tritkit.zoo import sample

_WORKER = Path(__file__).parent / "calibration_worker.py"
NAMES = ("better", "faithful", "power", "norms", "activations")
pytestmark = pytest.mark.skipif(not dist.is_gloo_available(), reason="this torch has no gloo backend")


def torchrun(processes: int, *words: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(tritkit.__file__).parents[1])}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    given = [*command, *map(str, words)]
    return subprocess.run(given, env=environment, capture_output=True, text=True, check=False, timeout=600)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("alone")
    threads = torch.get_num_threads()
    main(out, Ranks())
    torch.set_num_threads(threads)
    return out


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("two")
    done = torchrun(2, _WORKER, out)
    assert done.returncode == 0, done.stderr
    return out


def load(folder: Path, name: str, rank: int = 0) -> dict[str, Tensor]:
    return load_file(folder / f"{name}-{rank}.safetensors")


@pytest.mark.parametrize("name", NAMES)
def test_all_processes_end_with_the_same_bits(two: Path, name: str) -> None:
    first, second = load(two, name), load(two, name, 1)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("name", NAMES)
def test_two_processes_make_what_one_makes(alone: Path, two: Path, name: str) -> None:
    """Ranges of activations to the bit, sums to the order of additions."""
    wanted, found = load(alone, name), load(two, name)
    assert wanted.keys() == found.keys()
    for key, value in wanted.items():
        if name == "activations" or not value.is_floating_point():
            assert torch.equal(found[key], value), key
        else:
            assert (found[key] - value).norm() <= 1e-5 * value.norm() + 1e-6, key


def test_shares_are_whole_units_in_order() -> None:
    for count, unit, world in ((1024, 256, 4), (1000, 256, 2), (700, 1, 3), (5, 1, 5), (1025, 256, 3)):
        found = [Ranks(rank, world).split(count, unit) for rank in range(world)]
        assert [place for mine, _ in found for place in mine] == list(range(count))
        assert all(mine.start % unit == 0 and len(mine) >= unit for mine, _ in found)
        assert all(processes.rank == rank for rank, (_, processes) in enumerate(found))
    for rank in range(4):
        assert Ranks(rank, 4).split(1000, 256) == (range(1000), ALONE)
    assert Ranks().split(7) == (range(7), ALONE)


def test_ternarize_under_torchrun(tmp_path: Path) -> None:
    """The file of one process; the first alone writes and talks."""
    weights = tmp_path / "float.safetensors"
    torch.manual_seed(3)
    norm = {"normalize_mean": "0.5,0.5,0.5", "normalize_std": "0.25,0.25,0.25"}
    save_file(models.build("cifar-resnet8").state_dict(), weights, norm)
    words = ["ternarize", weights, "--architecture", "cifar-resnet8", "--calibrate", "sample"]
    words += ["--images", 512, "--faithful", "--json", "-o"]
    assert run_app([*map(str, words), str(tmp_path / "1.onnx")]) == 0
    done = torchrun(2, "-m", "tritkit", *words, tmp_path / "2.onnx")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('"images": 512') == 1
    pixels = sample("test").images[:64].astype("float32") / 255
    one, two = (Session(tmp_path / f"{processes}.onnx", threads=1) for processes in (1, 2))
    logits = [torch.from_numpy(session.run(pixels).copy()) for session in (one, two)]
    torch.testing.assert_close(logits[1], logits[0], rtol=0, atol=0.05 * float(logits[0].std()))
