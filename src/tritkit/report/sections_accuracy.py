"""The sections that need labelled images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tritkit.report.blocks import Bars, Block, Column, Figure, Part, Prose, Table

Facts = dict[str, Any]
_FEWEST = 5  # images a class, below which its error says nothing


def accuracy(facts: Facts) -> Iterator[Block]:
    paired = "float_error" in facts["accuracy"]
    if paired:
        yield Prose(
            "{accuracy.wrong|count} of {accuracy.images|count} images wrong ({accuracy.error|percent2}); its float "
            "parent has {accuracy.float_wrong|count} ({accuracy.float_error|percent2}). Both say the same for "
            "{accuracy.agreement|percent}.",
            "lead",
        )
        yield Prose(
            "{accuracy.only_float_right|count} images only the float network gets right, "
            "{accuracy.only_ternary_right|count} only the ternary one, {accuracy.both_wrong|count} neither. Between "
            "two equally good networks so uneven a split has a probability of {accuracy.chance|chance}."
        )
    else:
        yield Prose(
            "{accuracy.wrong|count} of {accuracy.images|count} images wrong ({accuracy.error|percent2}).", "lead"
        )
    if facts["accuracy"]["images"] < _FEWEST * len(facts["accuracy"]["classes"]):
        return
    before = (Column("float error", "float_error", "percent"),) if paired else ()
    many = bool(facts["accuracy"]["worst_classes"])
    yield Table(
        "The classes with the largest error" if many else "Error by class",
        "accuracy.worst_classes" if many else "accuracy.classes",
        (
            Column("class", "name"), Column("images", "images", "count"), Bars("", (Part("error", "plus"),)),
            Column("error", "error", "percent"), *before,
        ),
    )  # fmt: skip


def sensitivity(facts: Facts) -> Iterator[Block]:
    if not facts["sensitivity"]["layers"]:
        return
    yield Prose(
        "The float network with one layer ternary at a time, by the nearest ternary weights and without training, on "
        "{sensitivity.images|count} of the images, where it is wrong on {sensitivity.float_error|percent}. What "
        "training then repairs is not in these numbers; where a layer costs much, keep it wider or give it more scales."
    )
    yield Table(
        "Cost of each layer alone: percentage points of error, and rise of the cross-entropy",
        "sensitivity.layers",
        (
            Column("layer", "name"), Bars("", (Part("cost", "minus"),)), Column("points", "cost", "points"),
            Column("error", "error", "percent"), Column("cross-entropy", "loss_cost", "three"),
        ),
    )  # fmt: skip


def mistakes(facts: Facts) -> Iterator[Block]:
    if not facts["mistakes"]["shown"]:
        return
    yield Prose(
        "{mistakes.images|count} images the float network gets right and the ternary one wrong; those first of which "
        "the float network was surest."
    )
    yield Figure(
        "thumbnails", "mistakes.shown", "Under each image its label, and what the ternary network says instead"
    )
    yield Table(
        "The same in words, with each network’s own probability",
        "mistakes.shown",
        (
            Column("image", "image", "count"), Column("label", "label"), Column("float says", "float"),
            Column("probability", "float_probability", "percent"), Column("ternary says", "ternary"),
            Column("probability", "ternary_probability", "percent"),
        ),
    )  # fmt: skip
