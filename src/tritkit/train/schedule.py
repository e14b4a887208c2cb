"""The learning rate as a pure function of the step, so that a checkpoint needs only the step."""

from __future__ import annotations

import math

from tritkit.train.recipe import Cosine, Steps


def rate_factor(schedule: Cosine | Steps, step: int, steps_per_epoch: int, epochs: int) -> float:
    """What the peak rate is multiplied by at `step` (0 is the first), in 0..1.

    The way up gives (step + 1) / warm-up steps; the cosine then reaches 0 one step after the last.
    """
    warmup = round(schedule.warmup_epochs * steps_per_epoch)
    if step < warmup:
        return (step + 1) / warmup
    if isinstance(schedule, Steps):
        return math.prod(schedule.factor for epoch in schedule.at if step >= epoch * steps_per_epoch)
    total = epochs * steps_per_epoch
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))
