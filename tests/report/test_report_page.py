"""The page: every number is one of the facts, nothing is loaded, nothing of a file becomes markup."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from report_examples import Page, read_number, value_at

from tritkit.report import Evidence, Labelled, gather, html_page, markdown_page, pictures
from tritkit.report.figures import draw

Facts = dict[str, Any]
# words of ours and of formats that hold digits without being measured
WORDS = (
    r"float32|int8|64 bits|2 bits|2-bit|Table 4|45 nm|0\.9 V|ISSCC 2014|NIPS 2015|10 %|90 %|\b0\b|1,000 images|int32"
)


@pytest.fixture(scope="module")
def page(facts: Facts, data: Labelled) -> Page:
    return Page(html_page(facts, pictures(facts, data)))


def test_every_number_is_the_json_s(page: Page, facts: Facts) -> None:
    printed = json.loads(json.dumps(facts))
    assert len(page.facts) > 700
    for key, exact, scale, text in page.facts:
        value = value_at(printed, key)
        assert json.loads(exact.replace("True", "true")) == value, key
        shown, half = read_number(text)
        assert abs(shown - value * scale) <= half, (key, text, value)


def test_no_number_stands_on_the_page_without_its_key(page: Page, facts: Facts) -> None:
    names = {row["name"] for row in facts["times"]["steps"]} | {row["name"] for row in facts["sizes"]["layers"]}
    names |= {row["shape"] for row in facts["densities"]["layers"]}
    names |= {part for name in names for part in name.split(" + ")}
    names |= {facts["model"]["name"], facts["model"]["file"], facts["model"]["version"], facts["times"]["cpu"]}
    known = re.compile("|".join([*(re.escape(n) for n in sorted(names, key=len, reverse=True)), WORDS]))
    assert [text for text in page.loose if re.search(r"\d", known.sub("", text))] == []


def test_cells_of_numbers_have_keys(page: Page) -> None:
    assert all(traced or text == "–" for traced, text in page.cells)
    assert sum(traced for traced, _ in page.cells) > 500


def test_the_page_loads_nothing_and_runs_nothing(page: Page) -> None:
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "link", "iframe", "object", "form"}
    for tag, given in page.tags:
        assert not any(key.startswith("on") for key in given)
        if tag == "a":
            assert str(given["href"]).startswith("#")
        if "src" in given:
            assert str(given["src"]).startswith("data:image/png;base64,")
    policy = next(given["content"] for tag, given in page.tags if given.get("http-equiv"))
    assert str(policy).startswith("default-src 'none'")


def test_drawings_have_titles_or_stand_beside_their_numbers(facts: Facts) -> None:
    html = html_page(facts, {})
    for svg in re.findall(r"<svg[^>]*>(?:<title>|.)", html):
        assert 'aria-hidden="true"' in svg or svg.endswith("<title>"), svg
    assert html.count("<h1>") == 1
    for anchor in re.findall(r'href="#(\w+)"', html):
        assert f'<section id="{anchor}">' in html


def test_sections_without_evidence_are_left_out_and_named(bare: Facts, facts: Facts) -> None:
    short, whole = (set(re.findall(r'<section id="(\w+)">', html_page(f, {}))) for f in (bare, facts))
    assert short == {"sizes", "densities", "times", "kernels", "operations"}
    assert whole == short | {"speed", "accuracy", "sensitivity", "mistakes", "training", "weights"}
    ways = " ".join(row["how"] for row in bare["verdict"]["missing"])
    assert all(option in ways for option in ("--run", "--bench", "--data", "--float"))
    assert facts["verdict"]["missing"] == []


def test_markdown_has_the_same_tables(facts: Facts) -> None:
    text = markdown_page(facts)
    assert "| linear | int8 | 640 |" in text
    assert "## Which layer costs what" in text
    assert text.startswith("# resnet20-cifar10-ternary\n\n**resnet20-cifar10-ternary is 12.5 times smaller")
    for table in re.findall(r"(?:^\|.*\n)+", text, re.M):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1


EVIL = "<script>alert(1)</script>|`x`[a](b)\u202e\x07"


@pytest.fixture(scope="module")
def evil(network: Path, tmp_path_factory: pytest.TempPathFactory) -> Facts:
    """The network with a layer, its method and a class of that name."""
    model = onnx.load(network)
    node = next(node for node in model.graph.node if node.name == "layer1.0.conv1")
    node.name = EVIL
    said = {entry.key: entry for entry in model.metadata_props}
    layers = json.loads(said["tritkit.layers"].value)
    layers[0] |= {"name": EVIL, "method": EVIL}
    said["tritkit.layers"].value = json.dumps(layers)
    said["tritkit.version"].value = EVIL
    path = tmp_path_factory.mktemp("evil") / "<b>net.onnx"
    onnx.save(model, path)
    return gather(path, Evidence(), threads=1)


def test_names_of_a_file_are_text(evil: Facts) -> None:
    assert any(row["name"] == EVIL for row in evil["sizes"]["layers"])
    html = html_page(evil, {})
    assert "<script" not in html
    assert "<b>net" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "\x07" not in html
    assert "\u202e" not in html
    assert "script" not in {tag for tag, _ in Page(html).tags}


def test_names_of_a_file_are_no_markdown(evil: Facts) -> None:
    text = markdown_page(evil)
    assert r"\<script\>alert(1)\</script\>\|\`x\`\[a\](b)" in text
    assert not re.search(r"(?<!\\)<", text)
    assert "\x07" not in text


def test_hostile_text_in_a_template_stays_text() -> None:
    from tritkit.report.markup import prose

    facts = {"a": "{b|count}<i>", "b": 5}
    assert prose("x {a} {b|count}", facts) == ('x {b|count}&lt;i&gt; <data value="5" data-key="b">5</data>')


def _area(html: str, colour: str) -> list[int]:
    """Squares of a colour in each drawing of kernels."""
    drawn = re.findall(rf'<path d="([^"]*)" class="k-{colour}">', html)
    return [sum(int(run) for run in re.findall(r"h(\d+)v", path)) for path in drawn]


@pytest.mark.parametrize("kernels", [3, 24, 31, 48])
def test_drawn_kernels_have_as_many_squares_as_weights(kernels: int) -> None:
    random = np.random.default_rng(kernels)
    sample = ["".join(random.choice(list("+-0"), 6)) for _ in range(kernels)]
    row = {"name": "a", "height": 2, "width": 3, "sample": sample, "empty_share": 0.5, "kernels": kernels}
    html = draw("kernels", [row], "kernels.layers", {})
    assert _area(html, "white") == ["".join(sample).count("+")]
    assert _area(html, "black") == ["".join(sample).count("-")]
    grey = re.findall(r'<rect (?:y="\d+" )?width="(\d+)" height="(\d+)" class="k-grey">', html)
    lines = -(-kernels // 24)
    assert sum((int(w) + 1) // 4 * ((int(h) + 1) // 3) for w, h in grey) == kernels
    assert f'viewBox="0 0 {4 * min(kernels, 24) - 1} {3 * lines - 1}"' in html
