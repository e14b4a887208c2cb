"""Processes that train together: the losses of one; a lost process; going on with another number of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from tiny import TERNARY, run

import tritkit
from tritkit.errors import UserError
from tritkit.models import build
from tritkit.train import read_record

pytestmark = pytest.mark.skipif(not dist.is_gloo_available(), reason="this torch has no gloo backend")

_HERE = Path(__file__).parent
# float32, few steps, a small rate: rounding has no time to grow
CHANGES = {**TERNARY, "precision": "float32", "lr": 1e-3, "held_out": 64, "checkpoint_every": 2, "bn_images": 96}

SHARD = json.dumps({"shard": True})


def job(processes: int, *arguments: object) -> subprocess.CompletedProcess[str]:
    """What torchrun left."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(tritkit.__file__).parents[1])}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    worker = [str(_HERE / "distributed_worker.py"), *map(str, arguments)]
    return subprocess.run(
        [*command, *worker], env=environment, capture_output=True, text=True, check=False, timeout=600
    )


def rows(out: Path) -> list[dict[str, Any]]:
    return read_record(out / "record.jsonl")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process."""
    out = tmp_path_factory.mktemp("alone")
    run(out, CHANGES)
    return out


def assert_same_run(out: Path, alone: Path) -> None:
    """To the order of additions, which alone moves this network's gradients by 1e-3 (measured against float64), and
    from the second epoch on to the roundings of 8-bit activations and codes that this tips over.
    """
    epochs = [row for row in rows(out) if row["kind"] == "epoch"]
    expected = [row for row in rows(alone) if row["kind"] == "epoch"]
    losses, wanted_losses = ([row["loss"] for row in some] for some in (epochs, expected))
    assert losses[0] == pytest.approx(wanted_losses[0], rel=5e-5)
    assert losses == pytest.approx(wanted_losses, rel=5e-3)
    assert [row["train_error"] for row in epochs] == pytest.approx([row["train_error"] for row in expected], abs=0.011)
    assert rows(out)[-1]["test_error"] == pytest.approx(rows(alone)[-1]["test_error"], abs=0.04)
    tensors, wanted = (load_file(folder / "final.safetensors") for folder in (out, alone))
    assert tensors.keys() == wanted.keys()
    for key, value in wanted.items():
        if value.is_floating_point() and "activation_quantizers" not in key:
            assert (tensors[key] - value).norm() <= 0.02 * value.norm() + 1e-3, key


@pytest.mark.parametrize("processes", [2, 4])
def test_losses_are_those_of_one_process(processes: int, alone: Path, tmp_path: Path) -> None:
    done = job(processes, tmp_path, json.dumps(CHANGES))
    assert done.returncode == 0, done.stderr
    assert rows(tmp_path)[0]["processes"] == processes
    assert [row["kind"] for row in rows(tmp_path)] == ["header", "epoch", "epoch", "epoch", "final"]
    assert_same_run(tmp_path, alone)
    ranges = [key for key in load_file(tmp_path / "final.safetensors") if key.endswith("bounds")]
    assert ranges
    tensors, wanted = (load_file(folder / "final.safetensors") for folder in (tmp_path, alone))
    for key in ranges:
        torch.testing.assert_close(tensors[key], wanted[key], rtol=1e-2, atol=1e-3)


def test_a_lost_process_ends_the_job_and_another_number_goes_on(alone: Path, tmp_path: Path) -> None:
    done = job(2, tmp_path, json.dumps(CHANGES), "{}", 1, 5)  # process 1 dies after step 5, one after a checkpoint
    assert done.returncode == 1
    assert "said: process 0 of 2" in done.stderr
    assert "the same command goes on from the last checkpoint" in done.stderr
    assert [row["kind"] for row in rows(tmp_path)] == ["header"]
    run(tmp_path, CHANGES)  # alone
    assert [row["kind"] for row in rows(tmp_path)] == ["header", "parts", "epoch", "epoch", "epoch", "final"]
    assert rows(tmp_path)[1] == {"kind": "parts", "step": 4, "processes": 1, "accumulate": 1}
    assert_same_run(tmp_path, alone)


def test_in_shards_it_is_the_same_run_and_goes_on_with_another_number(alone: Path, tmp_path: Path) -> None:
    done = job(2, tmp_path, json.dumps(CHANGES), SHARD, 1, 11)  # in the second epoch of 6 steps
    assert done.returncode == 1
    assert "said: process 0 of 2" in done.stderr
    assert rows(tmp_path)[0]["sharded"]
    held = [int(line.split()[1]) for line in done.stderr.splitlines() if line.startswith("held: ")]
    net = build("cifar-resnet8")
    numbers = 2 * sum(p.numel() for p in net.parameters())  # weights and momenta; TTQ's scales are the few more
    assert numbers / 2 < max(held) < numbers / 2 * 1.05
    done = job(4, tmp_path, json.dumps(CHANGES), SHARD)
    assert done.returncode == 0, done.stderr
    assert [row["kind"] for row in rows(tmp_path)] == ["header", "epoch", "parts", "epoch", "epoch", "final"]
    assert rows(tmp_path)[2] == {"kind": "parts", "step": 10, "processes": 4, "accumulate": 1, "sharded": True}
    assert_same_run(tmp_path, alone)


@pytest.mark.parametrize(
    "method",
    [
        {"name": "tga"},  # codes and scales computed from whole weights
        {"name": "lsq"},  # a trained scale
        {"name": "binary-connect", "stochastic": False},  # clips latents between steps
    ],
    ids=str,
)
def test_every_kind_of_method_in_shards(method: dict[str, Any], tmp_path: Path) -> None:
    schedule = {"name": "cosine", "warmup_epochs": 0}
    changes = {"method": method, "precision": "float32", "lr": 1e-3, "epochs": 1, "schedule": schedule, "held_out": 61}
    run(tmp_path / "alone", changes)
    done = job(2, tmp_path / "shards", json.dumps(changes), SHARD)
    assert done.returncode == 0, done.stderr
    epoch, wanted = (rows(tmp_path / name)[1] for name in ("shards", "alone"))
    assert epoch["loss"] == pytest.approx(wanted["loss"], rel=5e-4)
    assert epoch["held_out_error"] == pytest.approx(wanted["held_out_error"], abs=0.04)
    for name, layer in wanted["layers"].items():
        assert epoch["layers"][name] == pytest.approx(layer, rel=1e-2, abs=1e-4), name


def test_accumulation_in_shards(tmp_path: Path) -> None:
    changes = json.dumps({"method": {"name": "fgq"}, "precision": "float32", "lr": 1e-3, "epochs": 2})
    for name, how in (("whole", {"accumulate": 2}), ("shards", {"accumulate": 2, "shard": True})):
        done = job(2, tmp_path / name, changes, json.dumps(how))
        assert done.returncode == 0, done.stderr
    epoch, wanted = (rows(tmp_path / name)[1] for name in ("shards", "whole"))
    assert epoch["loss"] == pytest.approx(wanted["loss"], rel=5e-4)


def test_what_shards_cannot_do(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="shards cannot be pruned"):
        run(tmp_path, {"method": {"name": "twn"}, "density": {"target": 0.3}}, shard=True)


def test_accumulation(tmp_path: Path) -> None:
    """Each part has batch statistics of its own, so losses are near those of the whole batch and not the same."""
    run(tmp_path / "whole", {"epochs": 2, "precision": "float32", "lr": 1e-6})
    run(tmp_path / "parts", {"epochs": 2, "precision": "float32", "lr": 1e-6}, accumulate=2)
    whole, parts = (rows(tmp_path / name)[1] for name in ("whole", "parts"))
    assert parts["loss"] == pytest.approx(whole["loss"], rel=0.02)
    assert parts["loss"] != whole["loss"]
    assert rows(tmp_path / "parts")[0]["accumulate"] == 2


@pytest.mark.parametrize("accumulate", [0, 3])
def test_a_batch_that_cannot_be_shared(tmp_path: Path, accumulate: int) -> None:
    with pytest.raises(UserError, match=r"batch_size is 32, which 1 processes with accumulate = .* cannot share"):
        run(tmp_path, {}, accumulate=accumulate)
