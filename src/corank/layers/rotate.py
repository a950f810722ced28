"""A copy of a network whose linear layers are rotated, and which computes what the network does."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from corank.errors import ConfigError, ModelError
from corank.layers.fold_rotation import fold_rotation, head_of
from corank.layers.folding import agree
from corank.layers.observe import names_of, observe
from corank.layers.rotated import RotatedLayer, takes_a_rotation
from corank.layers.structure import STRUCTURE, apply_structure, read_structure, structure_of
from corank.matrix import SUPPORTED
from corank.watching import evaluating

__all__ = ["ROTATIONS", "check_rotation", "rotated"]

ROTATIONS = ("fold", "layers")
"""How linear layers are rotated: once for all, or as they run."""


def check_rotation(how: str | None) -> None:
    """Raises ConfigError for what is no way to rotate."""
    if how is not None and how not in ROTATIONS:
        raise ConfigError(f"rotate={how!r}: 'fold', 'layers' or None, e.g. quantize(model, tokens, rotate='fold')")


def rotated(model: nn.Module, run: Callable[[nn.Module], Any], how: str, seed: int) -> nn.Module:
    """A rotated copy, whose structure (:func:`~corank.layers.structure.structure_of`) says what was changed.

    Args:
        model: float; it is not changed.
        run: calls it on a small batch.
        how: of :data:`ROTATIONS`. "fold": see :mod:`corank.layers.fold_rotation`; a head that is tied to the embedding
            gets a weight of its own, as the norm before it is its alone. "layers": every plain linear layer whose
            weight is its own and which runs becomes a :class:`~corank.layers.rotated.RotatedLayer`.
        seed: of the signs.

    Raises:
        ModelError: for a network that is not rotated so, or whose outputs move.
    """
    check_rotation(how)
    made = copy.deepcopy(model)
    entries = _folded(made, seed) if how == "fold" else _layers(made, run, seed)
    if how == "fold":
        apply_structure(made, entries)
        fold_rotation(made, seed)
    else:
        apply_structure(made, entries)
        for module in made.modules():
            if isinstance(module, RotatedLayer):
                module.rotate_weight()
    with evaluating(model), evaluating(made), torch.no_grad():
        if not agree(run(model), run(made)):
            raise ModelError(
                f"this {type(model).__name__} computes something else once it is rotated: its norms, or what runs "
                f"between its layers, are not those of Llama; {_OTHER[how]}"
            )
    made.__dict__[STRUCTURE] = read_structure([*structure_of(model), *entries])
    return made


_OTHER = {"fold": "rotate='layers' takes any network", "layers": "rotate=None leaves it as it is"}


def _folded(model: nn.Module, seed: int) -> list[dict[str, Any]]:
    head, tied = head_of(model)
    return [{"kind": "rotated-stream", "module": head, "untied": tied, "seed": seed}]


def _layers(model: nn.Module, run: Callable[[nn.Module], Any], seed: int) -> list[dict[str, Any]]:
    seen, names = observe(model, run, SUPPORTED), names_of(model)
    inside = {id(part) for one in model.modules() if isinstance(one, nn.MultiheadAttention) for part in one.modules()}
    holders: dict[int, int] = {}
    for module in model.modules():
        for parameter in module._parameters.values():
            holders[id(parameter)] = holders.get(id(parameter), 0) + 1
    found = [
        {"kind": "rotation", "module": names[id(layer)][0], "outputs": False, "seed": seed}
        for layer in model.modules()
        if takes_a_rotation(layer) and holders[id(layer._parameters["weight"])] == 1
        and id(layer) in seen.calls and id(layer) not in inside and layer is not model
    ]  # fmt: skip
    if not found:
        raise ModelError(f"this {type(model).__name__} has no plain Linear layer to rotate; rotate=None leaves it so")
    return found
