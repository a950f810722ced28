"""A pruned float network from its file, into the network as its class makes it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import nn

from corank.errors import ArtifactError, ModelError
from corank.layers.effective import computed_before
from corank.layers.meta import materialise
from corank.layers.structure import STRUCTURE, Structure, apply_structure
from corank.models.pruned_file import structure_in
from corank.models.weights import load_weights
from corank.models.weights_file import read_content

__all__ = ["load_pruned", "pruned_in"]

_LONGEST_MESSAGE = 1000


def pruned_in(path: str | Path) -> Structure | None:
    """The widths in the file of a pruned float network; None for any other file.

    Raises:
        ArtifactError: for widths that cannot be.
    """
    try:
        return structure_in(path)
    except ModelError as error:
        raise ArtifactError(str(error)[:_LONGEST_MESSAGE]) from error


def load_pruned(path: str | Path, structure: Structure, model: nn.Module, dtype: torch.dtype | None) -> nn.Module:
    """A copy of ``model`` as narrow as the file says, with its numbers.

    Args:
        path: of the file.
        structure: from :func:`pruned_in`.
        model: as its class makes it; on the meta device if you like.
        dtype: of the result; None for the file's own.

    Raises:
        ArtifactError: for a file that does not fit the model.
    """
    built = copy.deepcopy(model, dict[int, Any](computed_before(model))).eval()
    try:
        apply_structure(built, structure)
        materialise(built)
        kinds = {one.dtype for one in read_content(Path(path)).values() if one.is_floating_point()}
        if len(kinds) == 1:
            built.to(kinds.pop())
        load_weights(built, path)
    except (ModelError, RuntimeError) as error:
        said = str(error)[:_LONGEST_MESSAGE]
        raise ArtifactError(f"{path} does not fit this {type(model).__name__}: {said}") from error
    built.__dict__[STRUCTURE] = structure
    return built if dtype is None else built.to(dtype)
