"""What a folder holds of a network of transformers beside its weights, so that its own ``from_pretrained`` takes it."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from corank.models.own_tokenizer import own_tokenizer

__all__ = ["CONFIG", "WEIGHTS_OF_TRANSFORMERS", "auto_class", "network_files"]

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
