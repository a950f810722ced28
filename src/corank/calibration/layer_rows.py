"""What of a layer's inputs is summed up: a subsample of positions, padding and empty calls left out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from corank.errors import ModelError
from corank.matrix import Geometry
from corank.padding import real_positions
from corank.processes import all_reduce
from corank.statistics import CrossMoments, Gram, LayerStatistics

__all__ = ["NetworksInputs", "finite_gram", "layer_rows", "position_limit"]

_UNFOLDED_BYTES = 1 << 26  # of unfolded inputs held at once
_EVERY = 4  # rows of the float network, of which one is summed where only the reported error rests on them

Rows = tuple[Tensor, int]


def position_limit(geometry: Geometry, samples: int, batch: int) -> int:
    """Output positions to draw of each sample: about ``32 C + 32768`` rows of all samples, 64 MB of one batch."""
    groups, _, columns = geometry.matrix_shape
    wanted = -(-(32 * columns + 32768) // samples)
    return max(1, min(wanted, _UNFOLDED_BYTES // (4 * columns * groups * batch)))


def layer_rows(
    geometry: Geometry, inputs: Tensor, limit: int, generator: torch.Generator, masks: Sequence[Tensor] = ()
) -> Rows:
    """Rows ``(G, M, C)`` of what a layer is called with, and how many positions each sample really has.

    Args:
        geometry: of the layer.
        inputs: not empty.
        limit: of positions drawn of each sample; see :func:`position_limit`.
        generator: draws them.
        masks: of the batch, of :func:`corank.padding.masks_of`; what they mask is left out of a linear layer's rows.
            A convolution mixes positions, and all of its rows count.
    """
    real = None if geometry.kernel else real_positions(masks, inputs.shape)
    rows, positions = geometry.patches(inputs.detach(), limit, generator, real), geometry.output_positions(inputs)
    return rows, positions if real is None else max(1, round(positions * float(real.float().mean())))


def finite_gram(gram: Gram, name: str) -> Gram:
    """The moments as they are where they are sound, those of nothing known where no sample was seen.

    Raises:
        ModelError: where the inputs were not finite, or so large that their squares are not.
    """
    if not gram.count:
        return gram.unknown()
    if not bool(torch.isfinite(gram.mean).all()):
        raise ModelError(f"the inputs of layer {name!r} are NaN or infinite on the calibration data")
    if not gram.is_finite:
        raise ModelError(f"the inputs of layer {name!r} are so large that their squares are infinite in float32")
    return gram


class NetworksInputs:
    """Moments of what one layer is fed in the float network and in the one coded so far, side by side.

    Rows of the two belong together where they are as many. Where a router sends other tokens to a layer in the one than
    in the other, nothing tells which belong together, and what is left is what the coded network feeds it: the layer is
    then coded for that as it comes, without correction towards the float network's outputs.

    Args:
        geometry: of the layer.
        crossed: whether both are wanted beside each other; else the float network's alone.
        device: of the inputs.
    """

    def __init__(self, geometry: Geometry, crossed: bool, device: torch.device) -> None:
        groups, _, columns = geometry.matrix_shape
        self._crossed, self._device, self._unmatched = crossed, device, 0
        self._float, self._moments = Gram(groups, columns, device), CrossMoments(groups, columns, device)

    def update(self, expected: Rows | None, given: Rows | None) -> None:
        """Takes one batch's rows of the float network and of the coded one, the same positions; None where it came by
        the layer in that network with none."""
        if expected is not None:
            self._float.update(expected[0][:, :: _EVERY if self._crossed else 1], expected[1])
        if not self._crossed:
            return
        if expected is not None and given is not None and expected[0].shape == given[0].shape:
            self._moments.update_pair(expected[0], given[0], given[1])
        elif expected is not None or given is not None:
            self._unmatched += 1
            if given is not None:
                self._moments.gram.update(*given)

    def statistics(self, name: str) -> LayerStatistics:
        """What was seen, in all processes; :class:`~corank.statistics.CrossMoments` where rows belong together.

        Raises:
            ModelError: for inputs that are not finite.
        """
        self._float.reduce()
        self._moments.reduce()
        unmatched = torch.tensor(float(self._unmatched), dtype=torch.float32, device=self._device)
        all_reduce([unmatched])
        if not self._crossed:
            return {Gram: finite_gram(self._float, name)}
        given = finite_gram(self._moments.gram, name)
        if float(unmatched):
            return {Gram: given if given.count else finite_gram(self._float, name)}
        gram = finite_gram(self._float, name)
        return {Gram: gram, CrossMoments: self._moments} if gram.count else {Gram: gram}
