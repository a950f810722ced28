"""A pruned float network from its file, into the network as its class makes it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
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
from corank.storage.artifact_file import ADAPTER_TENSOR

__all__ = ["load_pruned", "other_kind", "pruned_in"]

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


def other_kind(path: str | Path, names: Sequence[str]) -> str:
    """What a safetensors file of tensors of these names is that is no artifact, and what takes it."""
    if names == [ADAPTER_TENSOR]:
        return "a task's adapter, no network: corank.load_adapter(base, path) and --adapter take it"
    if pruned_in(path) is not None:
        return "a pruned network in float: corank.load(path, model) and --weights take it"
    return "a safetensors file but not a corank artifact; write one with corank.save(model, path)"


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
