"""What a network takes. No torch here: a process that runs our engine must not hold it in its memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_PATCH = 8  # pixels


@dataclass(frozen=True)
class Shape:
    """kind: "network", "conv", "linear" or "file". input: shape of one image. positive: images are not negative, as a
    layer within a network sees them behind a ReLU.
    """

    kind: str
    input: tuple[int, ...]
    positive: bool = False

    def images(self, count: int, seed: int) -> NDArray[np.float32]:
        """`count` random images, the same for the same seed. Those of a network have patches of one colour under their
        noise: images of noise alone look all the same to deep layers, which makes their batch norms meaningless.
        """
        return np.stack([self._image(np.random.default_rng((seed, index))) for index in range(count)])

    def _image(self, generator: np.random.Generator) -> NDArray[np.float32]:
        """One image, drawn alone: the first of a batch is the same in batches of any size."""
        drawn = generator.standard_normal(self.input, dtype=np.float32)
        if self.positive or len(self.input) != 3:
            return np.abs(drawn) if self.positive else drawn
        channels, height, width = self.input
        coarse = (channels, -(-height // _PATCH), -(-width // _PATCH))
        patches = generator.standard_normal(coarse, dtype=np.float32).repeat(_PATCH, 1).repeat(_PATCH, 2)
        return patches[:, :height, :width] + np.float32(0.3) * drawn
