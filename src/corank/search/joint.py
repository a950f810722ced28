"""Bits, group sizes and ranks of all layers at once, from one budget of bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, cast

import torch

from corank.codecs import Codec, RatedLevels, Uniform
from corank.codecs.scaled import ScaledLevels
from corank.errors import ConfigError
from corank.search.allocation import Allocation
from corank.search.base import Search
from corank.search.cora import CoRa
from corank.search.knapsack import KnapsackItem, allocate
from corank.search.problem import AllocationProblem, CodecCandidates, RateDistortionCurve, spent_bits

__all__ = ["Joint"]

_REFITS = 8  # times that the file's size is predicted and the budget corrected


@dataclass(frozen=True)
class Joint(Search):
    """A knapsack over the layers' error-versus-bytes curves at several codecs: no gradient step.

    Every layer is coded once with each codec. The error that is left at each rank follows from the energies along
    the adapter's directions, the bits are those that will be stored.

    Args:
        bits: widths to choose from; empty: from one below the plan's to two above.
        groups: group sizes to choose from (columns that share a scale; 0 for a row); those that a layer is too
            narrow for are left out.
        sensitivity: "fisher": errors as the fit estimates them; "measured": scaled, for each layer and codec, so
            that the error without an adapter is the divergence of the output when this layer alone is coded.
        then: search the ranks further at the codecs found, starting from the ranks found.
    """

    needs_coded_weights: ClassVar[bool] = False
    chooses_codecs: ClassVar[bool] = True

    bits: tuple[int, ...] = ()
    groups: tuple[int, ...] = (0, 64)
    sensitivity: str = "fisher"
    then: CoRa | None = None

    def __post_init__(self) -> None:
        if not all(type(one) is int and 1 <= one <= 8 for one in self.bits):
            raise ConfigError(f"bits={self.bits!r}: whole numbers from 1 to 8, e.g. Joint(bits=(2, 3, 4))")
        if not self.groups or not all(type(one) is int and one >= 0 for one in self.groups):
            raise ConfigError(f"groups={self.groups!r}: numbers of columns, 0 for a whole row, e.g. Joint(groups=(0,))")
        if self.sensitivity not in ("fisher", "measured"):
            raise ConfigError(f"sensitivity={self.sensitivity!r}: 'fisher' or 'measured'")

    def __call__(self, problem: AllocationProblem) -> Allocation:
        known = problem.candidates
        if known is None:
            raise ConfigError("Joint chooses codecs, and this problem has no candidates to choose from")
        if any(isinstance(known.codecs[name], RatedLevels) for name in known.free):
            raise ConfigError("search='joint' chooses widths, and codes of a rate have none; leave search out")
        curves: dict[str, tuple[RateDistortionCurve, ...]] = {}
        for number, (name, codec) in enumerate(known.codecs.items()):
            wanted = self._codecs(codec, known.shapes[name][2]) if name in known.free else (codec,)
            curves[name] = known.curves(name, wanted, self.sensitivity == "measured")
            problem.context.progress("measuring what every codec loses", number + 1, len(known.codecs))
        found = _fitting(curves, problem, known)
        if self.then is None:
            return found
        spent = spent_bits(problem, found.ranks)  # no more, since a file of a given size leaves room for no more
        again = known.recoded(found.codecs, spent)
        later = replace(self.then, start=dict(found.ranks))(again)
        return Allocation({**found.ranks, **later.ranks}, later.history, later.iterations, found.codecs)

    def _codecs(self, base: Codec, columns: int) -> tuple[Codec, ...]:
        """The plan's codec first, then the others."""
        widths = self.bits or tuple(range(max(1, base.bits - 1), min(8, base.bits + 2) + 1))
        found = [base]
        for bits in widths:
            try:
                codec = base.with_bits(bits)
            except ConfigError:  # a width that this kind does not have
                continue
            for one in self._grouped(codec, columns):
                if one not in found:
                    found.append(one)
        return tuple(found)

    def _grouped(self, codec: Codec, columns: int) -> list[Codec]:
        if not isinstance(codec, (Uniform, ScaledLevels)):
            return [codec]
        return [replace(cast(Any, codec), group=group) for group in self.groups if group < columns]


def _fitting(
    curves: Mapping[str, tuple[RateDistortionCurve, ...]], problem: AllocationProblem, known: CodecCandidates
) -> Allocation:
    """The best allocation; where a file's size is set, the best of those found whose file fits."""
    limit = problem.budget_bits + known.base_bits
    best: Allocation | None = None
    most = 0
    for _ in range(_REFITS):
        found = _allocation(curves, problem, known, limit)
        over = known.over(found)
        if over is None:
            return found
        if over <= 0 and (best is None or -over < most):
            best, most = found, -over
        if -1024 < over <= 0:
            break
        limit -= over if over <= 0 else over + 64
    return best or Allocation(dict.fromkeys(problem.layers, 0))


def _allocation(
    curves: Mapping[str, tuple[RateDistortionCurve, ...]],
    problem: AllocationProblem,
    known: CodecCandidates,
    limit: int,
) -> Allocation:
    items, meanings = [], []
    for own in curves.values():
        errors, bits = [curve.errors() for curve in own], [curve.bits() for curve in own]
        meanings.append([(curve.codec, rank) for curve in own for rank in range(curve.full_rank + 1)])
        items.append(KnapsackItem(torch.cat(errors), torch.cat(bits)))
    chosen = allocate(items, limit)
    if chosen is None:  # only where a size asks for less than the plan's own codecs take
        return Allocation(dict.fromkeys(problem.layers, 0))
    ranks, codecs = dict.fromkeys(problem.layers, 0), {}
    for name, meaning, one in zip(curves, meanings, chosen, strict=True):
        codec, rank = meaning[one]
        if codec != known.codecs[name]:
            codecs[name] = codec
        if name in ranks:
            ranks[name] = rank
    return Allocation(ranks, codecs=codecs)
