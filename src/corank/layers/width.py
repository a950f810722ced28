"""Layers made narrower in place: fewer channels, features, groups or heads than their class gave them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from corank.errors import ModelError

__all__ = ["HEADS", "OF_HEADS", "SIZE_NAMES", "is_depthwise", "resize", "sizes_of"]

Sizes = Mapping[str, int | Sequence[int]]
HEADS: tuple[str, ...] = ("num_heads", "num_attention_heads")
"""Attributes of attention modules that say how many heads there are."""
OF_HEADS: tuple[str, ...] = ("attn_dim", "all_head_size")
"""Attributes of attention modules that are the heads' number times their width."""


@dataclass(frozen=True)
class _Kind:
    """One kind of layer: its sizes by name, and the shapes of its tensors where it has other sizes."""

    layer: type[nn.Module] | tuple[type[nn.Module], ...]
    names: tuple[str, ...]
    shapes: Callable[[nn.Module, Mapping[str, Any]], dict[str, tuple[int, ...]]]


def resize(module: nn.Module, sizes: Sizes) -> None:
    """Makes a module narrower, in place; of each tensor the first rows and columns stay.

    Args:
        module: a convolution, linear layer, norm, PReLU or embedding, whose own names of sizes are given; or any other,
            of which parameters that it holds itself are given shapes, and :data:`HEADS` and :data:`OF_HEADS` numbers.
        sizes: by name; what it has already stays as it is.

    Raises:
        ModelError: for a size that it does not have, that is larger than its own or below 1, or that does not divide.
    """
    kind = _kind_of(module)
    own = sizes_of(module)
    for name, size in sizes.items():
        if name not in own:
            raise ModelError(f"a {type(module).__name__} has no size {name[:80]!r}; it has {', '.join(own) or 'none'}")
        given, before = _listed(size), _listed(own[name])
        alike = isinstance(size, int) == isinstance(own[name], int) and len(given) == len(before)
        if not alike or not all(1 <= new <= old for new, old in zip(given, before, strict=True)):
            raise ModelError(
                f"{name} of a {type(module).__name__} becomes {str(size)[:80]}: at least 1 and at most {own[name]}"
            )
    wanted = {**own, **sizes}
    if kind is None:
        _resize_own(module, own, sizes)
        return
    _check_divides(module, own, wanted)
    for name, shape in kind.shapes(module, wanted).items():
        _cut(module, name, shape)
    for name in sizes:
        size = wanted[name]
        module.__dict__[name] = size if isinstance(size, int) else tuple(size)


def sizes_of(module: nn.Module) -> dict[str, int | tuple[int, ...]]:
    """The sizes that :func:`resize` takes of a module, as they are."""
    kind = _kind_of(module)
    if kind is not None:
        return {name: module.__dict__[name] for name in kind.names}
    found: dict[str, int | tuple[int, ...]] = {
        name: tuple(one.shape) for name, one in module._parameters.items() if one is not None and one.dim()
    }
    numbers = {name: module.__dict__.get(name) for name in (*HEADS, *OF_HEADS)}
    return found | {name: number for name, number in numbers.items() if type(number) is int}


def is_depthwise(module: nn.Module) -> bool:
    """Whether a convolution has one input and one output channel a group, and several of them."""
    return isinstance(module, _ConvNd) and 1 < module.groups == module.in_channels == module.out_channels


def _kind_of(module: nn.Module) -> _Kind | None:
    return next((kind for kind in _KINDS if isinstance(module, kind.layer)), None)


def _listed(size: int | Sequence[int]) -> tuple[int, ...]:
    return (size,) if isinstance(size, int) else tuple(size)


def _check_divides(module: nn.Module, own: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raises ModelError for groups that channels do not divide into, or a number of groups that cannot be."""
    if isinstance(module, _ConvNd):
        depthwise = is_depthwise(module) and wanted["groups"] == wanted["in_channels"] == wanted["out_channels"]
        channels, groups = (wanted["in_channels"], wanted["out_channels"]), wanted["groups"]
        fits = depthwise or groups == own["groups"]
    elif isinstance(module, nn.GroupNorm):
        channels, groups = (wanted["num_channels"],), wanted["num_groups"]
        fits = groups == own["num_groups"]
    else:
        return
    if not fits or any(count % groups for count in channels):
        raise ModelError(
            f"a {type(module).__name__} of {own} cannot have {dict(wanted)}: groups stay, or fall with the channels of "
            "a depthwise convolution, and divide them"
        )


def _resize_own(module: nn.Module, own: Mapping[str, Any], sizes: Sizes) -> None:
    """Parameters that a module of any kind holds itself, and the heads of an attention."""
    heads = next((name for name in HEADS if name in own), None)
    for name, size in sizes.items():
        if isinstance(own[name], tuple):
            _cut(module, name, _listed(size))
        elif name in OF_HEADS and (heads is None or _listed(size)[0] % _listed(sizes.get(heads, own[heads]))[0]):
            raise ModelError(f"{name} of a {type(module).__name__} becomes {size}, which its heads do not divide")
        else:
            module.__dict__[name] = size


def _cut(module: nn.Module, name: str, shape: Sequence[int]) -> None:
    """The first rows and columns of a parameter or buffer, where it is there and larger."""
    places = module._parameters if name in module._parameters else module._buffers
    old = places.get(name)
    if old is None:
        if name == "weight" and isinstance(module, (_ConvNd, nn.Linear)):
            raise ModelError(f"the weight of a {type(module).__name__} is computed from others, and keeps its shape")
        return
    if tuple(old.shape) == tuple(shape):
        return
    cut = old.detach()[tuple(slice(size) for size in shape)].clone()
    module.__dict__["_parameters" if places is module._parameters else "_buffers"][name] = (
        nn.Parameter(cut, requires_grad=old.requires_grad) if isinstance(old, nn.Parameter) else cut
    )


def _convolution(module: nn.Module, sizes: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    assert isinstance(module, _ConvNd)
    inputs, outputs, groups = sizes["in_channels"], sizes["out_channels"], sizes["groups"]
    first, second = (inputs, outputs // groups) if module.transposed else (outputs, inputs // groups)
    return {"weight": (first, second, *module.kernel_size), "bias": (outputs,)}


def _linear(_module: nn.Module, sizes: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return {"weight": (sizes["out_features"], sizes["in_features"]), "bias": (sizes["out_features"],)}


def _embedding(module: nn.Module, sizes: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    assert isinstance(module, nn.Embedding)
    return {"weight": (module.num_embeddings, sizes["embedding_dim"])}


def _vectors(*names: str) -> Callable[[nn.Module, Mapping[str, Any]], dict[str, tuple[int, ...]]]:
    def shapes(_module: nn.Module, sizes: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        size = next(iter(sizes.values()))
        return {name: _listed(size) for name in names}

    return shapes


_AFFINE = ("weight", "bias")
_KINDS = (
    _Kind(_ConvNd, ("in_channels", "out_channels", "groups"), _convolution),
    _Kind(nn.Linear, ("in_features", "out_features"), _linear),
    _Kind(_NormBase, ("num_features",), _vectors(*_AFFINE, "running_mean", "running_var")),
    _Kind(nn.GroupNorm, ("num_channels", "num_groups"), _vectors(*_AFFINE)),
    _Kind((nn.LayerNorm, nn.RMSNorm), ("normalized_shape",), _vectors(*_AFFINE)),
    _Kind(nn.PReLU, ("num_parameters",), _vectors("weight")),
    _Kind(nn.Embedding, ("embedding_dim",), _embedding),
)
SIZE_NAMES: frozenset[str] = frozenset(name for kind in _KINDS for name in kind.names) | {*HEADS, *OF_HEADS}
"""Names of sizes of known layers and of attention; parameters that a module holds itself have names of their own."""
