"""What a coded layer holds and stores."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from corank.adapters import CodedLowRank
from corank.codecs import Codec, Slot
from corank.coded_weight import CodedWeight
from corank.layers.activation import InputQuantizer

__all__ = ["LayerCode", "Slot", "stored_tensors"]


@dataclass(frozen=True)
class LayerCode:
    """One layer as coded: what :class:`CodedLayer` is made of, and what the artifact stores."""

    codec: Codec
    weight: CodedWeight
    adapter: CodedLowRank | None
    adapter_bits: int
    inputs: InputQuantizer | None = None

    @property
    def size_bits(self) -> int:
        """All bits stored for the layer: codes, scales, offsets, adapter, the inputs' step and offset."""
        adapter = self.adapter.size_bits if self.adapter else 0
        return self.weight.size_bits + adapter + (16 + self.inputs.bits if self.inputs else 0)

    def compose(self) -> Tensor:
        """The weight ``(G * R, C)`` float32: values plus adapter."""
        values = self.weight.decode()
        return values + self.adapter.product() if self.adapter else values


def stored_tensors(
    shape: tuple[int, int, int], codec: Codec, rank: int, adapter_bits: int, inputs: int | None = None
) -> dict[str, Slot]:
    """Name to :class:`Slot` of all that a layer stores for weight and inputs, known before anything is fitted."""
    groups, rows, columns = shape
    slots = {"codes": Slot(groups * rows * columns, codec.bits, False), **codec.stored(groups * rows, columns)}
    if rank:
        slots["left_codes"] = Slot(groups * rank * rows, adapter_bits, False)
        slots["left_scale"] = Slot(groups * rank, 16, True)
        slots["right_codes"] = Slot(groups * rank * columns, adapter_bits, False)
        slots["right_scale"] = Slot(groups * rank, 16, True)
    if inputs is not None:
        slots["input_step"] = Slot(1, 16, True)
        slots["input_offset"] = Slot(1, inputs, False)
    return slots
