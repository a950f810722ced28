"""What a search returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from corank.codecs import Codec

__all__ = ["Allocation"]


@dataclass(frozen=True)
class Allocation:
    """Ranks of the adapters and, from a search that chooses codecs, the codecs.

    Attributes:
        ranks: layer name to rank; within the budget.
        history: one entry for each gradient step: iteration, loss, divergence, extra_bits (per weight).
        iterations: gradient steps taken.
        codecs: layer name to codec, of layers that get another than the plan's; what they store more than those (it
            may be less) counts against the budget.
    """

    ranks: Mapping[str, int]
    history: tuple[Mapping[str, float], ...] = field(default=())
    iterations: int = 0
    codecs: Mapping[str, Codec] = field(default_factory=dict)
