"""Packages that tuning needs, imported where they are used."""

from __future__ import annotations

import importlib
from typing import Any

from corank.errors import ConfigError

__all__ = ["optuna"]


def optuna() -> Any:
    """The package, its own messages switched off.

    Raises:
        ConfigError: where it is missing.
    """
    try:
        found = importlib.import_module("optuna")
    except ImportError as error:
        raise ConfigError("tuning needs optuna: pip install 'corank[tune]'") from error
    found.logging.set_verbosity(found.logging.ERROR)
    return found
