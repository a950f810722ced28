"""The tokenizer that goes with a language model of transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from corank.errors import ConfigError

__all__ = ["own_tokenizer"]

_FILES = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json")


def own_tokenizer(model: nn.Module, tokenizer: Any = None) -> Any:
    """A tokenizer of transformers, or None.

    Args:
        model: whose own folder is looked into where no tokenizer is given; nothing is fetched for it.
        tokenizer: one that is made already, its folder or its name; False for none.

    Raises:
        ConfigError: it cannot be read.
    """
    if tokenizer is False or not (tokenizer is None or isinstance(tokenizer, (str, Path))):
        return tokenizer or None
    folder = str(tokenizer if tokenizer is not None else model.__dict__.get("name_or_path", ""))
    if tokenizer is None and (not folder or not any((Path(folder) / name).is_file() for name in _FILES)):
        return None
    import transformers

    try:
        return transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # of many kinds, some of extensions
        raise ConfigError(f"the tokenizer of {folder} cannot be read: {error}") from error
