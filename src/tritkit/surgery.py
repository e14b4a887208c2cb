"""Make the layers of a network ternary, look at them, and undo it.

    names = ternarize_(net, TTQ(), exclude=["conv1", "linear"])
    optimizer = torch.optim.SGD(param_groups(net, lr=0.1, weight_decay=2e-4), momentum=0.9)
    ... train as ever, with after_step_(net) after optimizer.step() ...
    reestimate_bn_(net, batches)
    strip_(net)                                # a plain float module with ternary values

The weight of a ternary layer is a parametrization (`torch.nn.utils.parametrize`): its latent weight stays an
ordinary parameter under the key `<layer>.parametrizations.weight.original`, with what the method learns
beside it. So load float checkpoints before `ternarize_`, and ternary ones after the same `ternarize_` call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrize

from tritkit.errors import UnsupportedError, UserError
from tritkit.methods._base import Method, Ternarizer
from tritkit.processes import ALONE, Processes
from tritkit.ternary import Ternary

__all__ = [
    "Select",
    "after_step_",
    "freeze_codes_",
    "latent_of",
    "named_ternary",
    "param_groups",
    "reestimate_bn_",
    "snap_scales_",
    "strip_",
    "ternarize_",
    "ternarizer_of",
    "ternary_layers",
]

Select = str | Iterable[str] | Callable[[str, nn.Module], bool]
"""Layers by name, by `fnmatch` pattern (`*` also crosses dots: `"layer1.*"`), or by predicate of (name,
module).
"""

_T = TypeVar("_T")
_SUPPORTED = (nn.Conv2d, nn.Linear)


def ternarize_(net: nn.Module, method: Method, include: Select | None = None, exclude: Select = ()) -> list[str]:
    """Put `method` on the weights of Conv2d and Linear layers, in place; the names of the layers it touched.

    include: the layers to take; None takes every Conv2d and Linear. Nothing is left out silently: name the
        first and the last layer in `exclude` to keep them in float.
    exclude: the layers to leave alone, applied after `include`.

    The optimizer may exist already (latents keep their identity) but does not know the parameters a method
    adds. Raises UserError, with the network unchanged, when a pattern matches no layer, when nothing is
    left to do, when a weight is parametrized already, or when weights are not finite; UnsupportedError
    when `include` names a layer of another type.
    """
    names = _select(net, include, exclude)
    ternarizers = {name: _build(name, net.get_submodule(name), method) for name in names}
    for name, ternarizer in ternarizers.items():
        parametrize.register_parametrization(net.get_submodule(name), "weight", ternarizer)
    return names


def strip_(net: nn.Module, keep: Literal["ternary", "latent"] = "ternary") -> list[str]:
    """Turn ternary layers back into plain ones, in place, and return their names.

    keep: "ternary" leaves the weights +Wp, 0, −Wn the network computes with; "latent" the latent weights.
    The state dict then has the keys of the float network. Raises UserError when no layer is ternary.
    """
    if keep not in ("ternary", "latent"):
        raise UserError(f"keep must be 'ternary' or 'latent', got {keep!r}")
    layers = _some_layers(net)
    for name, layer in layers.items():
        if len(_parametrizations(layer)) != 1:
            raise UserError(f"the weight of layer {name!r} has other parametrizations too; remove those first")
    for layer in layers.values():
        unparametrize_(layer, leave_parametrized=keep == "ternary")
    return list(layers)


def unparametrize_(layer: nn.Module, leave_parametrized: bool) -> None:
    """Make the weight of a parametrized layer a plain parameter: the value the layer computes with, or the original.
    Copies of the layer keep theirs.
    """
    cls = type(layer)  # PyTorch makes the weight a property of the class, copies share the class, removing deletes it
    body = {key: value for key, value in vars(cls).items() if key not in ("__dict__", "__weakref__")}
    layer.__class__ = type(cls.__name__, cls.__bases__, body)
    parametrize.remove_parametrizations(layer, "weight", leave_parametrized=leave_parametrized)


def named_ternary(net: nn.Module) -> Iterator[tuple[str, nn.Module, Ternary]]:
    """(name, layer, codes and scales of now) for each ternary layer, in the order of `named_modules`. Layers whose
    method is not ternary in the end (`Method.why_not_ternary`) are left out.
    """
    for name, layer in ternary_layers(net).items():
        ternarizer = ternarizer_of(layer)
        if ternarizer is not None and ternarizer.method.why_not_ternary is None:
            yield name, layer, _named(name, ternarizer.ternary, latent_of(layer))


def ternary_layers(net: nn.Module) -> dict[str, nn.Module]:
    """The ternary layers by name, in the order of `named_modules`."""
    return {name: layer for name, layer in net.named_modules() if ternarizer_of(layer) is not None}


def ternarizer_of(layer: nn.Module) -> Ternarizer | None:
    """The parametrization of a ternary layer's weight; None for every other layer."""
    for parametrization in _parametrizations(layer):
        if isinstance(parametrization, Ternarizer):
            return parametrization
    return None


def latent_of(layer: nn.Module) -> nn.Parameter:
    """The latent weight of a ternary layer. UserError for other layers."""
    if ternarizer_of(layer) is None:
        raise UserError(f"{type(layer).__name__} is not a ternary layer; it has no latent weight")
    latent = _parametrizations(layer).original
    if not isinstance(latent, nn.Parameter):
        raise UserError("the latent weight is not a parameter: it was replaced after ternarize_")
    return latent


def param_groups(
    net: nn.Module,
    lr: float,
    weight_decay: float,
    scale_lr: float | None = None,
    scale_weight_decay: float = 0.0,
) -> list[dict[str, Any]]:
    """Parameter groups for any `torch.optim` optimizer; each has a `name` and groups without parameters
    are left out.

    "weights":  latent weights and all other parameters of two or more dimensions; lr, weight_decay.
    "scales":   what the methods learn; scale_lr (lr if None), scale_weight_decay.
    "no_decay": batch norm, biases and other vectors; lr, no decay.

    Parameters that need no gradient are left out.
    """
    scales = {id(p) for m in net.modules() if isinstance(m, Ternarizer) for p in m.parameters()}
    groups: dict[str, list[nn.Parameter]] = {"weights": [], "scales": [], "no_decay": []}
    for parameter in net.parameters():
        if parameter.requires_grad:
            kind = "scales" if id(parameter) in scales else "weights" if parameter.dim() > 1 else "no_decay"
            groups[kind].append(parameter)
    rates = {
        "weights": (lr, weight_decay),
        "scales": (lr if scale_lr is None else scale_lr, scale_weight_decay),
        "no_decay": (lr, 0.0),
    }
    return [
        {"name": kind, "params": params, "lr": rates[kind][0], "weight_decay": rates[kind][1]}
        for kind, params in groups.items()
        if params
    ]


def snap_scales_(net: nn.Module) -> list[str]:
    """Put the scales of every ternary layer on the integer grid of deployment; the names of the layers
    that changed.

    See `Ternary.snap`. Scales on the grid stay as they are, bit for bit, symmetric ones always are.
    Training on moves them off again. Raises UserError where scales off the grid are computed from latents.
    """
    changed = []
    for name, layer, value in named_ternary(net):
        snapped = value.snap()
        ternarizer = ternarizer_of(layer)
        same = torch.equal(snapped.dequantize(), value.dequantize())
        if ternarizer is not None and not same:
            ternarizer.set_scales_(snapped.scale_pos, snapped.scale_neg)
            changed.append(name)
    return changed


@torch.no_grad()
def after_step_(net: nn.Module) -> None:
    """What the methods do to latent weights after each optimizer step, such as BinaryConnect's clipping. Call it after
    `optimizer.step()`; for methods that need nothing it does nothing.
    """
    for layer in ternary_layers(net).values():
        ternarizer = ternarizer_of(layer)
        if ternarizer is not None:
            ternarizer.after_step_(latent_of(layer))


def freeze_codes_(net: nn.Module) -> list[str]:
    """Stop training the latent weights, so that no code changes any more, while scales, biases and batch
    norm go on.

    Latents get `requires_grad = False` and lose their gradient; `requires_grad_(True)` on them undoes it.
    The names of the layers. Raises UserError when no layer is ternary.
    """
    layers = _some_layers(net)
    for layer in layers.values():
        latent_of(layer).requires_grad_(False).grad = None
    return list(layers)


@torch.no_grad()
def reestimate_bn_(net: nn.Module, batches: Iterable[Any], processes: Processes = ALONE) -> None:
    """Measure the running mean and variance of all batch norms again, with the weights of now.

    Each becomes the plain average over `batches` of the batch's mean and (unbiased) variance; batches of
    one size make that exact. A batch is the network's input, or a tuple or list that begins with it. All
    other layers run as in evaluation. Training flags and momenta come back afterwards, and after an error
    the old statistics too. processes: those that do the same with other batches; each ends with the average over all.

    Raises UserError when there is no batch norm with running statistics or no batch.
    """
    norms = [m for m in net.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    if not norms:
        raise UserError("the network has no batch norm with running statistics; there is nothing to estimate")
    with _restored(net, norms):
        net.eval()
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # PyTorch's cumulative average
            norm.train()
        count = 0
        for batch in batches:
            net(batch[0] if isinstance(batch, (tuple, list)) else batch)
            count += 1
        if count == 0:
            raise UserError("batches is empty: statistics need at least one batch (an exhausted iterator?)")
        for norm in norms:
            _pool_(norm, count, processes)


def _pool_(norm: _BatchNorm, count: int, processes: Processes) -> None:
    """Average the statistics of `count` batches here with those of the other processes."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    own = torch.stack([norm.running_mean, norm.running_var]).double()
    batches = int(processes.total(torch.tensor(count)))
    mean, variance = processes.total(own * count) / batches
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance)
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.fill_(batches)


@contextmanager
def _restored(net: nn.Module, norms: list[_BatchNorm]) -> Iterator[None]:
    """Bring back training flags and momenta at the end, and the running statistics after an error."""
    training = [(module, module.training) for module in net.modules()]
    momenta = [norm.momentum for norm in norms]
    statistics = [{key: value.clone() for key, value in norm.named_buffers()} for norm in norms]
    try:
        yield
    except BaseException:
        for norm, saved in zip(norms, statistics, strict=True):
            for key, value in saved.items():
                norm.get_buffer(key).copy_(value)
        raise
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for module, flag in training:
            module.training = flag


def _select(net: nn.Module, include: Select | None, exclude: Select) -> list[str]:
    """The names of the supported layers that include takes and exclude leaves."""
    modules = {n: m for n, m in net.named_modules() if not isinstance(m, (parametrize.ParametrizationList, Ternarizer))}
    layers: dict[str, nn.Module] = {n: m for n, m in modules.items() if isinstance(m, _SUPPORTED)}
    taken = set(layers) if include is None else _matches("include", include, modules, layers)
    left = _matches("exclude", exclude, modules, layers)
    names = [name for name in layers if name in taken and name not in left]
    if not names:
        raise UserError(
            f"no layer is left to make ternary: the network has {len(layers)} Conv2d and Linear layers, "
            f"include takes {len(taken)} and exclude leaves out {len(left & taken)} of them"
        )
    return names


def _matches(role: str, select: Select, modules: dict[str, nn.Module], layers: dict[str, nn.Module]) -> set[str]:
    if callable(select):
        return {name for name, layer in layers.items() if select(name, layer)}
    patterns = [select] if isinstance(select, str) else list(select)
    found: set[str] = set()
    for pattern in patterns:
        hits = {name for name in layers if name == pattern or fnmatchcase(name, pattern)}
        if not hits:
            raise _no_match(role, pattern, modules)
        found |= hits
    return found


def _no_match(role: str, pattern: str, modules: dict[str, nn.Module]) -> UserError:
    if pattern in modules and any(name.startswith(f"{pattern}.") for name in modules):
        kind = type(modules[pattern]).__name__
        return UserError(f"{role}: {pattern!r} is a {kind}, not a layer; write '{pattern}.*' for all layers in it")
    if pattern in modules:
        kind = type(modules[pattern]).__name__
        return UnsupportedError(f"{role}: {pattern!r} is a {kind}; only Conv2d and Linear layers can be ternary")
    near = get_close_matches(pattern, [name for name in modules if name], n=3)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else "print(net) shows the names"
    return UserError(f"{role}: {pattern!r} matches no Conv2d or Linear layer; {hint}")


def _build(name: str, layer: nn.Module, method: Method) -> Ternarizer:
    ternarizer = ternarizer_of(layer)
    if ternarizer is not None:
        raise UserError(f"layer {name!r} is ternary already ({ternarizer.method}); exclude it or strip_ it first")
    weight = layer._parameters.get("weight")
    if weight is None:
        raise UserError(
            f"the weight of layer {name!r} is no plain parameter (another parametrization, such as "
            f"weight norm?); remove that first or exclude the layer"
        )
    if isinstance(weight, nn.parameter.UninitializedParameter):
        raise UserError(f"layer {name!r} is lazy and has no weight yet; run the network once first")
    return _named(name, method.build, weight)


def _named(name: str, action: Callable[[Tensor], _T], weight: Tensor) -> _T:
    """`action(weight)`, with the layer's name put in front of a UserError."""
    try:
        return action(weight)
    except UserError as error:
        raise UserError(f"layer {name!r}: {error}") from error


def _parametrizations(layer: nn.Module) -> Any:
    """The parametrizations of the weight (a ParametrizationList), or an empty tuple."""
    table = getattr(layer, "parametrizations", None)
    return table["weight"] if isinstance(table, nn.ModuleDict) and "weight" in table else ()


def _some_layers(net: nn.Module) -> dict[str, nn.Module]:
    layers = ternary_layers(net)
    if not layers:
        raise UserError("the network has no ternary layer; call ternarize_ first")
    return layers
