"""`inspect`: the facts are those of the network; a damaged file is one sentence; torch is not needed."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tritkit.errors import ModelFileError
from tritkit.inspection import inspect_file
from tritkit.surgery import named_ternary


def test_facts_are_those_of_the_network(net_file: Path, ternary_net: torch.nn.Module) -> None:
    facts = inspect_file(net_file)
    rows = {row["name"]: row for row in facts["layers"]}
    assert facts["format"] == "tritkit-onnx"
    assert facts["bytes"] == net_file.stat().st_size
    for name, _, value in named_ternary(ternary_net):
        row, codes = rows[name], value.codes
        outputs, k = codes.shape[0], codes[0].numel()
        assert (row["kind"], row["bits"], row["method"]) == ("ternary", 2, "ttq")
        assert row["shape"] == list(codes.shape)
        assert row["density"] == int((codes != 0).sum()) / codes.numel()
        assert row["bytes"] == outputs * ((k + 3) // 4) + outputs * 4 + outputs * 4 + outputs * 4
    assert rows["conv1"]["kind"] == rows["linear"]["kind"] == "int8"
    weights = sum(p.numel() for name, p in ternary_net.named_parameters() if p.dim() > 1)
    assert facts["totals"]["weights"] == weights
    assert facts["totals"]["float_bytes"] == 4 * (weights + sum(row["shape"][0] for row in facts["layers"]))


def test_table_and_json_say_the_same(net_file: Path, cli: Callable[..., tuple[int, str, str]]) -> None:
    code, out, err = cli("inspect", net_file, "--json")
    facts = json.loads(out)
    assert (code, err) == (0, "")
    assert facts == inspect_file(net_file)
    code, out, err = cli("inspect", net_file)
    assert (code, err) == (0, "")
    for row in facts["layers"]:
        line = next(line for line in out.splitlines() if line.startswith(row["name"] + " "))
        assert f"{100 * row['density']:.1f} %" in line
        assert line.endswith(f"{row['bytes']:,}")
    assert f"{facts['bytes']:,} bytes" in out


def test_needs_no_torch_onnx_or_library(net_file: Path) -> None:
    block = "import sys; sys.modules.update(dict.fromkeys(['torch', 'onnx', 'onnxruntime', 'matplotlib']))"
    code = f"{block}; from tritkit.cli import main; main(['inspect', {str(net_file)!r}, '--json'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["format"] == "tritkit-onnx"


def test_safetensors_listing(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    safetensors.torch.save_file({"a": torch.zeros(2, 3), "b": torch.zeros(5, dtype=torch.int8)}, path, {"k": "v"})
    facts = inspect_file(path)
    assert {(t["name"], t["dtype"], tuple(t["shape"]), t["bytes"]) for t in facts["tensors"]} == {
        ("a", "F32", (2, 3), 24),
        ("b", "I8", (5,), 5),
    }
    assert facts["metadata"] == {"k": "v"}


def _read_or_refuse(path: Path) -> None:
    """Facts that are JSON, or a ModelFileError that names the file; anything else fails the test."""
    refusal = str(path)
    try:
        json.dumps(inspect_file(path), allow_nan=False)
    except ModelFileError as error:
        refusal = str(error)
    assert refusal.startswith(str(path))


def test_every_truncation_is_refused_or_whole(net_file: Path, tmp_path: Path) -> None:
    data = net_file.read_bytes()
    path = tmp_path / "cut.onnx"
    for size in [*range(0, 64), *range(64, len(data), 997), len(data) - 1]:
        path.write_bytes(data[:size])
        _read_or_refuse(path)


@settings(max_examples=300, derandomize=True, deadline=None)
@given(st.data())
def test_flipped_bytes_never_crash(
    net_file: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    damaged = bytearray(net_file.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "flipped.onnx"
    path.write_bytes(bytes(damaged))
    _read_or_refuse(path)


def _varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not a model at all, just text",
        b"\x80" * 30,
        b"\x3a" + _varint(1 << 60),
        b"\x3a\x00\x3a\x00",
        struct.pack("<Q", 1 << 62) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 2) + b"{x",
        struct.pack("<Q", 40) + b'{"a":{"dtype":"F32","shape":[1e9,1e9]}} ',
        struct.pack("<Q", 100_000) + b'{"a":' * 20_000,
        struct.pack("<Q", 66) + b'{"a":{"dtype":"F32","shape":[1000000],"data_offsets":[0,4]}}      ' + b"\0" * 4,
    ],
)  # fmt: skip
def test_hostile_files_are_one_sentence(data: bytes, tmp_path: Path, cli: Callable[..., tuple[int, str, str]]) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(data)
    code, out, err = cli("inspect", path)
    assert (code, out) == (2, "")
    assert err.startswith("tritkit: ")
    assert err.count("\n") == 1


def test_names_from_a_file_cannot_control_the_terminal(
    tmp_path: Path, cli: Callable[..., tuple[int, str, str]]
) -> None:
    path = tmp_path / "w.safetensors"
    safetensors.torch.save_file({"[red]a\x1b[2J": torch.zeros(1)}, path)
    _, out, _ = cli("inspect", path)
    assert "\x1b" not in out
    assert "[red]a" in out


def test_a_sparse_file_of_many_gigabytes_is_refused_unread(
    tmp_path: Path, cli: Callable[..., tuple[int, str, str]]
) -> None:
    path = tmp_path / "huge.onnx"
    with path.open("wb") as file:
        file.truncate(5 << 30)
    code, _, err = cli("inspect", path)
    assert code == 2
    assert "bytes" in err
