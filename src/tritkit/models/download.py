"""Published weights by URL: kept in a cache, checked against the checksum that the URL carries."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable
from pathlib import Path

from tritkit.errors import UserError

_CHECKSUM = re.compile(r"sha256=([0-9a-f]{8,64})")


def fetch(url: str, folders: Iterable[Path] = ()) -> Path:
    """The file at `url`, which ends in "#sha256=" and at least the first 8 hexadecimal digits of its SHA-256, as the
    names of torchvision's files have them.

    A file of the same name in one of `folders` or in the cache ($TRITKIT_CACHE, else ~/.cache/tritkit) is taken if its
    checksum fits; otherwise the file is fetched into the cache, whole or not at all. Raises UserError for a URL of
    another form or without checksum, a server that cannot be reached, another checksum, a cache that cannot be
    written.
    """
    parts = urllib.parse.urlsplit(url)
    checksum, name = _CHECKSUM.fullmatch(parts.fragment), Path(urllib.parse.unquote(parts.path)).name
    if parts.scheme not in ("http", "https") or not name or checksum is None:
        raise UserError(f"{url} cannot be fetched; allowed: https://HOST/FILE#sha256=DIGITS, at least 8 digits")
    for folder in (*folders, _cache()):
        if (folder / name).is_file():
            _check(folder / name, checksum[1])
            return folder / name
    return _download(url.partition("#")[0], _cache() / name, checksum[1])


def _cache() -> Path:
    named = os.environ.get("TRITKIT_CACHE")
    return Path(named) if named else Path.home() / ".cache" / "tritkit"


def _download(url: str, target: Path, checksum: str) -> Path:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".fetching-") as scratch:
            fetched = Path(scratch) / target.name
            _fetch(url, fetched, target.name)
            _check(fetched, checksum, url)
            os.replace(fetched, target)
    except OSError as error:
        raise UserError(
            f"cannot store {target} ({error.strerror or error}); set TRITKIT_CACHE to a folder with room"
        ) from error
    return target


def _fetch(url: str, into: Path, name: str) -> None:
    hint = f"fetch it elsewhere and put {name} into the folder pretrained of $TRITKIT_DATA"
    try:
        with urllib.request.urlopen(url, timeout=30) as response, into.open("wb") as out:
            shutil.copyfileobj(response, out)
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        raise UserError(f"cannot reach {url} ({getattr(error, 'reason', error)}); {hint}") from error


def _check(path: Path, checksum: str, source: str | None = None) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if not found.startswith(checksum):
        sums = f"SHA-256 {found[:16]}…, expected {checksum}…"
        raise UserError(f"{source or path} has {sums}; remove it and fetch it again")
