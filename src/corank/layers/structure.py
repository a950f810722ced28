"""Changed structure: a short list of known kinds with bounds, which makes a network of its original class anew.

The list travels in the file as plain JSON, ``[{"kind": "shortcut", "module": "layer1.0.conv2", ...}, ...]``. Nothing in
it is looked up anywhere but among the network's own modules, and nothing is executed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from corank.errors import ConfigError, ModelError
from corank.layers.effective import make_effective
from corank.layers.fold_rotation import untie
from corank.layers.query_key import ProductAttention, QueryKeyAttention
from corank.layers.replace import replace_module
from corank.layers.rotated import RotatedLayer
from corank.layers.rprelu import replace_relus
from corank.layers.shortcut import Shortcut
from corank.layers.width import resize

__all__ = ["KINDS", "STRUCTURE", "Structure", "apply_structure", "read_structure", "structure_of", "with_widths"]

Structure = tuple[Mapping[str, Any], ...]
STRUCTURE = "corank_structure"
"""The attribute of a float network that is narrower than its class makes it, as :func:`corank.prune` leaves it."""

_MOST_ENTRIES, _MOST_CALLS, _MOST_CHANNELS = 10_000, 1000, 1 << 22  # channels of all entries together
_MOST_SIZES, _MOST_SIZE = 64, 1 << 31  # of one module; of one size
_SEEDS = 1 << 64


def apply_structure(model: nn.Module, structure: Iterable[Mapping[str, Any]]) -> None:
    """Changes a network in place, entry by entry.

    - ``{"kind": "rprelu", "module": NAME, "channels": [16, 16]}``: the calls of ``relu`` while that module runs become
      RPReLUs; see :func:`~corank.layers.rprelu.replace_relus`. The empty name is the network itself.
    - ``{"kind": "shortcut", "module": NAME, "norm": NAME or null}``: the layer becomes a
      :class:`~corank.layers.shortcut.Shortcut` round it and the norm, in whose place an ``Identity`` is left. The layer
      goes by ``NAME.layer`` then, and its norm by ``NAME.norm``.
    - ``{"kind": "query-key", "module": NAME, "bits": 2 to 8 or null}``: the attention of a vision transformer becomes a
      :class:`~corank.layers.query_key.QueryKeyAttention`, whose products round what they multiply to so many bits.
    - ``{"kind": "products", "module": NAME, "bits": 2 to 8 or null}``: it keeps its queries and keys, and becomes a
      :class:`~corank.layers.query_key.ProductAttention`.
    - ``{"kind": "rotation", "module": NAME, "outputs": false, "seed": 0}``: the layer becomes a
      :class:`~corank.layers.rotated.RotatedLayer` round it, whose weight is rotated already. The layer goes by
      ``NAME.layer`` then.
    - ``{"kind": "rotated-stream", "module": HEAD, "untied": true, "seed": 0}``: the weights are those of a network that
      :func:`~corank.layers.fold_rotation.fold_rotation` rotated. Its head gets a weight of its own, where it was tied.
    - ``{"kind": "width", "module": NAME, "sizes": {"out_channels": 12}}``: the layer has fewer channels, features,
      groups or heads; see :func:`~corank.layers.width.resize`. The empty name is the network itself. Weights that
      modules compute from others are plain then, in the whole network, as they were when channels went.

    Args:
        model: of the class that the list was made for; new parameters have its dtype and device.
        structure: as :func:`read_structure` gives it.

    Raises:
        ConfigError: for a list that is none. ModelError: for an entry that does not fit the network.
    """
    entries = read_structure(list(structure))
    if any(entry["kind"] == "width" for entry in entries):
        make_effective(model)
    for entry in entries:
        try:
            KINDS[entry["kind"]].apply(model, entry)
        except ModelError as error:
            error.add_note(f"in the structure's entry {str(dict(entry))[:200]}")
            raise


def read_structure(data: Any) -> Structure:
    """A list that anyone may have written, checked.

    Raises:
        ConfigError: naming what is wrong.
    """
    if not isinstance(data, (list, tuple)) or len(data) > _MOST_ENTRIES:
        raise ConfigError(f"a structure is a list of at most {_MOST_ENTRIES} entries, not {str(data)[:80]!r}")
    for entry in data:
        if not isinstance(entry, Mapping) or not isinstance(entry.get("kind"), str) or entry["kind"] not in KINDS:
            raise ConfigError(f"a structure has an entry {str(entry)[:80]!r}; its kind is one of {', '.join(KINDS)}")
        known = {"kind", "module", *KINDS[entry["kind"]].fields}
        if set(entry) != known or not isinstance(entry["module"], str):
            raise ConfigError(f"a structure's {entry['kind']} has the fields {', '.join(sorted(known))}")
        KINDS[entry["kind"]].check(entry)
    names = [(entry["kind"], entry["module"]) for entry in data]
    if len(set(names)) != len(names):
        raise ConfigError("a structure changes one module twice in the same way")
    if sum(sum(entry["channels"]) for entry in data if entry["kind"] == "rprelu") > _MOST_CHANNELS:
        raise ConfigError(f"a structure has more than {_MOST_CHANNELS} channels in all")
    return tuple(data)


@dataclass(frozen=True)
class _Kind:
    """One kind of change: its fields beside kind and module, what checks them, and what carries it out."""

    fields: tuple[str, ...]
    check: Callable[[Mapping[str, Any]], None]
    apply: Callable[[nn.Module, Mapping[str, Any]], None]


def _check_rprelu(entry: Mapping[str, Any]) -> None:
    counts = entry["channels"]
    if not isinstance(counts, (list, tuple)) or not 0 < len(counts) <= _MOST_CALLS:
        raise ConfigError(f"a structure's channels are a list of 1 to {_MOST_CALLS} numbers, not {str(counts)[:80]!r}")
    if not all(type(count) is int and 0 <= count <= _MOST_CHANNELS for count in counts):
        raise ConfigError(f"a structure's channels are whole numbers, 0 to leave a relu as it is: {str(counts)[:80]!r}")


def _check_shortcut(entry: Mapping[str, Any]) -> None:
    if entry["norm"] is not None and not isinstance(entry["norm"], str):
        raise ConfigError(f"a structure's norm is a module's name or null, not {str(entry['norm'])[:80]!r}")


def _check_bits(entry: Mapping[str, Any]) -> None:
    bits = entry["bits"]
    if bits is not None and (type(bits) is not int or bits not in range(2, 9)):
        raise ConfigError(f"a structure's bits are 2 to 8, or null for float, not {str(bits)[:80]!r}")


def _check_seed(entry: Mapping[str, Any]) -> None:
    said = "outputs" if entry["kind"] == "rotation" else "untied"
    if type(entry["seed"]) is not int or not 0 <= entry["seed"] < _SEEDS or type(entry[said]) is not bool:
        raise ConfigError(
            f"a structure's rotation has a seed from 0 to 2**64 - 1 and {said!r}, true or false, not "
            f"{str(entry['seed'])[:80]!r} and {str(entry[said])[:80]!r}"
        )


def _rprelu(model: nn.Module, entry: Mapping[str, Any]) -> None:
    module = _module(model, entry["module"]) if entry["module"] else model
    replace_relus(module, entry["channels"], _like(module, model))


def _shortcut(model: nn.Module, entry: Mapping[str, Any]) -> None:
    layer = _module(model, entry["module"])
    norm = None if entry["norm"] is None else _module(model, entry["norm"])
    made = Shortcut(layer, norm)
    if norm is not None:  # before the shortcut stands in the network, as it holds the norm
        replace_module(model, norm, nn.Identity().train(norm.training))
    replace_module(model, layer, made)


def _query_key(model: nn.Module, entry: Mapping[str, Any]) -> None:
    attention = _module(model, entry["module"])
    replace_module(model, attention, QueryKeyAttention(attention, entry["bits"]))


def _products(model: nn.Module, entry: Mapping[str, Any]) -> None:
    attention = _module(model, entry["module"])
    replace_module(model, attention, ProductAttention(attention, entry["bits"]))


def _rotation(model: nn.Module, entry: Mapping[str, Any]) -> None:
    layer = _module(model, entry["module"])
    replace_module(model, layer, RotatedLayer(layer, entry["seed"], entry["outputs"]))


def _rotated_stream(model: nn.Module, entry: Mapping[str, Any]) -> None:
    head = _module(model, entry["module"])
    if type(head) is not nn.Linear:
        raise ModelError(f"its module {entry['module'][:200]!r} is no Linear layer, so no head")
    if entry["untied"]:
        untie(model, head)


def _module(model: nn.Module, name: str) -> nn.Module:
    found = dict(model.named_modules(remove_duplicate=False)).get(name)
    if found is None or found is model:
        raise ModelError(f"it has no module {name[:200]!r}")
    return found


def _like(module: nn.Module, model: nn.Module) -> Tensor:
    for one in (module, model):
        for parameter in one.parameters():
            if parameter.is_floating_point():
                return parameter
    raise ModelError(f"this {type(model).__name__} has no parameters")


def _check_width(entry: Mapping[str, Any]) -> None:
    sizes = entry["sizes"]
    if not isinstance(sizes, Mapping) or not 0 < len(sizes) <= _MOST_SIZES:
        raise ConfigError(f"a structure's sizes are an object of 1 to {_MOST_SIZES} numbers, not {str(sizes)[:80]!r}")
    for name, size in sizes.items():
        listed = size if isinstance(size, (list, tuple)) and 0 < len(size) <= _MOST_SIZES else [size]
        if not isinstance(name, str) or not all(type(one) is int and 0 < one <= _MOST_SIZE for one in listed):
            raise ConfigError(f"a structure's size {str(name)[:80]!r} is {str(size)[:80]!r}: a whole number from 1")


def _width(model: nn.Module, entry: Mapping[str, Any]) -> None:
    resize(_module(model, entry["module"]) if entry["module"] else model, entry["sizes"])


def structure_of(model: nn.Module) -> Structure:
    """How a float network differs from its class, as :func:`corank.prune` and :func:`corank.load` say it of their
    results; empty for any other."""
    return model.__dict__.get(STRUCTURE, ())


def with_widths(structure: Structure, sizes: Mapping[str, Mapping[str, Any]]) -> Structure:
    """The structure with widths by module, in the place of those that the modules had."""
    known = {entry["module"]: dict(entry["sizes"]) for entry in structure if entry["kind"] == "width"}
    for name, own in sizes.items():
        known[name] = {**known.get(name, {}), **own}
    widths = [{"kind": "width", "module": name, "sizes": own} for name, own in known.items()]
    return read_structure([*widths, *(entry for entry in structure if entry["kind"] != "width")])


KINDS: Mapping[str, _Kind] = {
    "products": _Kind(("bits",), _check_bits, _products),
    "query-key": _Kind(("bits",), _check_bits, _query_key),
    "rotated-stream": _Kind(("untied", "seed"), _check_seed, _rotated_stream),
    "rotation": _Kind(("outputs", "seed"), _check_seed, _rotation),
    "rprelu": _Kind(("channels",), _check_rprelu, _rprelu),
    "shortcut": _Kind(("norm",), _check_shortcut, _shortcut),
    "width": _Kind(("sizes",), _check_width, _width),
}
"""Kinds by name."""
