"""Statistics of all layers without holding them all: collected when they are asked for, a few layers in a pass."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from torch import nn

from corank.calibration.collect import collect
from corank.calibration.context import Context
from corank.matrix import Geometry
from corank.statistics import LayerStatistics, Statistic

__all__ = ["StreamedStatistics", "passes_over"]

_HELD_BYTES = 768 << 20  # of Gram matrices held at once; what is derived from them comes on top


class StreamedStatistics(Mapping[str, LayerStatistics]):
    """Layer name to statistics. Ask for them in the order the layers run: each pass over the samples collects as many
    layers as fit in memory, and the layers of the pass before are forgotten.

    Args:
        context: the float network, which must not change while it is asked, and its samples.
        names: of the layers.
        further: statistics by layer name that are known already.
        keep: :meth:`forget` frees nothing, for what is asked for again.
    """

    def __init__(
        self, context: Context, names: Iterable[str], further: Mapping[str, LayerStatistics], keep: bool = False
    ) -> None:
        self._context, self._further, self._keep = context, further, keep
        self._targets = {name: context.prepared.targets[name] for name in names}
        self._passes = passes_over(self._targets)
        self._place = {name: number for number, names in enumerate(self._passes) for name in names}
        self._held: tuple[int, dict[str, dict[type[Statistic], Statistic]]] | None = None

    def __getitem__(self, name: str) -> LayerStatistics:
        number = self._place[name]
        if self._held is None or self._held[0] != number:
            self._held = None
            wanted = {other: self._targets[other] for other in self._passes[number]}
            known = self._context
            found = collect(known.model, wanted, known.samples, known.seed + number, known.progress)
            self._held = (number, found)
        return {**self._held[1][name], **self._further.get(name, {})}

    def __iter__(self) -> Iterator[str]:
        return iter(self._targets)

    def __len__(self) -> int:
        return len(self._targets)

    def further(self, name: str) -> LayerStatistics:
        """What was known of the layer already."""
        return self._further.get(name, {})

    def forget(self) -> None:
        """Frees what is held, if it need not be kept."""
        if not self._keep:
            self._held = None


def passes_over(targets: Mapping[str, nn.Module]) -> list[list[str]]:
    """The layers' names, in parts whose Gram matrices are held at once: as many as should fit in memory."""
    passes: list[list[str]] = []
    held = _HELD_BYTES
    for name, layer in targets.items():
        groups, _, columns = Geometry.of(layer).matrix_shape
        size = 4 * groups * columns**2
        if held + size > _HELD_BYTES:
            passes.append([])
            held = 0
        passes[-1].append(name)
        held += size
    return passes
