#!/usr/bin/env python3
"""Writes results/report/alexnet-bn-random.html and .md: the report of an AlexNet-BN of random weights, half of them 0.

Nobody's trained AlexNet-BN ships with tritkit, so the page shows what its shape decides: bytes, time and operations.

    python benchmarks/alexnet_report.py
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from tritkit.bench.making import make_files
from tritkit.bench.plan import Plan
from tritkit.report import Evidence, gather, html_page, markdown_page

RESULTS = Path(__file__).resolve().parent.parent / "results" / "report"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        make_files(Plan("alexnet-bn", density=0.5, scales="asymmetric"), Path(folder))
        network = Path(folder) / "alexnet-bn-random.onnx"
        shutil.move(Path(folder) / "ternary.onnx", network)
        facts = gather(network, Evidence(), threads=1)
    page = RESULTS / f"{network.stem}.html"
    page.write_text(html_page(facts, {}), encoding="utf-8")
    page.with_suffix(".md").write_text(markdown_page(facts), encoding="utf-8")
    print(facts["verdict"]["sentence"])


if __name__ == "__main__":
    main()
