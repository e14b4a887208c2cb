"""The site's pages: every link leads somewhere, every method has its page, nothing is fetched from elsewhere."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

from tritkit.methods import names

ROOT = Path(__file__).parents[2]


def test_pages_are_gathered(tmp_path: Path) -> None:
    runpy.run_path(str(ROOT / "scripts" / "docs_pages.py"))["gather"](tmp_path / "docs")
    made = {str(path.relative_to(tmp_path / "docs")) for path in (tmp_path / "docs").rglob("*.md")}
    assert {f"methods/{name}.md" for name in [*names(), "deep-compression", "dorefa-low-bit"]} <= made
    assert {"index.md", "tutorial.md", "format.md", "c-api.md", "adding-a-method.md", "adding-a-kernel.md"} <= made
    ttq = (tmp_path / "docs" / "methods" / "ttq.md").read_text()
    assert "dL/dWn = − Σ g over w < −Δ" in ttq
    nav = (ROOT / "mkdocs.yml").read_text()
    named = {line.rsplit(": ", 1)[1] for line in nav.splitlines() if line.strip().startswith("- ") and ".md" in line}
    assert named <= made


def test_links_of_the_gathered_pages_lead_somewhere(tmp_path: Path) -> None:
    runpy.run_path(str(ROOT / "scripts" / "docs_pages.py"))["gather"](tmp_path / "docs")
    broken = []
    for page in (tmp_path / "docs").rglob("*.md"):
        text = re.sub(r"```.*?```|`[^`]*`", "", page.read_text(), flags=re.S)
        targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text)
        broken += [(page.name, t) for t in targets if "://" not in t and not (page.parent / t).is_file()]
    assert broken == []


def test_a_docstring_becomes_prose() -> None:
    prose = runpy.run_path(str(ROOT / "scripts" / "docs_pages.py"))["prose"]
    given = "Scales stay\npositive: a*b.\nt_s: `a_b`, in [0, 1),\n    or more.\n\n    y = a*b"
    assert prose(given) == "Scales stay\npositive: a\\*b.\n\n**t\\_s:** `a_b`, in [0, 1),\nor more.\n\n    y = a*b"


def test_the_doctors_findings_are_all_on_its_page() -> None:
    from tritkit.diagnosis import KINDS

    page = (ROOT / "docs" / "doctor.md").read_text()
    assert [kind for kind in KINDS if f"`{kind}`" not in page] == []


def test_no_font_or_script_is_fetched() -> None:
    assert "font: false" in (ROOT / "mkdocs.yml").read_text()


def test_the_picture_is_of_the_record(tmp_path: Path) -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "docs_picture.py"))
    script["main"].__globals__["PICTURE"] = tmp_path / "training.svg"
    script["main"]()
    assert (tmp_path / "training.svg").read_text() == script["ROOT"].joinpath("docs/pictures/training.svg").read_text()
