"""The facts, against numbers worked by hand and counts made another way."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from report_examples import FakeParent

from tritkit.bench import clock
from tritkit.errors import UserError
from tritkit.inspection.weights import LayerWeights
from tritkit.report import Evidence, Labelled, gather, sections
from tritkit.report.accuracy import accuracy_facts, mistake_facts, sign_test
from tritkit.report.blocks import Prose, Table
from tritkit.report.kernels import kernel_facts
from tritkit.report.operations import scales_a_position
from tritkit.report.png import png
from tritkit.report.published import ALEXNET_TTQ as TTQ
from tritkit.report.published import looks_like_alexnet
from tritkit.report.sections_accuracy import accuracy
from tritkit.report.shown import show
from tritkit.report.sizes import code_facts, density_facts
from tritkit.report.timing import time_facts
from tritkit.report.training import histogram, pruned_layers, read_run, training_facts
from tritkit.report.verdict import read_bench
from tritkit.runtime import Session

Facts = dict[str, Any]


def test_the_waterfall_ends_at_the_file(facts: Facts, network: Path) -> None:
    steps = facts["sizes"]["waterfall"]
    level = steps[0]["left"]
    assert level == facts["sizes"]["float_bytes"] == 4 * (268_336 + 16 + 6 * 16 + 6 * 32 + 6 * 64 + 10)
    for step in steps[1:-1]:
        level += step["change"]
        assert level == step["left"]
        assert step["start"] == min(level, level - step["change"])
        assert step["length"] == abs(step["change"])
    assert level == steps[-1]["length"] == network.stat().st_size
    assert facts["sizes"]["layer_bytes"] + facts["sizes"]["other_bytes"] == network.stat().st_size


@given(arrays.arrays(np.int8, st.integers(1, 60), elements=st.integers(-1, 1)))
@settings(derandomize=True, deadline=None, max_examples=60)
def test_code_counts_and_entropy(codes: np.ndarray[Any, Any]) -> None:
    found, counts = code_facts(codes), Counter(codes.tolist())
    assert [found[key] for key in ("minus", "zero", "plus")] == [counts[-1], counts[0], counts[1]]
    entropy = sum(n / len(codes) * math.log2(len(codes) / n) for n in counts.values())
    assert found["entropy"] == pytest.approx(entropy, abs=1e-12)


def test_entropy_bound_is_below_every_packing(facts: Facts) -> None:
    for row in facts["sizes"]["layers"]:
        if row["kind"] == "ternary":
            assert 0 < row["bound_bytes"] <= -(-row["weights"] // 5) < row["code_bytes"] == row["weights"] / 4


def test_packed_bytes_are_those_of_the_packed_file(cli: Any, facts: Facts, tmp_path: Path) -> None:
    packed = tmp_path / "net.tpack"
    assert cli("pack", "resnet20-cifar10-ternary", "-o", packed).code == 0
    assert facts["sizes"]["packed_bytes"] == packed.stat().st_size
    assert all(
        row["bound_bytes"] <= row["packed_bytes"] for row in facts["sizes"]["layers"] if row["kind"] == "ternary"
    )


def test_densities_are_those_of_the_codes(facts: Facts) -> None:
    codes = {row["name"]: row for row in facts["weights"]["codes"]}
    for row in facts["densities"]["layers"]:
        if row["name"] in codes:
            own = codes[row["name"]]
            assert row["density"] == pytest.approx((own["minus"] + own["plus"]) / row["weights"], abs=1e-12)
            assert row["minus_share"] + row["zero_share"] + row["plus_share"] == pytest.approx(1)
    assert facts["densities"]["layers"][1]["pruned"] == pytest.approx(0.5 / 3)  # the end of the run beside it


def _shape(name: str, shape: list[int], density: float, bits: int) -> Facts:
    given = {"name": name, "shape": shape, "density": density, "bits": bits, "weights": math.prod(shape)}
    return {**given, "kind": "ternary", "method": "ttq", "group_size": None, "wp": 0.5, "wn": 0.5}


def test_densities_and_widths_in_sum_and_beside_pruning() -> None:
    convolutions = [_shape("a", [1, 1, 3, 3], 1.0, 8), _shape("b", [3, 1, 3, 3], 0.5, 2)]
    layers = [*convolutions, _shape("c", [4, 6], 0.25, 2), _shape("d", [4, 15], 0.5, 8)]
    rows = [{"kind": "header", "recipe": {"deep_compression": {"bits_conv": 8, "bits_fc": 5}}}]
    rows += [{"kind": "final", "layers": {row["name"]: {"density": 0.1 * i} for i, row in enumerate(layers, 1)}}]
    found = density_facts({"layers": layers, "totals": {"weights": 120}}, {}, pruned_layers(rows))
    assert [(row["pruned"], row["pruned_bits"]) for row in found["layers"]] == [
        (pytest.approx(0.1 * i), bits) for i, bits in enumerate((8, 8, 5, 5), 1)
    ]
    sums = {row["name"]: row for row in found["totals"]}
    assert sums["convolutions"]["density"] == pytest.approx((9 * 1 + 27 * 0.5) / 36)
    assert sums["linear layers"]["bits"] == pytest.approx((24 * 2 + 60 * 8) / 84)
    assert sums["all layers"]["pruned"] == pytest.approx((9 * 0.1 + 27 * 0.2 + 24 * 0.3 + 60 * 0.4) / 120)
    assert sums["all layers"]["published_ttq"] is None


def test_alexnet_stands_beside_its_published_densities_and_widths() -> None:
    shapes = [[96, 3, 12, 12], [256, 48, 5, 5], [384, 256, 3, 3], [384, 192, 3, 3], [256, 192, 3, 3]]
    shapes += [[4096, 9216], [4096, 4096], [1000, 4096]]
    layers = [_shape(f"l{i}", shape, density, 2) for i, (shape, density) in enumerate(zip(shapes, TTQ, strict=True))]
    found = density_facts({"layers": layers, "totals": {"weights": 1}}, {}, None)
    assert found["beside"] == "published"
    assert [row["published_pruned_bits"] for row in found["layers"]] == [8, 8, 8, 8, 8, 5, 5, 5]
    for row in found["totals"]:  # the paper's own sums follow from its layers
        assert row["published_ttq"] == pytest.approx(row["density"], abs=0.006)
    text = " ".join(block.caption for block in sections.densities({"densities": found}) if isinstance(block, Table))
    assert "Table 4" in text


def test_kernels_by_hand() -> None:
    codes = np.zeros((2, 3, 2, 2), np.int8)
    codes[0, 0] = [[1, 0], [0, 0]]
    codes[0, 2] = [[1, -1], [0, 1]]
    found = kernel_facts("a", codes, positions=10)
    assert found is not None
    assert (found["kernels"], found["empty"], found["single"]) == (6, 4, 1)
    assert found["by_weights"] == [4, 1, 0, 1, 0]
    assert (found["empty_outputs"], found["unread_inputs"]) == (1, 1)
    assert (found["saved_bytes"], found["saved_macs"]) == (4, 160)
    assert found["sample"] == ["+000", "0000", "+-0+", "0000", "0000", "0000"]
    assert kernel_facts("linear", np.ones((4, 4), np.int8), 1) is None
    assert kernel_facts("1x1", np.ones((4, 4, 1, 1), np.int8), 1) is None


def test_operations_by_hand(facts: Facts) -> None:
    """layer1.0.conv1: 2,304 weights of which 1,186 are not zero, 32 × 32 pixels, Wp = Wn, 16 outputs."""
    rows = {row["name"]: row for row in facts["operations"]["layers"]}
    row = rows["layer1.0.conv1"]
    assert (row["macs"], row["additions"], row["multiplications"]) == (2304 * 1024, 1186 * 1024, 16 * 1024)
    assert row["pj"] == pytest.approx(1186 * 1024 * 0.1 + 16 * 1024 * 3.1)
    assert row["float_pj"] == pytest.approx(2304 * 1024 * 4.6)
    assert row["int8_pj"] == pytest.approx(2304 * 1024 * 0.3)
    assert rows["linear"]["multiplications"] == rows["linear"]["additions"] == 640
    assert rows["layer3.1.conv2"]["multiplications"] == 64 * 64
    assert facts["operations"]["macs"] == sum(r["macs"] for r in rows.values()) == 40_551_040
    ways = facts["operations"]["ways"]
    assert ways[2]["memory_pj"] == pytest.approx(facts["sizes"]["bytes"] / 8 * 1300)


def test_unequal_scales_take_two_multiplications_an_output() -> None:
    codes, scale = np.ones((3, 5), np.int8), np.ones(3, np.float32)
    equal = LayerWeights("l", "Conv", "ternary", codes, scale, plus=np.array([1, 2, 3]), minus=np.array([1, 2, 3]))
    assert scales_a_position(equal) == 3
    assert scales_a_position(replace(equal, minus=np.array([1, 2, 4]))) == 6


def test_time_of_the_steps_and_their_families(facts: Facts) -> None:
    times = facts["times"]
    assert sum(row["share"] for row in times["steps"]) == pytest.approx(1)
    assert sum(row["share"] for row in times["families"]) == pytest.approx(1)
    assert {row["family"] for row in times["steps"]} <= {"dense", "unpacked", "gather", "baked", "int8", "other"}
    assert next(row for row in times["steps"] if row["name"] == "conv1")["family"] == "int8"
    fused = next(row for row in times["steps"] if row["name"].startswith("layer1.0.conv2"))
    assert fused["layers"] == ["layer1.0.conv2", "layer1.0.add"]
    assert times["images_per_second"] == pytest.approx(1e6 / times["microseconds"])


@pytest.mark.parametrize("kernel", ["avx512vnni_6x64", "avx512amx_16x16"])
def test_the_limit_is_that_of_the_kernels_instructions(
    kernel: str, network: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock, "dot_products_per_cycle", lambda: 128.0)
    monkeypatch.setattr(clock, "tile_products_per_cycle", lambda: 1024.0)
    monkeypatch.setattr(clock, "hertz", lambda: 3e9)
    with Session(network, threads=1) as session:
        steps = [replace(step, kernel=kernel) for step in session.summary()]
        monkeypatch.setattr(session, "summary", lambda: steps)
        times = time_facts(session)
    row = next(row for row in times["steps"] if row["name"] == "layer1.0.conv1")
    limit = 1024 if "amx" in kernel else 128
    assert row["of_limit"] == pytest.approx(row["macs"] / (row["microseconds"] * 1e-6 * 3e9) / limit)
    said = " ".join(block.template for block in sections.times({"times": times}) if isinstance(block, Prose))
    assert ("which no layer uses here" in said) == (limit == 128)


def test_accuracy_counts(facts: Facts, data: Labelled, parent: FakeParent) -> None:
    found = facts["accuracy"]
    assert found["images"] == 60
    assert found["float_wrong"] == 2
    assert found["wrong"] == found["both_wrong"] + found["only_float_right"]
    assert found["float_wrong"] == found["both_wrong"] + found["only_ternary_right"]
    assert found["lost"] == pytest.approx((found["wrong"] - 2) / 60) == -found["gained"]
    assert sum(row["images"] for row in found["classes"]) == 60
    assert sum(round(row["error"] * row["images"]) for row in found["classes"]) == found["wrong"]
    assert facts["mistakes"]["images"] == found["only_float_right"] == len(facts["mistakes"]["shown"])


def test_mistakes_are_sorted_by_the_float_networks_certainty(data: Labelled) -> None:
    right = np.eye(10, dtype=np.float32)[data.labels]
    sure = right * np.linspace(1, 5, 60, dtype=np.float32)[:, None]
    found = mistake_facts(np.roll(right, 1, axis=1), sure, data)
    assert found["images"] == 60
    assert [row["image"] for row in found["shown"]] == list(range(59, 39, -1))
    first = found["shown"][0]
    assert first["float_probability"] == pytest.approx(math.exp(5) / (math.exp(5) + 9), rel=1e-5)
    assert first["label"] == first["float"] != first["ternary"]


def test_sensitivity_is_the_rise_of_the_error(facts: Facts) -> None:
    found = facts["sensitivity"]
    assert found["float_error"] == pytest.approx(2 / 60)
    assert [row["name"] for row in found["layers"]] == ["layer1.0.conv1", "layer3.2.conv2"]  # linear is not ternary
    assert [row["cost"] for row in found["layers"]] == pytest.approx([0, 3 / 60])
    assert found["layers"][1]["loss_cost"] == pytest.approx(3 * 3 / 60, rel=1e-5)  # logits 3 high: each costs 3 nats


@pytest.mark.parametrize(("lost", "won", "chance"), [(5, 0, 0.0625), (0, 0, 1.0), (3, 3, 1.0), (8, 2, 0.109375)])
def test_sign_test_by_hand(lost: int, won: int, chance: float) -> None:
    assert sign_test(lost, won) == sign_test(won, lost) == pytest.approx(chance)


def test_accuracy_without_a_parent(data: Labelled) -> None:
    logits = np.eye(10, dtype=np.float32)[data.labels]
    found = accuracy_facts(logits, None, data)
    assert found["wrong"] == 0
    assert "float_error" not in found


def test_training_series(facts: Facts) -> None:
    found = facts["training"]
    assert found["epochs"] == [1, 2, 3]
    assert found["layers"][0]["wp"] == pytest.approx([0.1, 0.2, 0.3])
    assert (found["layers"][0]["wp_first"], found["layers"][0]["density_last"]) == (0.1, 0.5 / 3)
    assert found["hours"] == pytest.approx(0.05)
    assert [row["loss"] for row in found["milestones"]] == [2.0, 1.0, pytest.approx(2 / 3)]
    assert len(facts["weights"]["latents"]) == 2


@given(
    arrays.arrays(np.float32, st.integers(1, 80), elements=st.floats(-4, 4, width=32)),
    st.floats(0, 5, width=32),
)
@settings(derandomize=True, deadline=None, max_examples=80)
def test_histograms_count_every_latent_once(values: np.ndarray[Any, Any], threshold: float) -> None:
    found = histogram(values, threshold)
    assert sum(found["counts"]) + found["outside"] == len(values) == found["latents"]
    assert found["below"] == sum(v < -threshold for v in values.tolist())
    assert found["below"] + found["within"] + found["above"] == len(values)
    assert 0 < len(found["counts"]) <= 200
    if threshold > found["width"]:
        ratio = threshold / found["width"]
        assert ratio == pytest.approx(round(ratio)) or threshold > found["high"]


def test_a_long_run_has_some_epochs_in_its_table(tmp_path: Path) -> None:
    path = tmp_path / "record.jsonl"
    rows = ({"kind": "epoch", "epoch": n, "loss": float(n)} for n in range(1, 166))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    shown = training_facts(read_run(path), [], path)["milestones"]
    assert [row["epoch"] for row in shown] == [int(row["loss"]) for row in shown]
    assert (len(shown), shown[0]["epoch"], shown[-1]["epoch"]) == (12, 1, 165)


def _epoch(**fields: Any) -> str:
    return json.dumps({"kind": "epoch", "epoch": 1, **fields}) + "\n"


def test_records_cut_short_or_damaged(tmp_path: Path) -> None:
    path = tmp_path / "record.jsonl"
    path.write_text(_epoch() + '{"kind": "epoch", "epo')
    assert len(read_run(tmp_path)) == 1
    for text in ("", "{}\n", "[1]\n" + _epoch(), "no json\n", _epoch()[:-1], "[" * 100_000 + "\n"):
        path.write_text(text)
        with pytest.raises(UserError, match=r"record\.jsonl"):
            read_run(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError):
        read_run(path)
    with pytest.raises(UserError, match="no run record"):
        read_run(tmp_path / "nothing.jsonl")


def test_records_with_odd_values_are_read(tmp_path: Path) -> None:
    odd = {"a": {"wp": float("nan"), "wn": [0.1, 0.3], "density": "x", "threshold": 10**400}, "b": 7}
    path = tmp_path / "r.jsonl"
    path.write_text(_epoch(loss=float("inf"), train_error=None, layers=odd, seconds="long"))
    found = training_facts(read_run(path), ["a"], path)
    row = found["layers"][0]
    assert (row["wp"], row["wn"], row["density"], row["threshold_last"]) == ([None], [pytest.approx(0.2)], [None], None)
    assert found["loss"] == [None]
    json.dumps(found, allow_nan=False)


def test_the_record_of_another_network_is_refused(network: Path, tmp_path: Path) -> None:
    path = tmp_path / "record.jsonl"
    path.write_text(_epoch(layers={"features.0": {"density": 0.5}, "features.3": {"density": 0.5}}))
    with pytest.raises(UserError, match="another network"):
        gather(network, Evidence(run=path), threads=1)


def test_a_bench_of_another_file_or_a_damaged_one_is_refused(bench_file: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="this one has 5"):
        read_bench(bench_file, 5)
    text = bench_file.read_text()
    path = tmp_path / "bench.json"
    for broken in (text[:100], "{}", "[]", '{"cells": [{"rows": []}]}', text.replace('"ratio": 1.0', '"ratio": 0')):
        path.write_text(broken)
        with pytest.raises(UserError, match="no whole bench"):
            read_bench(path, 88_402)
    with pytest.raises(UserError, match="no bench"):
        read_bench(tmp_path / "none.json", 5)


def test_the_verdict_claims_what_was_measured(facts: Facts, bare: Facts) -> None:
    size = "resnet20-cifar10-ternary is 12.5 times smaller than as float32 (85.8 kB instead of 1.08 MB)"
    time = r" and takes [\d.]+ (µs|ms) an image on 1 thread of this machine\."
    assert re.fullmatch(re.escape(size) + time, bare["verdict"]["sentence"])
    said = facts["verdict"]["sentence"]
    assert "runs 4.00 times as fast as slow and 0.80 times as fast as fast" in said
    assert f"of 60 images wrong instead of {100 * 2 / 60:.2f} %" in said
    assert ("within chance" in said) == (facts["accuracy"]["chance"] >= 0.1)


def test_of_many_classes_the_page_names_the_worst() -> None:
    labels = np.arange(60).repeat(2)
    data = Labelled(np.zeros((120, 3, 4, 4), np.uint8), labels, tuple(f"c{k}" for k in range(60)), lambda x: x)
    logits = np.eye(60, dtype=np.float32)[np.where(labels % 3 == 0, (labels + 1) % 60, labels)]
    found = accuracy_facts(logits, None, data)
    assert len(found["classes"]) == 60
    assert [row["name"] for row in found["worst_classes"]] == [f"c{k}" for k in range(0, 60, 3)]
    assert accuracy_facts(logits[:20, :50], None, replace(data, labels=labels[:20]))["worst_classes"] == []
    few = accuracy({"accuracy": found})  # two images a class
    assert not any(isinstance(block, Table) for block in few)


def test_alexnet_is_recognised_by_its_shapes() -> None:
    convolutions = [[96, 3, 12, 12], [256, 48, 5, 5], [384, 256, 3, 3], [384, 192, 3, 3], [256, 192, 3, 3]]
    linear = [[4096, 9216], [4096, 4096], [1000, 4096]]
    assert looks_like_alexnet(convolutions + linear)
    assert not looks_like_alexnet(convolutions[::-1] + linear)
    assert not looks_like_alexnet(linear + convolutions)
    assert not looks_like_alexnet([])


@pytest.mark.parametrize("channels", [1, 3])
def test_png_is_what_pillow_reads(channels: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (channels, 5, 7), np.uint8)
    with Image.open(BytesIO(png(pixels))) as image:
        read = np.asarray(image)
    assert np.array_equal(read.reshape(5, 7, channels).transpose(2, 0, 1), pixels)


@pytest.mark.parametrize(
    ("value", "form", "text"),
    [
        (88_402, "bytes", "88.4 kB"), (999, "bytes", "999 B"), (1_076_136, "bytes", "1.08 MB"), (0, "bytes", "0 B"),
        (-1200, "change", "−1.2 kB"), (12_200, "change", "+12.2 kB"), (0.0872, "percent2", "8.72 %"),
        (-0.003, "points", "−0.3"), (0.14, "number", "0.140"), (123.4, "number", "123"), (1e-7, "number", "1.00e−07"),
        (120.66, "time", "120.7 µs"), (21_080.0, "time", "21.08 ms"), (None, "bytes", "–"), (0, "number", "0.00"),
        (188_470_000.0, "energy", "188.47 µJ"), (640, "large", "640"), (1_940_000_000, "large", "1.94 G"),
    ],
)  # fmt: skip
def test_forms(value: float | None, form: str, text: str) -> None:
    assert show(value, form).text.replace("\u00a0", " ") == text
