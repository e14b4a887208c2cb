"""A report about a model file: the facts first, as plain dicts, then pages and tables drawn from them alone.

facts = gather(Path("net.onnx"), Evidence(run=Path("runs/ttq")), threads=1)
page = html_page(facts, pictures(facts, None))
"""

from __future__ import annotations

from tritkit.report.accuracy import FloatParent, Labelled
from tritkit.report.gathering import Evidence, gather
from tritkit.report.markdown import markdown_page
from tritkit.report.page import html_page
from tritkit.report.png import pictures

__all__ = ["Evidence", "FloatParent", "Labelled", "gather", "html_page", "markdown_page", "pictures"]
