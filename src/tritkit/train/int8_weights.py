"""In training, the weights that layers which are not ternary will have in the integer network.

    w' = unit · clip(rint(w / unit), −64, 64)          one unit an output channel (`tritkit.deploy.lower_weights`)

Gradients pass straight through. The weight is a parametrization, as that of a ternary layer is.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.utils import parametrize

from tritkit.deploy.lower_weights import int8_values
from tritkit.surgery import unparametrize_

__all__ = ["fix_weights_", "simulate_weights_"]


class Int8Values(nn.Module):
    """Simulates an int8 weight of any shape [O, ...]."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight + (int8_values(weight) - weight).detach()


def simulate_weights_(net: nn.Module) -> None:
    """Simulate int8 weights, in place, in every Conv2d and Linear whose weight is a plain parameter."""
    for layer in list(net.modules()):
        if isinstance(layer, nn.Conv2d | nn.Linear) and not parametrize.is_parametrized(layer):
            parametrize.register_parametrization(layer, "weight", Int8Values())


def fix_weights_(net: nn.Module) -> None:
    """Make what `simulate_weights_` simulates plain parameters, in place: `export` finds the same integers in them."""
    for layer in list(net.modules()):
        table = getattr(layer, "parametrizations", None)
        if isinstance(table, nn.ModuleDict) and isinstance(table["weight"][0], Int8Values):  # type: ignore[index]
            unparametrize_(layer, leave_parametrized=True)
