"""Statistics of all layers without holding them all: collected when they are asked for, a few layers in a pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import nn

from corank.calibration.collect import Progress, collect
from corank.calibration.samples import Samples
from corank.matrix import Geometry
from corank.statistics import LayerStatistics, Statistic

__all__ = ["StreamedStatistics"]

_HELD_BYTES = 768 << 20  # of Gram matrices held at once; what is derived from them comes on top


class StreamedStatistics(Mapping[str, LayerStatistics]):
    """Layer name to statistics. Ask for them in the order the layers run: each pass over the samples collects as many
    layers as fit in memory, and the layers of the pass before are forgotten.

    Args:
        model: the float model, in evaluation mode; it must not change while it is asked.
        targets: name to layer.
        samples: calibration samples.
        further: statistics by layer name that are known already.
        seed: draws the positions.
        progress: called with (what, done, total).
        keep: :meth:`forget` frees nothing, for what is asked for again.
    """

    def __init__(
        self,
        model: nn.Module,
        targets: Mapping[str, nn.Module],
        samples: Samples,
        further: Mapping[str, LayerStatistics],
        seed: int = 0,
        progress: Progress | None = None,
        keep: bool = False,
    ) -> None:
        self._model, self._targets, self._samples = model, dict(targets), samples
        self._further, self._seed, self._progress, self._keep = further, seed, progress, keep
        self._passes = _passes(self._targets)
        self._place = {name: number for number, names in enumerate(self._passes) for name in names}
        self._held: tuple[int, dict[str, dict[type[Statistic], Statistic]]] | None = None

    def __getitem__(self, name: str) -> LayerStatistics:
        number = self._place[name]
        if self._held is None or self._held[0] != number:
            self._held = None
            wanted = {other: self._targets[other] for other in self._passes[number]}
            found = collect(self._model, wanted, self._samples, self._seed + number, self._progress)
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


def _passes(targets: Mapping[str, nn.Module]) -> list[list[str]]:
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
