"""Step 2: the weights of a layer share a few values, found by k-means and then trained (Han et al. 2015, section 3)."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from tritkit.compress.kmeans import Init, LinearInit, cluster
from tritkit.compress.layers import check_weight, on_weight, parametrize_, plain_, select, weighted_layers
from tritkit.compress.pruning import Pruned
from tritkit.errors import ModelFileError, UserError

__all__ = ["Shared", "centroids_of", "restore_", "share_", "shared_layers", "strip_"]


class Shared(nn.Module):
    """The parametrization w_i = c[index_i], c[0] = 0. Its parameter is c[1..k], float32 [k], k = 2^bits − 1.

    index: uint8 buffer of the weight's shape; 0 is a removed weight, and never changes any more.
    Gradient (the paper's section 3.3): ∂L/∂c_k = Σ_{i: index_i = k} ∂L/∂w_i, a sum, not a mean.
    Assigning to the weight gives each centroid the mean of its weights (0 without any).
    """

    index: Tensor

    def __init__(self, index: Tensor, bits: int) -> None:
        super().__init__()
        self.bits = bits
        self.register_buffer("index", index)

    def forward(self, centroids: Tensor) -> Tensor:
        table = torch.cat([centroids.new_zeros(1), centroids])
        return table.index_select(0, self.index.flatten().int()).view(self.index.shape)

    def right_inverse(self, weight: Tensor) -> Tensor:
        index = self.index.flatten().long()
        sums = torch.bincount(index, weight.flatten().double(), minlength=2**self.bits)
        counts = torch.bincount(index, minlength=2**self.bits)
        return (sums / counts.clamp(min=1))[1:].to(weight.dtype)


def share_(
    net: nn.Module,
    conv_bits: int = 8,
    linear_bits: int = 5,
    init: Init | None = None,
    include: Collection[str] | None = None,
    exclude: Collection[str] = (),
) -> list[str]:
    """Let the weights of each layer that are not zero share 2^bits − 1 values, in place; the names of the layers.

    conv_bits, linear_bits: bits of an index, 2..8; the paper's are the defaults. One of the 2^bits values is the zero
        that fills wide gaps in the file, which the paper's counts leave out.
    init: where k-means starts; `LinearInit()` if None.
    include, exclude: names or `fnmatch` patterns; every Conv2d and Linear layer without them.

    The parameter of a layer becomes its centroids, so an optimizer must be made after this call; a learning rate for
    weights is large for centroids, whose gradients are sums. Raises UserError, with the network unchanged, as
    `prune_` does, and for a layer whose weights are all zero.
    """
    bits = {nn.Conv2d: _bits("conv_bits", conv_bits), nn.Linear: _bits("linear_bits", linear_bits)}
    layers = select(net, include, exclude)
    made = {
        name: _shared(name, layer, bits[nn.Conv2d if isinstance(layer, nn.Conv2d) else nn.Linear], init or LinearInit())
        for name, layer in layers.items()
    }
    for name, layer in layers.items():
        parametrize_(layer, made[name])
    return list(layers)


def shared_layers(net: nn.Module) -> dict[str, Shared]:
    """The parametrization of each layer with shared weights, by the layer's name."""
    found = {name: on_weight(layer, Shared) for name, layer in weighted_layers(net).items()}
    return {name: shared for name, shared in found.items() if shared is not None}


def centroids_of(net: nn.Module) -> dict[str, nn.Parameter]:
    """The centroids (float32 [2^bits − 1]) of each layer with shared weights."""
    return {name: net.get_parameter(f"{name}.parametrizations.weight.original") for name in shared_layers(net)}


def strip_(net: nn.Module) -> list[str]:
    """Make pruned and shared layers plain ones with the values they compute with; the names of the layers.

    The state dict then has the keys of the float network. Raises UserError when there is no such layer.
    """
    layers = weighted_layers(net)
    names = [name for name, layer in layers.items() if on_weight(layer, Pruned) or on_weight(layer, Shared)]
    if not names:
        raise UserError("the network has no pruned or shared layer; call prune_ or share_ first")
    for name in names:
        plain_(layers[name])
    return names


def restore_(net: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Give `net` the pruned and shared layers of the network that `state`, a state dict, comes from.

    `net.load_state_dict(state)` then fits. Raises ModelFileError where masks, indices and centroids do not fit the
    layer's weight or each other.
    """
    for name, layer in weighted_layers(net).items():
        key = f"{name}.parametrizations.weight"
        index, mask = state.get(f"{key}.0.index"), state.get(f"{key}.0.mask")
        if index is not None:
            bits = _fitting_bits(name, layer, index, state.get(f"{key}.original"))
            parametrize_(layer, Shared(torch.zeros_like(index), bits))
        elif mask is not None:
            _check_shape(name, layer, mask, torch.bool)
            parametrize_(layer, Pruned(torch.ones_like(mask)))


def _shared(name: str, layer: nn.Module, bits: int, init: Init) -> Shared:
    weight = check_weight(name, layer, Pruned)
    alive = weight != 0
    values = weight[alive].double().cpu().numpy()
    if len(values) == 0:
        raise UserError(f"all weights of layer {name!r} are zero; there is nothing to share: exclude it")
    starts = init.centroids(np.sort(values), 2**bits - 1)
    index = torch.zeros_like(weight, dtype=torch.uint8)
    index[alive] = torch.from_numpy(cluster(values, starts) + 1).to(weight.device, torch.uint8)
    return Shared(index, bits)


def _bits(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 2 <= value <= 8:
        raise UserError(f"{name} must be an integer in 2..8, got {value!r}")
    return value


def _fitting_bits(name: str, layer: nn.Module, index: Tensor, centroids: Tensor | None) -> int:
    _check_shape(name, layer, index, torch.uint8)
    count = 0 if centroids is None or centroids.ndim != 1 else len(centroids)
    bits = count.bit_length()
    if count != 2**bits - 1 or not 2 <= bits <= 8:
        raise ModelFileError(f"layer {name!r} has {count} centroids; there must be 2^bits − 1 with bits in 2..8")
    if int(index.max()) > count:
        raise ModelFileError(f"layer {name!r} has the index {int(index.max())}, but only {count} centroids")
    return bits


def _check_shape(name: str, layer: nn.Module, given: Tensor, dtype: torch.dtype) -> None:
    wanted = list(layer.weight.shape)  # type: ignore[arg-type]
    if list(given.shape) != wanted or given.dtype != dtype:
        raise ModelFileError(
            f"layer {name!r} needs {str(dtype).removeprefix('torch.')} values of the shape {wanted}, "
            f"got {given.dtype} {list(given.shape)}"
        )
