"""The page in headless Chromium, if installed: a silent console, no wider than the screen, dark where asked."""

from __future__ import annotations

import runpy
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tritkit.report import Labelled, html_page, pictures

_SCRIPT = runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "report_pictures.py"))
PROGRAM = _SCRIPT["find_browser"]()
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="Chromium is not installed")
_CUT = """[...document.querySelectorAll('h1, h2, p, figcaption, .tiles strong')]
    .filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.textContent)"""


@pytest.fixture(scope="module")
def page(facts: dict[str, Any], data: Labelled, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(html_page(facts, pictures(facts, data)), encoding="utf-8")
    return path


def test_phone_and_desktop_light_and_dark(page: Path) -> None:
    with _SCRIPT["browser"](PROGRAM) as opened:
        for width, height, ratio in _SCRIPT["SIZES"].values():
            for dark in (False, True):
                opened.open(page, width, height, ratio, dark)
                assert opened.ask("document.documentElement.scrollWidth") <= width
                assert opened.ask(_CUT) == []
                with Image.open(BytesIO(opened.picture(whole=False))) as image:
                    pixels = np.asarray(image.convert("L"), np.float64)
                assert (pixels.mean() < 80) == dark
                assert pixels.std() > 5  # there is something on it
        assert opened.said == []


def test_a_page_that_says_something_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "loud.html"
    page.write_text("<script>console.log('heard'); nothing.there;</script><p style='width: 2000px'>wide</p>")
    with _SCRIPT["browser"](PROGRAM) as opened:
        opened.open(page, 390, 844, 1, False)
        assert opened.said[0] == "heard"
        assert len(opened.said) == 2
        assert opened.ask("document.documentElement.scrollWidth") > 390
