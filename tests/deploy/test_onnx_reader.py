"""A written file read back is the graph that was written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from test_graph_engines import _everything, _images

from tritkit.deploy.onnx_reader import from_onnx
from tritkit.deploy.onnx_writer import to_onnx
from tritkit.deploy.reference import Reference
from tritkit.errors import ModelFileError, UnsupportedError


@pytest.mark.parametrize("seed", [0, 1, 3])
def test_round_trip_keeps_every_value_and_result(seed: int, tmp_path: Path) -> None:
    graph = _everything(seed)
    onnx.save(to_onnx(graph), tmp_path / "net.onnx")
    again = from_onnx(tmp_path / "net.onnx")
    assert dict(again.values) == dict(graph.values)
    assert dict(again.metadata) == dict(graph.metadata)
    assert [type(n) for n in again.nodes] == [type(n) for n in graph.nodes]
    x = _images(graph)
    assert np.array_equal(Reference(again).run(x), Reference(graph).run(x))
    assert to_onnx(again).SerializeToString() == to_onnx(graph).SerializeToString()


def test_foreign_and_broken_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="does not exist"):
        from_onnx(tmp_path / "none.onnx")
    (tmp_path / "text.onnx").write_text("hello" * 100)
    with pytest.raises(ModelFileError, match="not an ONNX file"):
        from_onnx(tmp_path / "text.onnx")
    model = to_onnx(_everything(0))
    model.graph.node[2].op_type = "Softmax"
    with pytest.raises(UnsupportedError, match=r"n\.qconv2.*Softmax"):
        from_onnx(model)
    model = to_onnx(_everything(0))
    model.graph.node[1].input[3] = "lost"
    with pytest.raises(ModelFileError, match="lost"):
        from_onnx(model)


def test_a_code_that_means_nothing_is_refused() -> None:
    model = to_onnx(_everything(0))
    codes = next(t for t in model.graph.initializer if t.name.endswith(".codes"))
    codes.raw_data = bytes([2]) + codes.raw_data[1:]
    with pytest.raises(ModelFileError, match="bit pair 10"):
        from_onnx(model)
