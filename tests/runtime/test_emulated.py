"""The same bits on CPUs that are not here, emulated by qemu-x86_64 where it is installed (Debian: qemu-user)."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import engine_oracle
import numpy as np
import pytest
from engine_networks import small_network

QEMU = shutil.which("qemu-x86_64")

_CHILD = """
import sys, numpy as np
from tritkit.runtime import Session, kernels
np.save(sys.argv[3], Session(sys.argv[1], threads=2).run(np.load(sys.argv[2])))
print(kernels()[0].isa)
"""


@pytest.mark.skipif(QEMU is None, reason="qemu-x86_64 is not installed")
@pytest.mark.parametrize(("cpu", "isa"), [("Haswell", "avx2"), ("SandyBridge", "scalar")])
def test_emulated_cpu_takes_its_own_kernels_and_agrees(cpu: str, isa: str, tmp_path: Path) -> None:
    network = small_network(1)
    x = np.random.default_rng(1).normal(0, 3, (3, 3, 9, 8)).astype(np.float32)
    (tmp_path / "net.onnx").write_bytes(network.model())
    np.save(tmp_path / "x.npy", x)
    files = [str(tmp_path / name) for name in ("net.onnx", "x.npy", "y.npy")]
    command = [str(QEMU), "-cpu", cpu, sys.executable, "-c", _CHILD, *files]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == isa
    assert np.array_equal(np.load(tmp_path / "y.npy"), engine_oracle.run(network.proto(), x)[0])
