"""Which weights of a network are held in layers of their own, and which are read from the layer of another module."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from corank.errors import ModelError
from corank.layers.effective import computed_weights, make_effective
from corank.layers.held import Reader, give_back, hold, read_from, readers
from corank.layers.kinds import coded_class
from corank.layers.observe import Observation, names_of
from corank.layers.transposed import transpose_linears
from corank.matrix import Geometry

__all__ = ["FEWEST", "as_held", "give_back_float", "hold_weights", "is_coded_itself", "is_matrix"]

FEWEST = 1024  # numbers up to which a weight that is no Linear's or convolution's stays in float
_WIDEST = 1 << 14  # columns of a weight, whose products with each other take room
_NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)  # their weights are gains

Place = tuple[nn.Module, str]


def is_matrix(weight: Tensor) -> bool:
    """Whether a parameter is large enough to be coded and more than a vector: two of its axes are longer than 1."""
    long_axes = sum(size > 1 for size in weight.shape)
    return weight.is_floating_point() and weight.numel() > FEWEST and long_axes > 1


def hold_weights(model: nn.Module, seen: Observation, run: Callable[[nn.Module], Any]) -> bool:
    """Holds every weight that no layer of its own has, in place, as far as that is seen to change no output.

    Of a weight that several modules share, one has the layer: a linear one that ran rather than a table, a table rather
    than any other module. The others read it from there.

    Args:
        model: in evaluation mode.
        seen: of it.
        run: calls it on a small batch.

    Returns:
        Whether anything is held.
    """
    for places in _shared(model).values():
        _hold(places, seen)
    if not any(readers(model)):
        return False
    if not _unchanged(seen.outputs, model, run):
        # A module whose own code looks at what its parameters are: all that nothing is known of become parameters.
        _give_back(model, _is_plain)
        if not _unchanged(seen.outputs, model, run):
            _give_back(model, lambda _: True)
    return any(readers(model))


def as_held(model: nn.Module, names: Collection[str], tensors: Collection[str] = ()) -> None:
    """Makes layers of these names in a float network of the same class, in place, where they are weights of it.

    Args:
        model: as its class makes it.
        names: of the layers of a network that was prepared.
        tensors: names of parameters that are there beside them, so that modules may not compute them.
    """
    known = names_of(model)

    def wanted(module: nn.Module) -> bool:
        own = known[id(module)]
        inner = [f"{name}.{one}" if name else one for name in own for one in computed_weights(module)]
        return any(one in names for one in (*own, *inner)) or any(one in tensors for one in inner)

    make_effective(model, wanted)
    transpose_linears(model, names)
    modules = dict(model.named_modules(remove_duplicate=False))
    shared = _shared(model)
    for name in names:
        parent, _, parameter = name.rpartition(".")
        layer, holder = modules.get(name), modules.get(parent)
        weight = None
        if layer is None and holder is not None:
            weight = holder._parameters.get(parameter)
            if weight is not None:
                layer = hold(holder, parameter)
        elif layer is not None:
            weight = layer._parameters.get("weight")
        if layer is None or weight is None:
            continue  # what is missing is told by whoever needs it
        for module, other in shared.get(id(weight), ()):
            if module is not layer and other in module._parameters:
                read_from(module, other, layer)


def give_back_float(model: nn.Module) -> None:
    """Makes parameters again of all weights that are read from layers which are not coded, in place."""
    for module, name, layer, _ in list(readers(model)):
        weight = layer._parameters.get("weight")
        if weight is not None:
            give_back(module, name, weight)


def is_coded_itself(module: nn.Module, seen: Observation) -> bool:
    """Whether a module is a layer whose own ``weight`` can be coded."""
    try:
        coded_class(module, id(module) in seen.alike)
    except ModelError:
        return False
    return True


def _shared(model: nn.Module) -> dict[int, list[Place]]:
    """The places of each parameter, by identity."""
    found: dict[int, list[Place]] = {}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None and not isinstance(module, torch.jit.ScriptModule):
                found.setdefault(id(parameter), []).append((module, name))
    return found


def _hold(places: list[Place], seen: Observation) -> None:
    module, name = places[0]
    weight = module._parameters[name]
    assert weight is not None
    if not is_matrix(weight) or any(isinstance(one, _NORMS) for one, _ in places):
        return
    layers = [one for one, own in places if own == "weight" and is_coded_itself(one, seen)]
    layers.sort(key=lambda one: (Geometry.of(one).looked_up, id(one) not in seen.calls))
    if not layers and Geometry.of_shape(tuple(weight.shape)).matrix_shape[2] > _WIDEST:
        return
    try:
        layer = layers[0] if layers else hold(module, name)
        for other, own in places:
            if other is not layer and own in other._parameters:
                read_from(other, own, layer)
    except ModelError:  # of a class that cannot be extended
        if isinstance(module, Reader):
            give_back_float(module)


def _is_plain(module: nn.Module) -> bool:
    """Whether nothing is known of the kind of module but that it has parameters."""
    return type(module).__mro__[1] is Reader and not isinstance(module, (nn.Embedding, nn.Linear))


def _give_back(model: nn.Module, which: Callable[[nn.Module], bool]) -> None:
    for module, name, layer, _ in list(readers(model)):
        weight = layer._parameters.get("weight")
        if which(module) and weight is not None:
            give_back(module, name, weight)


def _unchanged(expected: Any, model: nn.Module, run: Callable[[nn.Module], Any]) -> bool:
    """Whether a network still gives what it gave, or never gives the same twice, where what it reads from layers are
    tensors, as they are once they are coded, and no parameters."""
    held = [(layer, layer._parameters["weight"]) for _, _, layer, _ in readers(model) if "weight" in layer._parameters]
    for layer, weight in held:
        if weight is not None:
            layer._parameters["weight"] = weight.detach()  # pyright: ignore[reportArgumentType]
    try:
        return _gives(expected, model, run)
    finally:
        for layer, weight in held:
            layer._parameters["weight"] = weight


def _gives(expected: Any, model: nn.Module, run: Callable[[nn.Module], Any]) -> bool:
    try:
        with torch.no_grad():
            found = run(model)
    except Exception:  # whatever its own code raises where a parameter is none
        return False
    if all(_near(one, other) for one, other in _pairs(expected, found)):
        return True
    with torch.no_grad():
        return not all(_near(one, other) for one, other in _pairs(found, run(model)))


def _pairs(one: Any, other: Any) -> Iterator[tuple[Tensor, Tensor]]:
    left, right = ([leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)] for value in (one, other))
    return zip(left, right, strict=True)


def _near(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape or not one.is_floating_point():
        return torch.equal(one, other)
    difference = (one.nan_to_num() - other.nan_to_num()).float().norm()
    allowed = 1e-3 if one.dtype.itemsize > 2 else 3e-2
    return float(difference) <= allowed * max(float(one.nan_to_num().float().norm()), 1e-12)
