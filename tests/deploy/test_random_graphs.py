"""Random integer graphs: simulation == NumPy reference == stock ONNX Runtime (optimised or not) == our engine."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import torch
from hypothesis import given, settings
from random_nets import graphs

from tritkit.deploy import graph as g
from tritkit.deploy.onnx_reader import from_onnx
from tritkit.deploy.onnx_writer import to_onnx
from tritkit.deploy.reference import Reference
from tritkit.deploy.simulate import Simulation
from tritkit.runtime import Session, kernels

ISAS = sorted({kernel.isa for kernel in kernels()})
LEVELS = [ort.GraphOptimizationLevel.ORT_DISABLE_ALL, ort.GraphOptimizationLevel.ORT_ENABLE_ALL]


@settings(max_examples=250, derandomize=True, deadline=None)
@given(graphs())
def test_engines_agree_on_random_graphs(case: tuple[g.Graph, np.ndarray]) -> None:
    graph, images = case
    expected = Reference(graph).run(images)
    assert np.array_equal(Simulation(graph)(torch.from_numpy(images)).numpy(), expected)
    model = to_onnx(graph)
    for level in LEVELS:
        options = ort.SessionOptions()
        options.graph_optimization_level, options.log_severity_level = level, 3
        options.intra_op_num_threads = 1
        session = ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
        assert np.array_equal(session.run(None, {"image": images})[0], expected)
    assert np.array_equal(Reference(from_onnx(model)).run(images), expected)
    for isa in ISAS:
        for threads in (1, 2):
            with Session(model.SerializeToString(), threads=threads, isa=isa) as ours:
                assert np.array_equal(ours.run(images), expected), (isa, threads)
