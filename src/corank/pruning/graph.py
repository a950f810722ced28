"""Which channels of a network go together, by the dependency graph of torch-pruning (arXiv 2301.12900).

The graph is read, never pruned with: what comes of it are plain indices, which :mod:`corank.pruning.trial` then tries.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.utils._pytree import tree_leaves

from corank.errors import ConfigError, ModelError
from corank.layers.width import HEADS, is_depthwise
from corank.losses import logits_of, sequence_logits
from corank.pruning.coupling import NORMS_ACROSS, Coupling, Side, merged_units, side_size
from corank.pruning.followed import Followed, followed

__all__ = ["Couplings", "find_couplings", "follow_padding", "read_outputs", "traced"]

_LAYERS = (_ConvNd, nn.Linear)
_NOTHING = torch.zeros(0, dtype=torch.int64, device="cpu")
_KNOWN = (*_LAYERS, _NormBase, *NORMS_ACROSS, nn.PReLU, nn.Embedding)


@dataclass(frozen=True)
class Couplings:
    """What goes together, and what stays.

    Attributes:
        found: that can go.
        left: by layer, why its outputs stay.
    """

    found: tuple[Coupling, ...]
    left: dict[str, str]


def find_couplings(model: nn.Module, run: Callable[[nn.Module], Any]) -> Couplings:
    """The couplings of a network.

    Args:
        model: in evaluation mode; it is not changed.
        run: calls it on a small batch.

    Raises:
        ConfigError: without torch-pruning. ModelError: for a network that cannot be followed.
    """
    graph, names = traced(model, run), dict[Any, str]()
    for name, module in model.named_modules():
        names.setdefault(module, name)
        for parameter, tensor in module._parameters.items():
            if tensor is not None:
                names[tensor] = f"{name}.{parameter}" if name else parameter
    reader = _Reader(graph, names, model)
    layers = {name: one for name, one in model.named_modules() if isinstance(one, _LAYERS)}
    for name, module in layers.items():
        if module in graph.module2node:
            reader.take(name)
    found = sorted(reader.found, key=lambda one: reader.places.get(one.name, 0))
    given = {side.module for one in found for side in one.gives()}
    reached = {names[one] for one in graph.module2node if one in names}
    left = {
        name: reader.left.get(
            name, "its outputs could not be followed" if name in reached else "the samples do not use it"
        )
        for name in layers if name not in given
    }  # fmt: skip
    return Couplings(tuple(found), left)


class _Reader:
    """Follows layer after layer, and takes those of its channels that no coupling has yet."""

    def __init__(self, graph: Any, names: dict[Any, str], model: nn.Module) -> None:
        self.found, self.left = list[Coupling](), dict[str, str]()
        self.places = {name: place for place, name in enumerate(dict(model.named_modules()))}
        self._names, self._model, self._graph = names, model, graph
        self._taken = set[tuple[str, str, int]]()
        self._shared = _sharing(model)

    def take(self, layer: str) -> None:
        """The couplings that a layer's outputs are part of, or why they are in none."""
        channels = self._unclaimed(layer)
        if not channels:
            return
        try:
            group = followed(self._graph, self._model.get_submodule(layer), channels)
            couplings = _couplings(group, self._names, self._model, self.places)
        except ModelError as error:
            self.left[layer] = str(error)
            return
        for coupling in couplings:
            claimed = {(one.module, one.side, place) for one in coupling.sides for place in one.index.tolist()}
            shared = next((one.module for one in coupling.sides if one.module in self._shared), None)
            if shared is not None:
                self.left[coupling.name] = f"its channels go through {shared!r}, whose weight another module shares"
            elif coupling.units < 2:
                self.left.setdefault(coupling.name, "its channels can only go all together")
            elif claimed & self._taken:
                self.left[coupling.name] = "its channels are part of another coupling, and so stay in this one"
            else:
                self._taken |= claimed
                self.found.append(coupling)

    def _unclaimed(self, layer: str) -> list[int]:
        """Channels of a layer's outputs that no coupling has."""
        size = side_size(self._model.get_submodule(layer), Side(layer, "out", _NOTHING, _NOTHING))
        return [one for one in range(size) if (layer, "out", one) not in self._taken]


def _sharing(model: nn.Module) -> set[str]:
    """Names of modules with a parameter that another module has, too."""
    holders: dict[int, list[str]] = {}
    for name, module in model.named_modules():
        for own in module._parameters.values():
            if own is not None:
                holders.setdefault(id(own), []).append(name)
    return {name for names in holders.values() if len(names) > 1 for name in names}


def traced(model: nn.Module, run: Callable[[nn.Module], Any]) -> Any:
    """torch-pruning's dependency graph of a network, with what it lacks: channels that are padded with zeros."""
    if importlib.util.find_spec("torch_pruning") is None:
        raise ConfigError("channels are coupled by torch-pruning, which is not installed: pip install 'corank[prune]'")
    import torch_pruning

    wanted = [one.requires_grad for one in model.parameters()]
    try:
        with torch.enable_grad():
            model.requires_grad_(True)
            graph = torch_pruning.DependencyGraph().build_dependency(
                model,
                example_inputs=[],
                forward_fn=lambda one, _: run(one),
                output_transform=read_outputs,
                verbose=False,
            )
            follow_padding(graph)
            return graph
    except (RuntimeError, AttributeError, TypeError, ValueError, LookupError, ArithmeticError, AssertionError) as error:
        raise ModelError(
            f"torch-pruning cannot follow this {type(model).__name__} from its outputs to its layers "
            f"({type(error).__name__}: {error}); prune a part of it that can be, or leave it as it is"
        ) from error
    finally:
        for one, before in zip(model.parameters(), wanted, strict=True):
            one.requires_grad_(before)


def read_outputs(output: Any) -> list[Tensor]:
    """What counts of a network's output: its logits, where it has them, so that what it caches may become narrower;
    else every floating tensor."""
    logits = sequence_logits(output)
    if logits is None:
        logits = logits_of(output)
    leaves = tree_leaves(output) if logits is None else [logits]
    return [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.is_floating_point()]


def follow_padding(graph: Any) -> None:
    """Tells the graph that zeros before and behind the channels shift their numbers, as in the shortcuts of the first
    residual networks (arXiv 1512.03385)."""
    from torch_pruning.dependency import index_mapping, shape_infer

    for node in graph.module2node.values():
        if "constantpad" not in type(node.grad_fn).__name__.lower():
            continue
        pad = list(node.grad_fn._saved_pad)
        before = pad[4] if len(pad) >= 6 else 0  # of images (N, C, H, W), whose last axis comes first
        for source in node.inputs if before else ():
            count = shape_infer.infer_out_channels_recursively(graph, source, [0])
            if count is None:
                continue
            mapping = index_mapping._ConcatIndexMapping
            for one, target, back in ((node, source, True), (source, node, False)):
                for dependency in one.dependencies:
                    if dependency.target is target:
                        dependency.index_mapping[1] = mapping(offset=[before, before + count], reverse=back)


def _heads(model: nn.Module, name: str) -> int:
    """Heads of an attention module; 0 for any other."""
    numbers = [model.get_submodule(name).__dict__.get(one) for one in HEADS]
    return next((number for number in numbers if type(number) is int), 0)


def _couplings(
    group: list[Followed], names: dict[Any, str], model: nn.Module, places: dict[str, int]
) -> list[Coupling]:
    """What was followed from a layer as plain indices; channels that are not in all sides are couplings of their own.

    Raises:
        ModelError: why its channels stay.
    """
    first = names[group[0].node.module]
    parent = first.rpartition(".")[0]
    heads = _heads(model, parent) if isinstance(group[0].node.module, nn.Linear) else 0
    sides = [side for item in group for side in _sides(item, names, model)]
    roots = sorted({root for side in sides for root in side.unit.tolist()})
    numbers = {root: place for place, root in enumerate(roots)}
    sides = [replace(one, unit=_numbered(one.unit, numbers)) for one in sides]
    modules = dict(model.named_modules())
    if heads:
        width = _head_width(modules[parent], sides, modules)
        sides = [one for one in sides if side_size(modules[one.module], one) != width]
        keys = [(one.unit, one.index // width) for one in sides if one.side == "in"][:1]
    else:
        keys = []
    keys += [(one.unit, one.index) for one in sides if len(one.index.unique()) < len(one.index)]
    keys += [key for one in sides for key in _tied(modules[one.module], one)]
    merged, units = merged_units(torch.tensor(roots, dtype=torch.int64, device="cpu"), keys)
    if not any(one.side == "in" for one in sides):
        raise ModelError("it gives the network's outputs")
    sides = [_once(replace(one, unit=merged[one.unit])) for one in sides]
    found = []
    for some in _alike(sides, units):
        numbers = {unit: place for place, unit in enumerate(some)}
        parts = [part for one in sides if (part := _part(one, numbers)) is not None]
        gives = [one.module for one in parts if one.side == "out" and isinstance(modules[one.module], _LAYERS)]
        name = min(gives, key=lambda one: places[one], default=first)
        found.append(Coupling(name, len(some), tuple(parts), parent if heads else None))
    return found


def _once(side: Side) -> Side:
    """Each channel once, in order; those that came from several places have one unit by now."""
    index, places = side.index.unique(return_inverse=True)
    unit = torch.zeros_like(index)
    return replace(side, index=index, unit=unit.scatter_(0, places, side.unit))


def _alike(sides: list[Side], units: int) -> list[list[int]]:
    """Units that are in the same sides, together."""
    where: list[list[int]] = [[] for _ in range(units)]
    for place, side in enumerate(sides):
        for unit in set(side.unit.tolist()):
            where[unit].append(place)
    found: dict[tuple[int, ...], list[int]] = {}
    for unit, places in enumerate(where):
        found.setdefault(tuple(places), []).append(unit)
    return list(found.values())


def _part(side: Side, numbers: dict[int, int]) -> Side | None:
    """The side's channels of those units alone."""
    wanted = torch.tensor([unit in numbers for unit in side.unit.tolist()], dtype=torch.bool, device="cpu")
    unit = _numbered(side.unit[wanted], numbers)
    return replace(side, index=side.index[wanted], unit=unit) if len(unit) else None


def _numbered(unit: Tensor, numbers: dict[int, int]) -> Tensor:
    return torch.tensor([numbers[one] for one in unit.tolist()], dtype=torch.int64, device="cpu")


def _head_width(attention: nn.Module, sides: list[Side], modules: dict[str, nn.Module]) -> int:
    """Channels of a head, by what the layer behind the attention reads."""
    read = next((one for one in sides if one.side == "in"), None)
    heads = next(attention.__dict__[name] for name in HEADS if name in attention.__dict__)
    size = 0 if read is None else side_size(modules[read.module], read)
    if not size or size % heads:
        raise ModelError(f"what its {heads} heads give could not be followed")
    return size // heads


def _sides(item: Followed, names: dict[Any, str], model: nn.Module) -> Iterator[Side]:
    """The sides that a place is about; none for operations without numbers of their own."""
    from torch_pruning import ops

    module, kind = item.node.module, item.node.type
    if kind == ops.OPTYPE.OUTPUT:
        raise ModelError("it gives the network's outputs")
    index, unit = torch.tensor(sorted(item.pairs), dtype=torch.int64, device="cpu").reshape(-1, 2).unbind(1)
    if isinstance(module, nn.Parameter):
        holder, _, parameter = names[module].rpartition(".")
        axis = item.node.pruning_dim % module.dim()
        side = Side(holder, parameter, index, unit, axis)
    elif module not in names:
        return
    elif not isinstance(module, _KNOWN) or (isinstance(module, _ConvNd) and module.transposed and module.groups > 1):
        raise ModelError(f"its channels go through {names[module]!r}, a {type(module).__name__}, which stays as it is")
    else:
        is_read = isinstance(module, _LAYERS) and not is_depthwise(module) and item.reads
        side = Side(names[module], "in" if is_read else "out", index, unit)
        _check_tensors(module, names[module])
        if isinstance(module, nn.PReLU) and module.num_parameters == 1:
            return
    owner = model.get_submodule(side.module)
    if len(index) and int(index.max()) >= side_size(owner, side):
        raise ModelError(f"its channels could not be followed to {side.module!r}, which has fewer")
    yield side


def _check_tensors(module: nn.Module, name: str) -> None:
    """Raises ModelError for a layer that cannot be made narrower."""
    if isinstance(module, (nn.LayerNorm, nn.RMSNorm)) and len(module.normalized_shape) != 1:
        raise ModelError(f"its channels go through {name!r}, which is a norm over more than one axis")
    if isinstance(module, (*_LAYERS, nn.Embedding)) and module._parameters.get("weight") is None:
        raise ModelError(f"the weight of {name!r} is computed from others, and keeps its shape")


def _tied(module: nn.Module, side: Side) -> Iterator[tuple[Tensor, Tensor]]:
    """Channels at the same place of each group, which go from all groups at once."""
    groups = module.num_groups if isinstance(module, nn.GroupNorm) else 1
    if isinstance(module, _ConvNd) and not is_depthwise(module):
        groups = module.groups
    if groups > 1:
        yield side.unit, side.index % (side_size(module, side) // groups)
