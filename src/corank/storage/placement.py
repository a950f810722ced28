"""Where every tensor of every coded layer stands in an artifact: the one walk over all of them.

An artifact keeps the coded layers' tensors in two blobs: packed ``codes`` (bytes) and ``scales`` (float16). In each
they follow one another layer by layer, in the order that a layer stores them, without gaps.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from corank.layers import TensorSpec
from corank.storage.bits import packed_bytes
from corank.storage.model_record import ModelRecord

__all__ = ["PlacedTensor", "blob_sizes", "placed_tensors"]


@dataclass(frozen=True)
class PlacedTensor:
    """One tensor of a coded layer, and where it stands while codes are of fixed width.

    Attributes:
        layer, slot: whose it is.
        spec: how many numbers of how many bits.
        begin, end: its place in its blob, in items: bytes of ``codes``, float16 numbers of ``scales``.
    """

    layer: str
    slot: str
    spec: TensorSpec
    begin: int
    end: int

    @property
    def blob(self) -> str:
        """The name of the blob."""
        return "scales" if self.spec.scale else "codes"


def placed_tensors(run: ModelRecord) -> Iterator[PlacedTensor]:
    """Every tensor of the coded layers, in the order of the blobs."""
    ends = {"codes": 0, "scales": 0}
    for name, layer in run.layers.items():
        for slot, spec in layer.slots(run.plan.layers[name]).items():
            blob = "scales" if spec.scale else "codes"
            begin = ends[blob]
            ends[blob] += spec.count if spec.scale else packed_bytes(spec.count, spec.bits)
            yield PlacedTensor(name, slot, spec, begin, ends[blob])


def blob_sizes(run: ModelRecord) -> tuple[int, int]:
    """Bytes of all codes at fixed width, and how many scales there are."""
    packed = scales = 0
    for tensor in placed_tensors(run):
        packed, scales = (packed, tensor.end) if tensor.spec.scale else (tensor.end, scales)
    return packed, scales
