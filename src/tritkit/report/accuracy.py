"""How often the network is wrong, where it parts from its float parent, and which layer costs what."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Facts = dict[str, Any]
Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]
Say = Callable[[str], None]

SHOWN = 20  # mistakes that have a picture
SENSITIVITY_IMAGES = 1000  # of CIFAR-10's size; of photographs FEWEST_SENSITIVITY
FEWEST_SENSITIVITY = 200
_MANY_CLASSES, _WORST_CLASSES = 50, 20
_VALUES = 50 * 3 * 224 * 224  # of a batch


@dataclass(frozen=True)
class Labelled:
    """uint8 images [N, C, H, W], int64 labels [N] in 0..K−1, names of the K classes; `normalise` makes inputs of
    images, float32 of the same shape.
    """

    images: Pixels
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    normalise: Callable[[Pixels], Floats]


class FloatParent(Protocol):
    """The float network that a ternary one was made from.

    normalise: makes its inputs of images, which may be others than the ternary network's.
    """

    @property
    def normalise(self) -> Callable[[Pixels], Floats]: ...

    def logits(self, images: Floats) -> Floats:
        """[N, C, H, W] → [N, K]."""
        ...

    def one_layer_ternary(self, images: Floats) -> Iterator[tuple[str, Floats]]:
        """For each layer that can be ternary its name, and the logits of the network in which it alone is."""
        ...


def batch_size(images: Pixels | Floats) -> int:
    """How many of the images [N, C, H, W] run at once: 500, or 50 photographs of 224 pixels."""
    return int(np.clip(_VALUES // max(images[0].size, 1), 1, 500))


def predictions(run: Callable[[Floats], Any], data: Labelled) -> Floats:
    """Logits [N, K] of all images."""
    batch = batch_size(data.images)
    steps = range(0, len(data.images), batch)
    return np.concatenate([np.asarray(run(data.normalise(data.images[i : i + batch]))) for i in steps])


def accuracy_facts(logits: Floats, float_logits: Floats | None, data: Labelled) -> Facts:
    """Errors of both networks, their agreement, and the errors of each class."""
    guess, labels = logits.argmax(1), data.labels
    wrong = guess != labels
    made: Facts = {"images": len(labels), "wrong": int(wrong.sum()), "error": float(wrong.mean())}
    made |= _by_class(wrong, None, data)
    if float_logits is None:
        return made
    before = float_logits.argmax(1)
    float_wrong = before != labels
    lost, won = int((wrong & ~float_wrong).sum()), int((~wrong & float_wrong).sum())
    return made | {
        "float_wrong": int(float_wrong.sum()),
        "float_error": float(float_wrong.mean()),
        "lost": float(wrong.mean() - float_wrong.mean()),
        "gained": float(float_wrong.mean() - wrong.mean()),
        "agreement": float((guess == before).mean()),
        "both_wrong": int((wrong & float_wrong).sum()),
        "only_float_right": lost,
        "only_ternary_right": won,
        "chance": sign_test(lost, won),
        **_by_class(wrong, float_wrong, data),
    }


def sign_test(lost: int, won: int) -> float:
    """How often a fair coin would part as unevenly as lost : won, or more so: McNemar's exact test, two-sided."""
    count, fewer = lost + won, min(lost, won)
    tail = sum(math.comb(count, k) for k in range(fewer + 1))
    return float(min(1.0, 2 * tail / 2**count))


def _by_class(wrong: NDArray[np.bool_], float_wrong: NDArray[np.bool_] | None, data: Labelled) -> Facts:
    """classes: the error of each; worst_classes: of many classes those with the largest, else none."""
    rows: list[Facts] = []
    for k, name in enumerate(data.classes):
        own = data.labels == k
        if own.any():
            before = None if float_wrong is None else float(float_wrong[own].mean())
            rows.append({"name": name, "images": int(own.sum()), "error": float(wrong[own].mean())})
            rows[-1] |= {"float_error": before}
    worst = sorted(rows, key=lambda row: -float(row["error"]))[:_WORST_CLASSES] if len(rows) > _MANY_CLASSES else []
    return {"classes": rows, "worst_classes": worst}


def mistake_facts(logits: Floats, float_logits: Floats, data: Labelled) -> Facts:
    """Images that only the float network gets right, those first of which it was surest."""
    guess, before = logits.argmax(1), float_logits.argmax(1)
    found = np.flatnonzero((before == data.labels) & (guess != data.labels))
    chance, float_chance = _softmax(logits[found]), _softmax(float_logits[found])
    order = np.argsort(-float_chance.max(1), kind="stable")[:SHOWN]
    shown = [
        {
            "image": int(found[i]),
            "label": data.classes[data.labels[found[i]]],
            "float": data.classes[before[found[i]]],
            "float_probability": float(float_chance[i].max()),
            "ternary": data.classes[guess[found[i]]],
            "ternary_probability": float(chance[i].max()),
        }
        for i in order
    ]
    return {"images": len(found), "shown": shown}


def sensitivity_facts(parent: FloatParent, names: list[str], data: Labelled, say: Say) -> Facts:
    """The float network's error with one layer ternary at a time, on at most 1,000 images (200 photographs), taken at
    even distances.

    names: the layers that are ternary in the file; the parent's others are left alone. data: normalised as the parent
    wants it.
    """
    most = int(np.clip(SENSITIVITY_IMAGES * 3072 // data.images[0].size, FEWEST_SENSITIVITY, SENSITIVITY_IMAGES))
    step = -(-len(data.labels) // most)
    images, labels = data.normalise(data.images[::step]), data.labels[::step]
    base = parent.logits(images)
    error, loss = float((base.argmax(1) != labels).mean()), _loss(base, labels)
    rows = []
    for name, logits in parent.one_layer_ternary(images):
        if name in names:
            say(f"sensitivity: {name}")
            now = float((logits.argmax(1) != labels).mean())
            rows.append({"name": name, "error": now, "cost": now - error, "loss_cost": _loss(logits, labels) - loss})
    return {"images": len(labels), "float_error": error, "float_loss": loss, "layers": rows}


def _softmax(logits: Floats) -> NDArray[np.float64]:
    shifted = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    chances: NDArray[np.float64] = shifted / shifted.sum(1, keepdims=True)
    return chances


def _loss(logits: Floats, labels: NDArray[np.int64]) -> float:
    """Mean cross-entropy in nats."""
    values = logits.astype(np.float64)
    top = values.max(1)
    total = np.log(np.exp(values - top[:, None]).sum(1)) + top
    return float((total - values[np.arange(len(labels)), labels]).mean())
