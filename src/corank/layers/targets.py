"""Which layers of a network are coded, in which order, and what is known of each."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from corank.errors import ModelError
from corank.layers.held import HeldWeight, readers
from corank.layers.hold_weights import FEWEST, is_matrix
from corank.layers.kinds import coded_class
from corank.layers.observe import Observation, names_of
from corank.matrix import LOOKED_UP, SUPPORTED, Geometry

__all__ = ["edges_of", "find_targets", "own_weight", "told_apart"]


def find_targets(model: nn.Module, seen: Observation) -> tuple[dict[str, nn.Module], dict[str, str]]:
    """Name to layer of all that can be coded, and name to reason of what cannot."""
    names = names_of(model)
    read = {id(module): layer for module, name, layer, _ in readers(model) if name == "weight"}
    holders: dict[int, list[int]] = {}
    for module in model.modules():
        for parameter in module._parameters.values():
            if parameter is not None:
                holders.setdefault(id(parameter), []).append(id(module))
    targets: dict[str, nn.Module] = {}
    skipped: dict[str, str] = {}
    for module in _in_order(model, seen):
        name = names[id(module)][0]
        if id(module) in read:
            layer = names[id(read[id(module)])][0]
            reason = "" if layer == f"{name}.weight" else f"its weight is tied to that of {layer!r}, and stored once"
        else:
            tied = [names[one][0] for one in holders.get(id(module._parameters.get("weight")), ()) if one != id(module)]
            reason = _reason(module, seen, tied)
            if not reason:
                targets[name] = module
        if reason:
            skipped[name] = reason
    known = {name for names in (targets, skipped) for name in names}
    return targets, {**skipped, **_other_weights(model, known, names)}


def _reason(module: nn.Module, seen: Observation, tied: list[str]) -> str:
    """Why a layer cannot be coded; empty where it can.

    Args:
        module: of a kind that holds a matrix.
        seen: of its network.
        tied: names of other modules with the same weight.
    """
    try:
        coded_class(module, id(module) in seen.alike)
    except ModelError as error:
        return str(error)
    weight = own_weight(module)
    if not weight.numel():
        return "it has no weights"
    if tied:
        return f"its weight is tied to that of {tied[0]!r}, and stored once"
    if isinstance(module, LOOKED_UP) and not is_matrix(weight):
        return f"a table of {weight.numel():,} numbers: up to {FEWEST:,} stay in float"
    if id(module) not in seen.calls and not is_matrix(weight):
        return "it was never called (its weight may be read by its parent)"
    return ""


def told_apart(targets: dict[str, nn.Module], model: nn.Module, seen: Observation) -> dict[str, frozenset[str]]:
    """The sets of targets that :class:`PreparedModel` tells apart, by its names for them."""
    read = {id(layer) for _, _, layer, own in readers(model) if not own}
    inside = {id(part) for one in model.modules() if isinstance(one, nn.MultiheadAttention) for part in one.modules()}

    def those(true: Callable[[nn.Module], bool]) -> frozenset[str]:
        return frozenset(name for name, layer in targets.items() if true(layer))

    blind = those(lambda layer: Geometry.of(layer).looked_up or id(layer) not in seen.calls)
    return {
        "blind": blind,
        "unseen": blind | those(lambda layer: id(layer) not in seen.fed),
        "first": blind | those(lambda layer: id(layer) in read),
        "repeated": those(lambda layer: isinstance(layer, HeldWeight) and seen.calls.get(id(layer), 0) > 1),
        "weight_only": blind | those(lambda layer: isinstance(layer, HeldWeight) or id(layer) in inside),
    }


def _other_weights(model: nn.Module, known: set[str], names: dict[int, list[str]]) -> dict[str, str]:
    """Modules that keep a hundredth of the model's weights or more, and are no layers that could be coded."""
    whole = sum(parameter.numel() for parameter in model.parameters())
    found: dict[str, str] = {}
    for module in model.modules():
        name, held = names[id(module)][0], dict(module.named_parameters(recurse=False))
        count = sum(parameter.numel() for parameter in held.values())
        if name not in known and 100 * count >= whole and any(parameter.dim() > 1 for parameter in held.values()):
            shown = ", ".join(list(held)[:3]) + (", ..." if len(held) > 3 else "")
            kind = type(module).__name__
            found[name] = f"not a kind of layer that corank codes ({kind}: {shown}; {count:,} numbers)"
    return found


def _in_order(model: nn.Module, seen: Observation) -> list[nn.Module]:
    """The modules that hold a matrix: those that did not run or are looked up first, as they are coded first; then in
    the order they ran."""
    order = {identity: place for place, identity in enumerate(seen.calls)}
    return sorted(_holders(model), key=lambda one: -1 if isinstance(one, LOOKED_UP) else order.get(id(one), -1))


def _holders(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, (*SUPPORTED, *LOOKED_UP))]


def edges_of(targets: dict[str, nn.Module], model: nn.Module, seen: Observation) -> frozenset[str]:
    """The first and the last layer that run. A network that begins with a table that is looked up has none: table and
    head are most of it."""
    holders = {id(module): module for module in _holders(model)}
    ran = [holders[identity] for identity in seen.calls if identity in holders]
    if not ran or isinstance(ran[0], LOOKED_UP):
        return frozenset()
    ends = {id(ran[0]), id(ran[-1])}
    return frozenset(name for name, module in targets.items() if id(module) in ends)


def own_weight(layer: nn.Module) -> Tensor:
    """The parameter of a layer that is coded."""
    weight = layer._parameters.get("weight")
    if weight is None:
        raise ModelError(f"{type(layer).__name__} has no weight of its own")
    return weight
