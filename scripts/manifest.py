"""What the packaging scripts share: a file of the zoo and its row in manifest.json."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any


def add_entry(folder: Path, name: str, suffix: str, data: bytes, **facts: Any) -> Path:
    """Write `data` as `folder`/`name``suffix` and its row in the manifest; returns the file's path."""
    folder.mkdir(parents=True, exist_ok=True)
    path, manifest = folder / f"{name}{suffix}", folder / "manifest.json"
    entries = json.loads(manifest.read_text()) if manifest.exists() else {}
    entries[name] = {"file": path.name, "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data), **facts}
    _replace(path, data)
    ordered = {key: entries[key] for key in sorted(entries)}
    _replace(manifest, (json.dumps(ordered, indent=1, ensure_ascii=False) + "\n").encode())
    return path


def _replace(path: Path, data: bytes) -> None:
    scratch = path.with_name(path.name + ".tmp")
    scratch.write_bytes(data)
    os.replace(scratch, path)
