"""Which value each weight takes."""

from corank.rounding.adaround import AdaRound
from corank.rounding.base import Rounder
from corank.rounding.dependent import Dependent
from corank.rounding.gpfq import Gpfq
from corank.rounding.gptq import Gptq
from corank.rounding.nearest import Nearest
from corank.rounding.qronos import Qronos
from corank.rounding.stochastic import Stochastic

ROUNDERS: dict[str, type[Rounder]] = {
    "adaround": AdaRound,
    "dependent": Dependent,
    "gpfq": Gpfq,
    "gptq": Gptq,
    "nearest": Nearest,
    "qronos": Qronos,
    "stochastic": Stochastic,
}

__all__ = ["ROUNDERS", "AdaRound", "Dependent", "Gpfq", "Gptq", "Nearest", "Qronos", "Rounder", "Stochastic"]
