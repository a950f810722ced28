"""What a pruning did: travels with the pruned model. Plain numbers, no tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from corank.errors import ModelError

__all__ = ["PRUNED", "PruneRecord", "pruned_of"]

PRUNED = "corank_pruned"


@dataclass(frozen=True)
class PruneRecord:
    """How a pruned network came about; found on it as ``model.corank_pruned``.

    Attributes:
        method: that weighed the channels.
        remove: what was asked for, such as "0.4" of the multiply-adds or "0.4p" of the parameters.
        multiply_adds: of a sample, in convolutions and linear layers, before and after.
        parameters: before and after.
        channels: by layer that lost some, its output channels before and after; by attention module, its heads.
        left: by layer whose channels stay, why.
        iterations: steps that the network trained, ``drawn`` of them before channels went.
        history: one entry for each step, as of :func:`corank.train`.
        seed: of all draws.
        seconds: that it took.
    """

    method: str
    remove: str
    multiply_adds: tuple[int, int]
    parameters: tuple[int, int]
    channels: Mapping[str, tuple[int, int]]
    left: Mapping[str, str]
    iterations: int = 0
    drawn: int = 0
    history: tuple[Mapping[str, float], ...] = ()
    seed: int = 0
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def pruned_of(model: nn.Module) -> PruneRecord:
    """The :class:`PruneRecord` of a model that :func:`corank.prune` returned.

    Raises:
        ModelError: for a model without one.
    """
    found = model.__dict__.get(PRUNED)
    if not isinstance(found, PruneRecord):
        raise ModelError(
            f"this {type(model).__name__} was not pruned here: its record travels with what corank.prune gives"
        )
    return found
