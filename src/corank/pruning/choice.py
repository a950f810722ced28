"""Which units go: those that score least, as many as a share of the cost asks for, and of no coupling all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from corank.errors import BudgetError
from corank.pruning.coupling import Coupling

__all__ = ["chosen", "largest_share"]

_ROUNDING = 1e-9
_FLOOR = 8  # a coupling keeps one unit in so many, as long as the share can be had so
Cost = Callable[[Mapping[int, Tensor]], float]


def largest_share(couplings: Sequence[Coupling], cost: Cost) -> float:
    """The share of the cost that goes where each coupling keeps one unit."""
    least = {place: torch.arange(one.units, device="cpu") > 0 for place, one in enumerate(couplings)}
    return 1 - cost(least) / cost({})


def chosen(couplings: Sequence[Coupling], scores: Sequence[Tensor], cost: Cost, share: float) -> dict[int, Tensor]:
    """The units that go, by place of their coupling a mask ``(U,)``: the fewest of least score that save the share.

    Args:
        couplings: all that may go.
        scores: of each coupling's units ``(U,)``; compared between couplings.
        cost: without given units.
        share: of the whole cost that is to go, above 0.

    Raises:
        BudgetError: for a share that would leave a coupling nothing.
    """
    for divisor in (_FLOOR, None):
        order = _order(couplings, scores, divisor)
        low, high = 0, len(order)
        wanted = (1 - share + _ROUNDING) * cost({})
        if cost(_first(couplings, order, high)) > wanted:
            continue
        while low < high:
            middle = (low + high) // 2
            if cost(_first(couplings, order, middle)) <= wanted:
                high = middle
            else:
                low = middle + 1
        return _first(couplings, order, high)
    most = largest_share(couplings, cost)
    raise BudgetError(
        f"{share:.4g} of the cost cannot go: every layer would have to lose all its channels; {most:.3f} can"
    )


def _order(couplings: Sequence[Coupling], scores: Sequence[Tensor], divisor: int | None) -> list[tuple[int, int]]:
    """(coupling, unit), the least score first, without the best of each coupling, which stay."""
    found: list[tuple[float, int, int]] = []
    for place, (coupling, score) in enumerate(zip(couplings, scores, strict=True)):
        stays = 1 if divisor is None else max(1, -(-coupling.units // divisor))
        ranked = score.detach().cpu().double().argsort(stable=True).tolist()
        found += [(float(score[unit]), place, unit) for unit in ranked[: coupling.units - stays]]
    return [(place, unit) for _, place, unit in sorted(found)]


def _first(couplings: Sequence[Coupling], order: Sequence[tuple[int, int]], count: int) -> dict[int, Tensor]:
    removed: dict[int, list[int]] = {}
    for place, unit in order[:count]:
        removed.setdefault(place, []).append(unit)
    masks: dict[int, Tensor] = {}
    for place, units in removed.items():
        masks[place] = torch.zeros(couplings[place].units, dtype=torch.bool, device="cpu")
        masks[place][units] = True
    return masks
