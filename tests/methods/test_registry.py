"""Methods are found by name, and mistakes are answered with near names."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from torch import Tensor

import tritkit.methods
from tritkit.errors import UserError
from tritkit.methods import TTQ, TWN, Method, StraightThroughMethod, Ternarizer, get, method_class, names
from tritkit.methods._base import REGISTRY
from tritkit.ternary import Ternary


def test_names_are_sorted_and_classes_are_attributes() -> None:
    assert names() == sorted(names())
    assert method_class("ttq") is TTQ is tritkit.methods.TTQ
    for name in names():
        assert method_class(name).__name__ in dir(tritkit.methods)
    with pytest.raises(AttributeError, match="no attribute 'TTQQ'"):
        _ = tritkit.methods.TTQQ


def test_get_fills_the_rest_from_the_defaults() -> None:
    assert get("ttq") == TTQ(0.05) == TTQ(threshold=0.05, init="one", latent_gradient="paper")
    assert get("twn", per="channel") == TWN(0.7, "channel")


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (lambda: get("tqt"), "no method 'tqt'; did you mean .*'ttq'"),
        (lambda: get("zebra"), "no method 'zebra'; there are: .*ttq, .*twn"),
        (lambda: get("ttq", treshold=0.1), "'ttq' has no parameter 'treshold'; did you mean 'threshold'"),
        (lambda: TTQ(threshold=1.0), r"threshold must be in \[0, 1\), got 1.0"),
        (lambda: TTQ(threshold=float("nan")), r"threshold must be in \[0, 1\), got nan"),
        (lambda: TTQ(threshold="0.1"), r"threshold must be in \[0, 1\), got '0.1'"),
        (lambda: TTQ(init="zero"), "init must be one of 'one', 'data', got 'zero'"),
        (lambda: TTQ(latent_gradient="ste"), "latent_gradient must be one of 'paper', 'straight-through'"),
        (lambda: get("ttq-constant-sparsity", sparsity=-0.1), r"sparsity must be in \[0, 1\), got -0.1"),
        (lambda: TWN(threshold_factor=-1), r"threshold_factor must be in \[0, inf\), got -1"),
        (lambda: TWN(per="layer"), "per must be one of 'tensor', 'channel', got 'layer'"),
    ],
)
def test_mistakes_are_explained(action: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        action()  # type: ignore[operator]


def test_a_taken_name_raises_and_leaves_the_registry_alone() -> None:
    with pytest.raises(TypeError, match=r"method name 'ttq' is taken by tritkit.methods.ttq.TTQ"):

        class Clash(StraightThroughMethod):
            name, summary, paper = "ttq", "", ""

    assert REGISTRY["ttq"] is TTQ


def test_a_method_must_say_what_it_is() -> None:
    with pytest.raises(TypeError, match="Silent must define summary and paper"):

        class Silent(StraightThroughMethod):
            name = "silent"

    assert "silent" not in names()


def test_a_new_method_needs_one_class() -> None:
    @dataclass(frozen=True)
    class Half(Method):
        name, summary, paper = "test-half", "one line", "https://example.org"

        def project(self, weight: Tensor) -> Ternary:
            raise NotImplementedError

        def build(self, weight: Tensor) -> Ternarizer:
            raise NotImplementedError

    try:
        assert get("test-half") == Half()
    finally:
        del REGISTRY["test-half"]
