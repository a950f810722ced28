"""What a folder holds of a network of transformers beside its weights, so that its own ``from_pretrained`` takes it."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
from safetensors import SafetensorError
from torch import nn

from corank.errors import OutputError
from corank.models.own_tokenizer import own_tokenizer
from corank.storage.artifact_file import TENSOR

__all__ = ["CONFIG", "WEIGHTS_OF_TRANSFORMERS", "auto_class", "check_replaceable", "holds_codes", "network_files"]

CONFIG, WEIGHTS_OF_TRANSFORMERS = "config.json", "model.safetensors"
_KINDS = {"ForCausalLM": "AutoModelForCausalLM", "LMHeadModel": "AutoModelForCausalLM"}


def auto_class(model: nn.Module) -> str | None:
    """The class of transformers that loads such a network; None for one that is not of that library."""
    library = sys.modules.get("transformers")
    own = type(model).__module__.startswith("transformers.")
    if library is None or not own or not isinstance(model, library.PreTrainedModel):
        return None
    name = type(model).__name__
    found = next((auto for ending, auto in _KINDS.items() if name.endswith(ending)), None)
    named = [f"AutoModel{name[name.index('For') :]}"] if "For" in name else []
    return found or next((auto for auto in named if hasattr(library, auto)), "AutoModel")


def network_files(model: Any, tokenizer: Any, told: Mapping[str, Any]) -> dict[str, str]:
    """Names and texts: the configuration, that of generation, and the tokenizer's files.

    Args:
        model: of transformers.
        tokenizer: as :func:`~corank.models.own_tokenizer.own_tokenizer` takes it.
        told: entries of the configuration that take the place of the model's own.

    Raises:
        ConfigError: the tokenizer cannot be read.
    """
    found = own_tokenizer(model, tokenizer)
    with tempfile.TemporaryDirectory(prefix="corank-") as folder:
        if found is not None:
            found.save_pretrained(folder)
        if model.can_generate():
            model.generation_config.save_pretrained(folder)
        model.config.save_pretrained(folder)
        files = {path.name: path.read_text(encoding="utf-8") for path in Path(folder).iterdir() if path.is_file()}
    config = json.loads(files[CONFIG])
    config["architectures"] = [type(model).__name__]
    config["dtype"] = str(model.dtype).removeprefix("torch.")
    return {**files, CONFIG: json.dumps({**config, **told}, indent=2) + "\n"}


def holds_codes(path: Path) -> bool:
    """Whether a file is an artifact of corank, by its head alone."""
    try:
        with safetensors.safe_open(str(path), "pt") as file:
            return list(file.keys()) == [TENSOR] or "corank" in (file.metadata() or {})
    except (SafetensorError, OSError, ValueError, RuntimeError):
        return False


def check_replaceable(path: Path) -> None:
    """Raises OutputError for weights that are not corank's: the float network of that folder."""
    if path.exists() and not holds_codes(path):
        raise OutputError(f"{path} holds a float network, which the codes would take the place of; give another folder")
