"""`python -m tritkit`: the command line."""

from __future__ import annotations

from tritkit.cli import main

if __name__ == "__main__":
    main()
