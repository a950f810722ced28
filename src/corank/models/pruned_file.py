"""Files of float networks that are narrower than their class: weights as any tool reads them, and the widths beside.

An ordinary ``.safetensors`` file of the state dict, with one entry of metadata: ``corank-structure``, the JSON list of
:mod:`corank.layers.structure`. It is read as weights are, by ``--weights`` too.
"""

from __future__ import annotations

import json
from pathlib import Path

import safetensors
from safetensors import SafetensorError
from safetensors.torch import save
from torch import nn

from corank.errors import ConfigError, ModelError
from corank.layers import Structure, read_structure, structure_of

__all__ = ["pruned_file", "structure_in"]

_KEY = "corank-structure"
_LONGEST = 1 << 24  # characters of the list


def pruned_file(model: nn.Module) -> bytes:
    """The bytes of the file of a float network."""
    # safetensors takes no two tensors of one storage
    tensors = {name: one.detach().cpu().clone().contiguous() for name, one in model.state_dict().items()}
    listed = [dict(entry) for entry in structure_of(model)]
    return save(tensors, metadata={_KEY: json.dumps(listed, separators=(",", ":"))})


def structure_in(path: str | Path) -> Structure | None:
    """How the network of a file differs from its class; None for a file that says nothing of it.

    Raises:
        ModelError: for a list that is none.
    """
    try:
        with safetensors.safe_open(str(path), "pt") as file:
            text = (file.metadata() or {}).get(_KEY)
    except (SafetensorError, OSError, ValueError):  # told by who reads the tensors
        return None
    if text is None:
        return None
    try:
        if len(text) > _LONGEST:
            raise ValueError(f"a list of {len(text)} characters")
        return read_structure(json.loads(text))
    except (ConfigError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} says how its network is narrower, but not soundly: {error}") from error
