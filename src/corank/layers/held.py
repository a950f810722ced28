"""Weights of modules of any kind, each in a layer of its own that the module reads it from.

A module with a parameter that is to be coded keeps its class but for a property in the place of the parameter: it gives
the weight of a layer that stands in the module under the parameter's name, :class:`HeldWeight` or its coded
counterpart. So ``rnn.weight_ih_l0`` names a layer as ``rnn.head`` does, which is coded, stored and trained like it. A
weight that several modules share is read from the layer of the one that has it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, cast

import torch.nn.functional as F
from torch import Tensor, nn

from corank.errors import ModelError
from corank.layers.coded import CodedLayer
from corank.matrix import Geometry, MatrixModule

__all__ = [
    "ELSEWHERE",
    "CodedHeldWeight",
    "HeldWeight",
    "Reader",
    "give_back",
    "hold",
    "is_watched",
    "multiplied",
    "read_from",
    "reader_of",
    "readers",
    "register_reader",
]

ELSEWHERE = "_corank_read_from"  # in a module's __dict__: parameter to the layer of another module that it is read from

_ORDER = "_corank_parameters"  # in a module's __dict__: the names of its parameters, in order


class HeldWeight(MatrixModule):
    """A weight of any shape as a layer of its own; called by a module that knows how, it multiplies by it.

    Args:
        weight: is kept as it is.
        geometry: of the weight; None: what its shape alone tells.
    """

    weight: nn.Parameter
    bias: None

    def __init__(self, weight: nn.Parameter, geometry: Geometry | None = None) -> None:
        super().__init__()
        self.geometry = geometry or Geometry.of_shape(tuple(weight.shape))
        self.weight = weight
        self.register_parameter("bias", None)

    def forward(self, input: Tensor) -> Tensor:
        """Inputs ``(..., C)`` times the matrix: ``(..., R)``."""
        return F.linear(input, self.geometry.to_matrix(self.weight).flatten(0, 1))

    def extra_repr(self) -> str:
        return f"shape={self.geometry.shape}"


class CodedHeldWeight(CodedLayer, HeldWeight):  # pyright: ignore[reportIncompatibleVariableOverride]
    """A weight of a module of any kind, coded."""


class Reader:
    """What a module is beside its own class while some of its weights are read from layers.

    A subclass for a known kind (see :func:`register_reader`) calls those layers, where anyone watches them, with what
    their weights multiply; all else computes as the module's own ``forward()`` does.
    """

    def __reduce_ex__(self, protocol: Any) -> Any:
        kind = cast(type[nn.Module], type(self))
        return _remade, (_own_class(kind), _names_read(kind)), super().__reduce_ex__(4)[2]


_READERS: dict[type[nn.Module], type[Reader]] = {}


def register_reader(*kinds: type[nn.Module]) -> Callable[[type[Reader]], type[Reader]]:
    """Marks the :class:`Reader` of these kinds of modules, and of their subclasses with the same ``forward()``."""

    def register(reader: type[Reader]) -> type[Reader]:
        _READERS.update(dict.fromkeys(kinds, reader))
        return reader

    return register


def reader_of(kind: type[nn.Module]) -> type[Reader]:
    """The reader of a kind of module: :class:`Reader` itself where nothing shows what its weights multiply."""
    kind = _own_class(kind) if issubclass(kind, Reader) else kind
    known = next((one for one in kind.__mro__ if one in _READERS), None)
    return _READERS[known] if known is not None and kind.forward is known.forward else Reader


def hold(module: nn.Module, name: str) -> HeldWeight:
    """Moves the parameter ``name`` of a module into a layer of its own, in place.

    Raises:
        ModelError: for what is no parameter of two axes or more, or a module whose class cannot be extended.
    """
    parameter = module._parameters.get(name)
    if parameter is None or parameter.dim() < 2 or not parameter.is_floating_point():
        raise ModelError(f"this {type(module).__name__} has no parameter {name!r} of two axes or more")
    multiplies = reader_of(type(module)) is not Reader
    geometry = Geometry((parameter.shape[0], parameter.shape[1])) if multiplies and parameter.dim() == 2 else None
    held = HeldWeight(parameter, geometry).train(module.training)
    _read(module, name)
    del module._parameters[name]
    module._modules[name] = held
    return held


def read_from(module: nn.Module, name: str, layer: nn.Module) -> None:
    """Lets a module read its parameter ``name`` from a layer of another module, in place."""
    _read(module, name)
    del module._parameters[name]
    module.__dict__.setdefault(ELSEWHERE, {})[name] = layer


def readers(model: nn.Module) -> Iterable[tuple[nn.Module, str, nn.Module, bool]]:
    """Every weight that is read from a layer: module, parameter, layer, and whether the layer is the module's own."""
    for module in list(model.modules()):
        if isinstance(module, Reader):
            for name in _names_read(type(module)):
                own = module._modules.get(name)
                yield module, name, own if own is not None else module.__dict__[ELSEWHERE][name], own is not None


def give_back(module: nn.Module, name: str, weight: nn.Parameter) -> None:
    """Makes what is read from a layer a parameter of the module again, in place."""
    kind = type(module)
    left = tuple(one for one in _names_read(kind) if one != name)
    module.__class__ = _class(_own_class(kind), left) if left else _own_class(kind)
    module._modules.pop(name, None)
    elsewhere = module.__dict__.get(ELSEWHERE, {})
    elsewhere.pop(name, None)
    if not elsewhere:
        module.__dict__.pop(ELSEWHERE, None)
    module._parameters[name] = weight
    order, held = module.__dict__[_ORDER], dict(module._parameters)  # files list parameters in their order
    module._parameters.clear()
    module._parameters.update({one: held.pop(one) for one in order if one in held} | held)
    if not left:
        del module.__dict__[_ORDER]
    if isinstance(module, nn.RNNBase) and not left:
        module._init_flat_weights()


def multiplied(module: nn.Module, name: str, inputs: Tensor) -> Tensor:
    """Inputs ``(..., C)`` times the transpose of a module's weight ``(R, C)``, through its layer where it has one."""
    layer = module._modules.get(name)
    return F.linear(inputs, getattr(module, name)) if layer is None else layer(inputs)


def is_watched(layers: Iterable[nn.Module | None]) -> bool:
    """Whether anyone looks at a call of one of the layers."""
    return any(layer is not None and (layer._forward_pre_hooks or layer._forward_hooks) for layer in layers)


def _read(module: nn.Module, name: str) -> None:
    kind = type(module)
    names = _names_read(kind) if issubclass(kind, Reader) else ()
    own = _own_class(kind) if names else kind
    try:
        module.__class__ = _class(own, tuple(sorted({*names, name})))
    except TypeError as error:
        raise ModelError(f"a {kind.__name__} cannot read its {name!r} from elsewhere: {error}") from error
    module.__dict__.setdefault(_ORDER, tuple(module._parameters))
    if isinstance(module, nn.RNNBase):
        module.__dict__.pop("_flat_weights", None)  # its own list of its weights
        module._flat_weight_refs = []


def _own_class(kind: type[nn.Module]) -> type[nn.Module]:
    """The class that a module had before anything of it was read from layers."""
    return kind.__dict__["_corank_own_class"]


def _names_read(kind: type[nn.Module]) -> tuple[str, ...]:
    return kind.__dict__["_corank_names"]


@cache
def _class(own: type[nn.Module], names: tuple[str, ...]) -> type[nn.Module]:
    """The class of a module of class ``own`` that reads these parameters from layers."""
    about = {"_corank_own_class": own, "_corank_names": names}
    told = {"__module__": own.__module__, "__qualname__": own.__qualname__, "__doc__": own.__doc__}
    read = {name: property(_getter(name)) for name in names}
    return cast(Any, type(own))(own.__name__, (reader_of(own), own), {**told, **about, **read})


def _getter(name: str) -> Callable[[nn.Module], Tensor]:
    def get(module: nn.Module) -> Tensor:
        layer = module._modules.get(name)
        return cast(Tensor, (module.__dict__[ELSEWHERE][name] if layer is None else layer).weight)

    return get


def _remade(own: type[nn.Module], names: tuple[str, ...]) -> nn.Module:
    """An empty module of that class, for what is copied or unpickled."""
    kind = _class(own, names)
    return kind.__new__(kind)
