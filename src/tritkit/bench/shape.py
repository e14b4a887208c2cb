"""What a network takes. No torch here: a process that runs our engine must not hold it in its memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Shape:
    """kind: "network", "conv", "linear" or "file". input: shape of one image. positive: images are not negative, as a
    layer within a network sees them behind a ReLU.
    """

    kind: str
    input: tuple[int, ...]
    positive: bool = False

    def images(self, count: int, seed: int) -> NDArray[np.float32]:
        """`count` random images, the same for the same seed."""
        drawn = np.random.default_rng(seed).standard_normal((count, *self.input), dtype=np.float32)
        return np.abs(drawn) if self.positive else drawn
