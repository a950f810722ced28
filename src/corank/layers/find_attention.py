"""Which attention of a network can be changed: all of it, or an error that names what cannot."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from corank.errors import ModelError
from corank.layers.folding import agree
from corank.layers.observe import names_of
from corank.layers.structure import apply_structure
from corank.layers.vit_attention import is_attention, parts_of
from corank.watching import evaluating

__all__ = ["ATTENTION", "find_attention"]

ATTENTION = ("products", "query-key")
"""The kinds of change that attention has."""


def find_attention(
    model: nn.Module, run: Callable[[nn.Module], Any], kind: str, bits: int | None
) -> list[dict[str, Any]]:
    """The entries that change all attention of a network, whose outputs a copy shows to stay with operands in float.

    Args:
        model: is not changed.
        run: calls it on a small batch.
        kind: of :data:`ATTENTION`.
        bits: of the operands; None for float.

    Raises:
        ModelError: where there is none, one cannot be changed, or the outputs move.
    """
    names, found = names_of(model), list[dict[str, Any]]()
    for module in model.modules():
        name, inner = names[id(module)][0], list(module.modules())[1:]
        known = is_attention(module) and module is not model
        if known:
            _may(module, name, kind)
            found.append({"kind": kind, "module": name, "bits": bits})
        elif _says_so(module) and not any(is_attention(one) or _says_so(one) for one in inner):
            _may(module, name, kind)
    if not found:
        raise ModelError(f"this {type(model).__name__} has no attention to change; {_INSTEAD[kind]}")
    changed = copy.deepcopy(model)
    apply_structure(changed, [{**entry, "bits": None} for entry in found])
    with evaluating(model), evaluating(changed), torch.no_grad():
        if not agree(run(model), run(changed)):
            raise ModelError(
                f"the attention of this {type(model).__name__} computes something else than softmax(q k^T) v; "
                f"{_INSTEAD[kind]}"
            )
    return found


def _may(module: nn.Module, name: str, kind: str) -> None:
    try:
        parts_of(module)
    except ModelError as error:
        raise ModelError(f"attention {name!r} cannot be changed: {error}; {_INSTEAD[kind]}") from error


def _says_so(module: nn.Module) -> bool:
    """Whether a module says that it is attention, and has weights."""
    return "Attention" in type(module).__name__ and any(one.dim() > 1 for one in module.parameters())


_INSTEAD = {
    kind: f"a recipe without {kind!r} trains it, e.g. 'cga-w4a4', or chosen.replaced(structure=())"
    for kind in ATTENTION
}
