"""What an engine computes is checked before it is timed."""

from __future__ import annotations

import numpy as np

from tritkit.bench.workload import Array, Workload

LEAST_CORRELATION = 0.95
"""With the float network. A wrong layout or a broken conversion falls far below; int8 engines reach 0.97 to 1.00 on
random networks, the less the deeper (OpenVINO 0.979 on ResNet-50), as nothing trained them to bear the rounding.
"""


def expected_output(work: Workload, batch: int) -> Array:
    """What the float network gives for the timed images; kept in the workload's folder."""
    path = work.folder / f"expected-{batch}.npy"
    if not path.is_file():
        import torch

        with torch.inference_mode():
            result = work.network()(torch.from_numpy(work.images(batch))).numpy()
        temporary = path.with_suffix(".part.npy")
        np.save(temporary, result)
        temporary.rename(path)
    expected: Array = np.load(path)
    return expected


def check_ours(output: Array, work: Workload) -> str | None:
    """What is wrong with our output, whose first image must have the bits of the NumPy reference; None if nothing."""
    reference = np.load(work.folder / "reference.npy")
    if output[:1].shape == reference.shape and output[:1].tobytes() == reference.tobytes():
        return None
    return f"its output for the first image is not the reference's, bit for bit (shape {list(output.shape)})"


def check_peer(output: Array, expected: Array) -> tuple[float | None, str | None]:
    """(correlation with the float network over all outputs, what is wrong or None)."""
    if output.shape != expected.shape:
        return None, f"its output has the shape {list(output.shape)}, the network's has {list(expected.shape)}"
    if not np.isfinite(output).all():
        return None, "its output holds NaN or infinity"
    a, b = (x.astype(np.float64).ravel() - x.astype(np.float64).mean() for x in (output, expected))
    scale = float(np.sqrt((a @ a) * (b @ b)))
    correlation = float(a @ b) / scale if scale > 0 else 0.0
    if correlation < LEAST_CORRELATION:
        return correlation, f"its output correlates with the float network's by {correlation:.3f} only"
    return correlation, None
