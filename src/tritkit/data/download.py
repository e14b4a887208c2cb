"""Fetch CIFAR-10 from its home, check it, unpack it."""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from tritkit.errors import UserError

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
MD5 = "c32a1d4ab5d03f1284b67883e8d87530"
_FOLDER = "cifar-10-batches-bin"
_CHUNK = 1 << 20  # bytes


def download_cifar10(
    dest: str | Path, progress: Callable[[int, int], None] | None = None, url: str = URL, md5: str = MD5
) -> Path:
    """Put CIFAR-10's binary layout under `dest` and return its folder; does nothing if it is there already.

    `progress(done, total)` is called with bytes as they come. The archive is checked against `md5` before it is opened,
    unpacked beside its place and renamed, so the folder is whole or absent. Raises UserError if the server
    cannot be reached, the checksum differs or `dest` cannot be written.
    """
    folder = Path(dest) / _FOLDER
    if folder.is_dir():
        return folder
    try:
        Path(dest).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=dest, prefix=".cifar10-") as scratch:
            archive = Path(scratch) / "archive.tar.gz"
            _fetch(url, archive, progress or (lambda done, total: None))
            _check(archive, md5, url)
            _unpack(archive, Path(scratch))
            os.replace(Path(scratch) / _FOLDER, folder)
    except OSError as error:
        raise UserError(f"cannot store CIFAR-10 in {dest}: {error.strerror or error}; choose another folder") from error
    return folder


def _fetch(url: str, archive: Path, progress: Callable[[int, int], None]) -> None:
    try:
        response = urllib.request.urlopen(url, timeout=30)
    except (urllib.error.URLError, TimeoutError) as error:
        reason = getattr(error, "reason", error)
        raise UserError(f"cannot reach {url} ({reason}); fetch it elsewhere and unpack it in ./data/cifar10") from error
    with response, archive.open("wb") as out:
        total = int(response.headers.get("Content-Length") or 0)
        while chunk := response.read(_CHUNK):
            out.write(chunk)
            progress(out.tell(), total)


def _check(archive: Path, md5: str, url: str) -> None:
    with archive.open("rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if found != md5:
        raise UserError(f"{url} has MD5 {found}, expected {md5}: the download is broken; run it again")


def _unpack(archive: Path, into: Path) -> None:
    """Only plain files of the one expected folder are taken; a name that leads elsewhere is refused."""
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                parts = Path(member.name).parts
                if not member.isfile():
                    continue
                if len(parts) != 2 or parts[0] != _FOLDER:
                    raise UserError(f"the archive has an unexpected file {member.name!r}; it was not unpacked")
                _extract(tar, member, into / _FOLDER / parts[1])
    except tarfile.TarError as error:
        raise UserError(f"the archive cannot be opened ({error}); run the download again") from error


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    target.parent.mkdir(exist_ok=True)
    source = tar.extractfile(member)
    if source is not None:
        with source, target.open("wb") as out:
            shutil.copyfileobj(source, out)
