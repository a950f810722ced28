"""The targets of ``corank export --to NAME``. A new one is one more line."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from corank.export.result import Target

__all__ = ["TARGETS"]

TARGETS: Mapping[str, Target] = MappingProxyType({})
