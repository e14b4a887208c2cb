"""docs/tutorial.md: every block of it runs as it stands there, in its order."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np

from tritkit.runtime import Session

PAGE = Path(__file__).parents[2] / "docs" / "tutorial.md"
_BLOCK = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.M | re.S)


def test_every_block_runs(tmp_path: Path) -> None:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "COLUMNS": "80"}
    said = []
    for kind, title, text in _BLOCK.findall(PAGE.read_text()):
        if kind == "text":  # what was said once
            continue
        if kind == "python":
            (tmp_path / title).write_text(text)
            continue
        assert kind == "sh", f"a block of the tutorial is {kind}; this test runs sh and python with a title"
        words = ["bash", "-euo", "pipefail", "-c", text]
        done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
        said.append(done.stdout)
    output = "".join(said)
    assert "same bits in onnxruntime, libtritkit" in output
    assert "healthy" in output
    assert "(1, 10)" in output
    error = re.search(r"^error ([\d.]+) %", output, re.M)
    assert error is not None
    assert float(error[1]) < 35, "the network of the tutorial lost its accuracy"
    assert np.load(tmp_path / "layer.npz")["codes"].shape == (16, 16, 3, 3)
    assert Session(tmp_path / "untrained.onnx").outputs[0].shape == (None, 10)
