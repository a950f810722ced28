"""What a coded layer holds and stores."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from corank.adapters import CodedLowRank
from corank.codecs import Codec, TensorSpec
from corank.coded_weight import CodedWeight
from corank.layers.activation import InputQuantizer

__all__ = ["CodedLayerState", "TensorSpec", "stored_tensors"]


@dataclass(frozen=True)
class CodedLayerState:
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
) -> dict[str, TensorSpec]:
    """Name to :class:`TensorSpec` of all that a layer stores for weight and inputs, known before anything is fitted."""
    groups, rows, columns = shape
    slots = {"codes": TensorSpec(groups * rows * columns, codec.bits, False), **codec.stored(groups * rows, columns)}
    if rank:
        slots["left_codes"] = TensorSpec(groups * rank * rows, adapter_bits, False)
        slots["left_scale"] = TensorSpec(groups * rank, 16, True)
        slots["right_codes"] = TensorSpec(groups * rank * columns, adapter_bits, False)
        slots["right_scale"] = TensorSpec(groups * rank, 16, True)
    if inputs is not None:
        slots["input_step"] = TensorSpec(1, 16, True)
        slots["input_offset"] = TensorSpec(1, inputs, False)
    return slots
