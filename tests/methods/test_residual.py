"""Residual expansion: sums of several ternary terms, worked by hand, and refused where codes are needed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional

from tritkit.errors import UnsupportedError, UserError
from tritkit.methods import Residual, get
from tritkit.surgery import named_ternary, strip_, ternarize_

# max = 0.8. Δ = 0.2, 0.4: the first term keeps 0.8, −0.6, 0.4 (S = 0.6) and drops the tie 0.2; the second 0.8, −0.6
# (S = 0.7) and drops the tie 0.4.
LATENT = [[0.8, -0.6, 0.4], [0.2, -0.1, 0.0]]
WEIGHT = [[1.3, -1.3, 0.6], [0.0, 0.0, 0.0]]
TWO = Residual(thresholds=(0.25, 0.5))


def test_two_terms_as_worked_by_hand() -> None:
    latent = torch.tensor(LATENT, dtype=torch.float64, requires_grad=True)
    ternarizer = TWO.build(latent)
    weight = ternarizer(latent)
    torch.testing.assert_close(weight, torch.tensor(WEIGHT, dtype=torch.float64))
    weight.backward(torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]).double())
    assert latent.grad.tolist() == [[2.0, 4.0, 6.0], [8.0, 10.0, 12.0]]
    assert torch.equal(weight != 0, latent.abs() > ternarizer.delta(latent))


def test_is_the_sum_of_layers_that_share_the_latent_weight() -> None:
    torch.manual_seed(0)
    x, g = torch.randn(2, 3, 6, 6), torch.randn(2, 4, 4, 4)
    latent = torch.randn(4, 3, 3, 3, requires_grad=True)
    shares = (0.05, 0.1, 0.15, 0.2)
    apart = sum(functional.conv2d(x, Residual((share,)).build(latent)(latent)) for share in shares)
    (apart * g).sum().backward()
    expected, latent.grad = latent.grad, None
    whole = functional.conv2d(x, Residual(shares).build(latent)(latent))
    (whole * g).sum().backward()
    torch.testing.assert_close(whole, apart)
    torch.testing.assert_close(latent.grad, expected)


def test_several_terms_are_refused_where_codes_are_needed() -> None:
    weight = torch.tensor(LATENT)
    for action in (TWO.project, TWO.build(weight).ternary):
        with pytest.raises(UnsupportedError, match="the weight is the sum of 2 ternary ones"):
            action(weight)
    assert TWO.why_not_ternary is not None
    assert Residual().why_not_ternary is None


def test_several_terms_train_and_are_stripped() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2))
    ternarize_(net, TWO)
    assert list(named_ternary(net)) == []
    x = torch.randn(5, 6)
    expected = net(x)
    expected.square().sum().backward()
    assert strip_(net) == ["0", "2"]
    assert torch.equal(net(x), expected)
    assert len(net[0].weight.unique()) <= 5


def test_a_recipe_gives_a_list() -> None:
    assert get("residual", thresholds=[0.05, 0.1]) == Residual((0.05, 0.1))
    assert get("residual", **TWO.params()) == TWO
    assert hash(get("residual", thresholds=[0.25, 0.5])) == hash(TWO)


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (lambda: Residual(thresholds=()), r"one or more shares of the largest weight, got \(\)"),
        (lambda: Residual(thresholds=0.05), "one or more shares of the largest weight, got 0.05"),
        (lambda: Residual(thresholds=(0.05, 1.0)), r"thresholds must be in \[0, 1\), got 1.0"),
        (lambda: Residual(thresholds=("0.1",)), r"thresholds must be in \[0, 1\), got '0.1'"),
        (lambda: Residual(thresholds=(0.1, 0.05)), "thresholds must ascend"),
        (lambda: Residual(thresholds=(0.1, 0.1)), "thresholds must ascend"),
    ],
)
def test_mistakes_are_explained(action: Callable[[], object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        action()
