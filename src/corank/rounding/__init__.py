"""Which value each weight takes."""

from corank.rounding.base import Rounder
from corank.rounding.gptq import Gptq
from corank.rounding.nearest import Nearest

ROUNDERS: dict[str, type[Rounder]] = {"gptq": Gptq, "nearest": Nearest}

__all__ = ["ROUNDERS", "Gptq", "Nearest", "Rounder"]
