"""A model file is data from a stranger: the answer is an error that names the place, or a right session."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from engine_networks import Builder, group_network, pack, small_network
from onnx import TensorProto, helper, numpy_helper

from tritkit.errors import ModelFileError, TritkitError, UnsupportedError, UserError
from tritkit.runtime import Session


def open_and_close(model: bytes) -> None:
    with Session(model, threads=1):
        pass


@pytest.mark.parametrize("network", [small_network, group_network])
def test_a_file_cut_anywhere_is_refused(network: Callable[[], Builder]) -> None:
    model = network().model()
    for length in range(len(model)):
        # cut between two top-level fields after the graph, a file is whole but for versions or metadata
        try:
            open_and_close(model[:length])
        except (ModelFileError, UnsupportedError):
            continue
        assert length > len(model) - 60


@pytest.mark.parametrize("network", [small_network, group_network])
def test_flipped_bits_never_crash(network: Callable[[], Builder]) -> None:
    model, rng = bytearray(network().model()), np.random.default_rng(0)
    x = rng.normal(size=(1, 3, 9, 8)).astype(np.float32)
    refused = 0
    for _ in range(4000):
        at, bit = int(rng.integers(len(model))), 1 << int(rng.integers(8))
        model[at] ^= bit
        try:
            with Session(bytes(model), threads=1) as session:
                if session.inputs[0].shape == (None, 3, 9, 8) and session.arena_bytes() < 1 << 24:
                    session.run(x)
        except (ModelFileError, UnsupportedError):
            refused += 1
        model[at] ^= bit
    assert 500 < refused < 4000


Change = Callable[[onnx.ModelProto], None]


def conv_network() -> onnx.ModelProto:
    """input [N, 4, 6, 5] → QuantizeLinear → TernaryQConv 'layer1.TernaryQConv' → DequantizeLinear; c2 w, c3 book,
    c4 scale, c5 bias, c6 y_scale, c7 y_zero."""
    b = Builder(0, 4, 6, 5)
    b.output(b.dequantize(b.conv(b.quantize(), 3, 4)), 4)
    return b.proto()


def constant(name: str, value: object, dtype: type) -> Change:
    def change(model: onnx.ModelProto) -> None:
        tensor = next(t for t in model.graph.initializer if t.name == name)
        tensor.CopyFrom(numpy_helper.from_array(np.asarray(value, dtype), name))

    return change


def attribute(name: str, value: object, node: int = 1) -> Change:
    def change(model: onnx.ModelProto) -> None:
        attributes = model.graph.node[node].attribute
        kept = [a for a in attributes if a.name != name]
        del attributes[:]
        attributes.extend([*kept, helper.make_attribute(name, value)])

    return change


def input_shape(*shape: int | str) -> Change:
    def change(model: onnx.ModelProto) -> None:
        model.graph.input[0].CopyFrom(helper.make_tensor_value_info("image", TensorProto.FLOAT, shape))

    return change


def edit(code: Callable[[onnx.ModelProto], object]) -> Change:
    def change(model: onnx.ModelProto) -> None:
        code(model)

    return change


CODES = np.random.default_rng(0).integers(-1, 2, (3, 36))
BAD_CODE = pack(CODES)
BAD_CODE[0, 0] = 0b10
BOOK = np.array([[0, 3, 0, -4]] * 3)

BAD: dict[str, tuple[Change, str]] = {
    "scale zero": (constant("c0", 0.0, np.float32), "above 0"),
    "scale nan": (constant("c0", np.nan, np.float32), "finite"),
    "scale vector": (constant("c0", [0.1, 0.2], np.float32), "scalar"),
    "scale float64": (constant("c0", 0.1, np.float64), "float64"),
    "zero point int8": (constant("c1", 3, np.int8), "uint8"),
    "code 10": (constant("c2", BAD_CODE, np.uint8), "code 10"),
    "packed too short": (constant("c2", pack(CODES)[:, :8], np.uint8), "w_shape asks"),
    "book order": (constant("c3", BOOK[:, ::-1], np.int8), "codebook"),
    "book 65": (constant("c3", BOOK * [0, 22, 0, 1], np.int8), "1 to 64"),
    "book zero p": (constant("c3", BOOK * [0, 0, 0, 1], np.int8), "1 to 64"),
    "book shape": (constant("c3", BOOK[:2], np.int8), "codebook"),
    "w_scale negative": (constant("c4", [1, -1, 1], np.float32), "above 0"),
    "w_scale scalar": (constant("c4", 1.0, np.float32), "output channel"),
    "w_scale absurd": (constant("c4", [3e38] * 3, np.float32), "10^20"),
    "bias 2^30 + 1": (constant("c5", [0, 2**30 + 1, 0], np.int32), "2^30"),
    "bias float": (constant("c5", [0, 1, 2], np.float32), "int32"),
    "w_shape zero": (attribute("w_shape", [3, 0, 3, 3]), "below 1"),
    "w_shape rank": (attribute("w_shape", [3, 36]), "4 integers"),
    "w_shape K": (attribute("w_shape", [3, 7311, 3, 3]), "65792"),
    "w_shape overflow": (attribute("w_shape", [2**31 - 1] * 4), "2^63"),
    "stride 0": (attribute("strides", [0, 1]), "1 to 4096"),
    "stride huge": (attribute("strides", [2**62, 1]), "1 to 4096"),
    "pad negative": (attribute("pads", [0, -1, 0, 0]), "0 to 4096"),
    "dilation 0": (attribute("dilations", [1, 0]), "1 to 4096"),
    "dilation too large": (attribute("dilations", [4096, 1]), "larger than the padded image"),
    "group 0": (attribute("group", 0), "groups"),
    "group 2": (attribute("group", 2), "groups"),
    "group huge": (attribute("group", 2**62), "groups"),
    "unknown attribute": (attribute("secret", 1), "secret"),
    "batch fixed": (input_shape(1, 4, 6, 5), "free"),
    "channels differ": (input_shape("N", 5, 6, 5), "groups"),
    "rank 3": (input_shape("N", 4, 30), "N, C, H, W"),
    "free height": (input_shape("N", 4, "H", 5), "axis 2"),
    "enormous": (input_shape("N", 4, 2**40, 2**40), "2^40"),
    "empty": (input_shape("N", 4, 0, 5), "empty"),
    "cycle": (edit(lambda m: m.graph.node[1].input.__setitem__(0, "t2")), "not computed"),
    "dangling": (edit(lambda m: m.graph.node[1].input.__setitem__(0, "nothing")), "not computed"),
    "unsorted": (edit(lambda m: m.graph.node.reverse()), "not computed"),
    "name twice": (edit(lambda m: m.graph.node[1].output.__setitem__(0, "t0")), "exists already"),
    "output unknown": (edit(lambda m: setattr(m.graph.output[0], "name", "t9")), "no node computes"),
    "output uint8": (edit(lambda m: setattr(m.graph.output[0], "name", "t1")), "uint8"),
    "no outputs": (edit(lambda m: m.graph.ClearField("output")), "no output"),
    "no inputs": (edit(lambda m: m.graph.ClearField("input")), "no input"),
    "two scales": (edit(lambda m: m.graph.node[2].input.__setitem__(1, "c0")), "differs"),
    "input missing": (edit(lambda m: m.graph.node[1].input.pop()), "8 inputs"),
    "constant as value": (edit(lambda m: m.graph.node[1].input.__setitem__(0, "c2")), "initializer"),
    "value as constant": (edit(lambda m: m.graph.node[1].input.__setitem__(3, "t0")), "must be an initializer"),
    "initializer twice": (edit(lambda m: m.graph.initializer.append(m.graph.initializer[0])), "name of its own"),
    "external data": (
        edit(lambda m: setattr(m.graph.initializer[2], "data_location", TensorProto.EXTERNAL)),
        "outside the file",
    ),
    "data too long": (edit(lambda m: setattr(m.graph.initializer[2], "raw_data", b"0" * 28)), "28"),
    "dims overflow": (edit(lambda m: m.graph.initializer[2].dims.extend([2**62, 2**62])), "w_shape asks"),
    "IR version": (edit(lambda m: setattr(m, "ir_version", 3)), "IR version"),
    "no opset": (edit(lambda m: m.ClearField("opset_import")), "opset"),
}


@pytest.mark.parametrize("name", BAD)
def test_broken_rule_is_named(name: str) -> None:
    change, words = BAD[name]
    model = conv_network()
    open_and_close(model.SerializeToString())
    change(model)
    with pytest.raises(ModelFileError, match=words.replace("^", r"\^")):
        open_and_close(model.SerializeToString())


def group_conv_network() -> onnx.ModelProto:
    """The same with TernaryGroupQConv in groups of 3 of 4 channels; c2 w, c3 plus, c4 minus [3, 2, 3, 3]."""
    b = Builder(0, 4, 6, 5)
    b.output(b.dequantize(b.conv(b.quantize(), 3, 4, group_size=3)), 4)
    return b.proto()


SIDE = np.full((3, 2, 3, 3), 5)
BAD_SIDE = SIDE.copy()
BAD_SIDE[2, 1, 2, 2] = 65

BAD_GROUPS: dict[str, tuple[Change, str]] = {
    "plus 65": (constant("c3", BAD_SIDE, np.int8), "hold 65, allowed are 1 to 64"),
    "minus 65": (constant("c4", BAD_SIDE, np.int8), "hold 65, allowed are 1 to 64"),
    "plus 0": (constant("c3", SIDE * 0, np.int8), "hold 0, allowed are 1 to 64"),
    "minus negative": (constant("c4", -SIDE, np.int8), "hold -5, allowed are 1 to 64"),
    "rank 1": (constant("c3", SIDE[:, 0, 0, 0], np.int8), r"\[3, 2, 3, 3\]"),
    "rank 2": (constant("c3", SIDE[:, :, 0, 0], np.int8), r"\[3, 2, 3, 3\]"),
    "rank 5": (constant("c4", SIDE[..., None], np.int8), r"\[3, 2, 3, 3\]"),
    "one group": (
        constant("c4", SIDE[:, :1], np.int8),
        r"\[3, 1, 3, 3\], w_shape and group_size ask for \[3, 2, 3, 3\]",
    ),
    "a codebook": (constant("c3", BOOK, np.int8), "multipliers"),
    "plus uint8": (constant("c3", SIDE, np.uint8), "int8"),
    "plus empty": (constant("c3", SIDE[:0], np.int8), r"\[0, 2, 3, 3\]"),
    "group_size 4": (attribute("group_size", 4), r"ask for \[3, 1, 3, 3\]"),
    "group_size 0": (attribute("group_size", 0), "group_size is 0, allowed are 1 to its 4"),
    "group_size negative": (attribute("group_size", -3), "group_size is -3"),
    "group_size 5": (attribute("group_size", 5), "group_size is 5"),
    "group_size huge": (attribute("group_size", 2**63 - 1), "group_size is 9223372036854775807"),
    "group_size smallest": (attribute("group_size", -(2**63)), "group_size is -9223372036854775808"),
    "group_size list": (attribute("group_size", [3]), "one integer"),
    "group_size text": (attribute("group_size", "3"), "one integer"),
    "no group_size": (edit(lambda m: m.graph.node[1].attribute.pop(2)), "group_size is 0"),
    "code 10": (constant("c2", BAD_CODE, np.uint8), "code 10"),
    "w_shape huge": (attribute("w_shape", [2**31 - 1, 4, 3, 3]), "w_shape asks"),
    "w_shape overflow": (attribute("w_shape", [2**31 - 1] * 4), "2^63"),
    "the wrong operation": (edit(lambda m: setattr(m.graph.node[1], "op_type", "TernaryQConv")), "10 inputs"),
    "minus missing": (edit(lambda m: m.graph.node[1].input.pop(5)), "9 inputs"),
    "value as plus": (edit(lambda m: m.graph.node[1].input.__setitem__(4, "t0")), "must be an initializer"),
    "convolution groups": (attribute("group", 2), "groups"),
}


@pytest.mark.parametrize("name", BAD_GROUPS)
def test_broken_rule_of_groups_is_named(name: str) -> None:
    change, words = BAD_GROUPS[name]
    model = group_conv_network()
    open_and_close(model.SerializeToString())
    change(model)
    with pytest.raises(ModelFileError, match=words.replace("^", r"\^")):
        open_and_close(model.SerializeToString())


@pytest.mark.parametrize("unused", [0b01, 0b10, 0b11])
def test_codes_behind_a_row_are_0(unused: int) -> None:
    b = Builder(0, 3, 6, 5)
    b.output(b.dequantize(b.conv(b.quantize(), 2, 3)), 4)
    model = b.proto()
    weights = numpy_helper.to_array(next(t for t in model.graph.initializer if t.name == "c2")).copy()
    assert weights.shape == (2, 7)  # 27 codes and one that is not used
    open_and_close(model.SerializeToString())
    weights[1, 6] |= unused << 6
    constant("c2", weights, np.uint8)(model)
    with pytest.raises(ModelFileError, match="unused code at the end of a row"):
        open_and_close(model.SerializeToString())


def test_error_names_node_and_operation() -> None:
    model = conv_network()
    constant("c5", [0, 2**30 + 1, 0], np.int32)(model)
    with pytest.raises(ModelFileError, match=r"node 'layer1.TernaryQConv' \(TernaryQConv\)"):
        open_and_close(model.SerializeToString())


UNSUPPORTED: dict[str, tuple[Change, str]] = {
    "operation": (edit(lambda m: setattr(m.graph.node[1], "op_type", "Softmax")), "'Softmax'.*ONNX Runtime"),
    "domain": (edit(lambda m: setattr(m.graph.node[1], "domain", "com.other")), "com.other"),
    "opset": (edit(lambda m: setattr(m.opset_import[0], "version", 21)), "opset 21"),
    "domain version": (edit(lambda m: setattr(m.opset_import[1], "version", 2)), "newer tritkit"),
    "format": (edit(lambda m: setattr(m.metadata_props[0], "value", "2")), "newer tritkit"),
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_unsupported_is_named(name: str) -> None:
    change, words = UNSUPPORTED[name]
    model = conv_network()
    change(model)
    with pytest.raises(UnsupportedError, match=words):
        open_and_close(model.SerializeToString())


def one_node(op: str, constants: list[tuple[object, type]], **attributes: object) -> bytes:
    b = Builder(0, 4, 6, 5)
    b.output(b.dequantize(b.moved(op, [b.quantize()], constants, **attributes)), 4)
    return b.model()


i64 = np.int64
SHAPE_ERRORS: dict[str, tuple[bytes, str]] = {
    "pool of padding": (one_node("MaxPool", [], kernel_shape=[1, 1], pads=[1, 0, 0, 0]), "padding"),
    "pool pads far": (one_node("MaxPool", [], kernel_shape=[2, 2], pads=[0, 0, 0, 9]), "padding"),
    "clip crossed": (one_node("Clip", [(9, np.uint8), (3, np.uint8)]), "above"),
    "pad batch": (one_node("Pad", [([1, 0, 0, 0, 0, 0, 0, 0], i64), (120, np.uint8)]), "batch"),
    "pad value": (one_node("Pad", [([0] * 8, i64), (0, np.uint8)]), "zero point"),
    "pad enormous": (one_node("Pad", [([0, 0, 2**31 - 1, 2**31 - 1, 0, 0, 0, 0], i64), (120, np.uint8)]), "2^40"),
    "pad huge": (one_node("Pad", [([0, 2**62, 0, 0, 0, 0, 0, 0], i64), (120, np.uint8)]), "pads must be"),
    "slice batch": (one_node("Slice", [([0], i64), ([1], i64), ([0], i64), ([1], i64)]), "batch"),
    "slice step": (one_node("Slice", [([0], i64), ([1], i64), ([1], i64), ([0], i64)]), "steps"),
    "slice empty": (one_node("Slice", [([3], i64), ([2], i64), ([1], i64), ([1], i64)]), "keeps nothing"),
    "slice extremes": (
        one_node("Slice", [([-(2**63)], i64), ([-(2**63)], i64), ([1], i64), ([2**62], i64)]),
        "nothing",
    ),
    "concat batch": (one_node("Concat", [], axis=0), "batch"),
    "reshape batch": (one_node("Reshape", [([1, 120], i64)]), "first entry"),
    "reshape count": (one_node("Reshape", [([0, 119], i64)]), "119"),
    "reshape overflow": (one_node("Reshape", [([0, 2**40, 2**40, 2**40], i64)]), "2^63"),
    "reshape two open": (one_node("Reshape", [([0, -1, -1, 1], i64)]), "-1"),
}


@pytest.mark.parametrize("name", SHAPE_ERRORS)
def test_shape_operations_are_checked(name: str) -> None:
    model, words = SHAPE_ERRORS[name]
    with pytest.raises(ModelFileError, match=words.replace("^", r"\^")):
        open_and_close(model)


@pytest.mark.parametrize("runs", [[(0, 6), (3, 3)], [(0, 0)]])
def test_average_pool_runs(runs: list[tuple[int, int]]) -> None:
    b = Builder(0, 4, 6, 5)
    b.output(b.dequantize(b.average_pool(b.quantize(), runs, [(0, 5)], 6, 5)), 4)
    with pytest.raises(ModelFileError, match="unbroken run"):
        open_and_close(b.model())


def test_weights_shared_without_end_do_not_exhaust_memory() -> None:
    b = Builder(0, 512)
    x = b.quantize()
    quant = b.quant[x]
    args = [b.constant(np.ones((512, 512)), np.int8), b.constant(np.ones(512), np.float32)]
    args.append(b.constant(np.zeros(512), np.int32))
    for _ in range(3000):  # 750 MB of weights in a 0.4 MB file
        x = b.node("Int8QGemm", [x, *quant, *args, *quant], quant, "tritkit")
    b.output(b.dequantize(x), 2)
    with pytest.raises(ModelFileError, match="share weights"):
        open_and_close(b.model())


def test_a_batch_beyond_memory_is_refused_before_it_is_asked_for() -> None:
    b = Builder(0, 1, 2, 2)
    y = b.moved("Pad", [b.quantize()], [([0, 0, 2**19, 2**19, 0, 0, 0, 0], np.int64), (120, np.uint8)])
    y = b.moved("Slice", [y], [(v, np.int64) for v in ([0, 0], [1, 1], [2, 3], [1, 1])])
    b.output(b.dequantize(y), 4)
    with Session(b.model(), threads=1) as session:
        assert session.arena_bytes(1) > 1 << 40
        with pytest.raises(TritkitError, match=r"GB for activations.*smaller batch"):
            session.run(np.zeros((1, 1, 2, 2), np.float32))


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x00" * 100, b"\xff" * 100, b"\x3a\xff\xff\xff\xff\x0f"])
def test_other_files(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(content)
    for model in (content, path):
        with pytest.raises(ModelFileError):
            Session(model)


def test_paths_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"missing\.onnx"):
        Session(tmp_path / "missing.onnx")
    with pytest.raises(UserError):
        Session(tmp_path)
