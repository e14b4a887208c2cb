"""PNG files of small images, written by hand: three chunks."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tritkit.report.accuracy import Labelled

_COLOURS = {1: 0, 3: 2}  # channels → PNG's colour type
_LARGEST = 96  # pixels a side; larger images are thinned out


def png(pixels: NDArray[np.uint8]) -> bytes:
    """An image [C, H, W] with 1 or 3 channels."""
    channels, height, width = pixels.shape
    rows = np.ascontiguousarray(pixels.transpose(1, 2, 0)).reshape(height, width * channels)
    filtered = np.concatenate([np.zeros((height, 1), np.uint8), rows], axis=1)  # filter 0 before each row
    header = struct.pack(">IIBBBBB", width, height, 8, _COLOURS[channels], 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(filtered.tobytes(), 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def pictures(facts: dict[str, Any], data: Labelled | None) -> dict[int, bytes]:
    """The PNG of each image that the facts' mistakes name, by its number."""
    if data is None or facts["mistakes"] is None or data.images.shape[1] not in _COLOURS:
        return {}
    step = -(-max(data.images.shape[2:]) // _LARGEST)
    return {row["image"]: png(data.images[row["image"]][:, ::step, ::step]) for row in facts["mistakes"]["shown"]}
