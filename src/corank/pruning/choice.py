"""Which units go: those that score least, as many as a share of the cost asks for, and of no coupling all."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from corank.errors import BudgetError
from corank.pruning.coupling import Coupling

__all__ = ["chosen", "largest_share"]

_ROUNDING = 1e-9
_FLOOR = 8  # a coupling keeps one unit in so many, as long as the share can be had so
Cost = Callable[[Mapping[int, Tensor]], float]


def largest_share(couplings: Sequence[Coupling], cost: Cost, round_to: int = 1) -> float:
    """The share of the cost that goes where each coupling keeps as little as it can."""
    none = [torch.zeros(one.units, dtype=torch.float32, device="cpu") for one in couplings]
    order = _order(couplings, none, None, round_to)
    return 1 - cost(_first(couplings, order, len(order))) / cost({})


def chosen(
    couplings: Sequence[Coupling], scores: Sequence[Tensor], cost: Cost, share: float, round_to: int = 1
) -> dict[int, Tensor]:
    """The units that go, by place of their coupling a mask ``(U,)``: the fewest of least score that save the share.

    Args:
        couplings: all that may go.
        scores: of each coupling's units ``(U,)``; compared between couplings.
        cost: without given units.
        share: of the whole cost that is to go, above 0.
        round_to: channels left are multiples of it; couplings with fewer stay, heads go one by one.

    Raises:
        BudgetError: for a share that would leave a coupling nothing.
    """
    for divisor in (_FLOOR, None):
        order = _order(couplings, scores, divisor, round_to)
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
    most = largest_share(couplings, cost, round_to)
    raise BudgetError(
        f"{share:.4g} of the cost cannot go: every layer would have to lose all its channels; {most:.3f} can"
    )


def _order(
    couplings: Sequence[Coupling], scores: Sequence[Tensor], divisor: int | None, round_to: int
) -> list[tuple[int, list[int]]]:
    """(coupling, units that go at once), the least mean score first, without the best of each coupling, which stay."""
    found: list[tuple[float, int, list[int]]] = []
    for place, (coupling, score) in enumerate(zip(couplings, scores, strict=True)):
        stays = 1 if divisor is None else max(1, -(-coupling.units // divisor))
        known = score.detach().cpu().double()
        ranked = known.argsort(stable=True).tolist()
        step = 1 if coupling.heads is not None else _units_of(coupling, round_to)
        begin, end = 0, coupling.units % step or step
        while coupling.units - end >= max(stays, step):
            part = ranked[begin:end]
            found.append((float(known[part].mean()), place, part))
            begin, end = end, end + step
    return [(place, part) for _, place, part in sorted(found, key=lambda one: (one[0], one[1]))]


def _units_of(coupling: Coupling, channels: int) -> int:
    """The fewest units that hold a multiple of so many channels on every side that gives them."""
    found = 1
    for side in coupling.gives():
        each = max(1, len(side.index) // coupling.units)
        found = math.lcm(found, channels // math.gcd(channels, each))
    return found


def _first(couplings: Sequence[Coupling], order: Sequence[tuple[int, list[int]]], count: int) -> dict[int, Tensor]:
    removed: dict[int, list[int]] = {}
    for place, units in order[:count]:
        removed.setdefault(place, []).extend(units)
    masks: dict[int, Tensor] = {}
    for place, units in removed.items():
        masks[place] = torch.zeros(couplings[place].units, dtype=torch.bool, device="cpu")
        masks[place][units] = True
    return masks
