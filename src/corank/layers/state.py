"""What a coded layer holds and stores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from corank.adapters import CodedLowRank
from corank.adapters.factor_codes import factor_codec
from corank.codecs import Codebook, Codec, TensorSpec
from corank.coded_weight import CodedWeight
from corank.layers.activation import InputQuantizer, InputRounder
from corank.layers.binary_inputs import BinaryInputs

__all__ = ["CodedLayerState", "LayerFormat", "TensorSpec"]


@dataclass(frozen=True)
class CodedLayerState:
    """One layer as coded: what :class:`CodedLayer` is made of, and what the artifact stores."""

    codec: Codec
    weight: CodedWeight
    adapter: CodedLowRank | None
    adapter_bits: int
    inputs: InputRounder | None = None

    def compose(self) -> Tensor:
        """The weight ``(G * R, C)`` float32: values plus adapter."""
        values = self.weight.decode()
        return values + self.adapter.product() if self.adapter else values

    def tensors(self) -> dict[str, Tensor]:
        """All that is stored, by the names of :meth:`LayerFormat.tensors`: codes uint8, the rest fp16."""
        found = {"codes": self.weight.codes, **self.weight.codebook.tensors()}
        if self.adapter is not None:
            for side, coded in (("left", self.adapter.left), ("right", self.adapter.right)):
                found[f"{side}_codes"], found[f"{side}_scale"] = coded.codes, coded.codebook.tensors()["scale"]
        if self.inputs is not None:
            found |= self.inputs.tensors()
        return found


@dataclass(frozen=True)
class LayerFormat:
    """What a layer stores for its weight and inputs, known before anything is fitted.

    Attributes:
        shape: ``(G, R, C)`` of its weight.
        codec: of the weight.
        rank: of the adapter, 0 for none.
        adapter_bits: of the adapter's factors.
        inputs: bits of its inputs; None where they stay float.
        shifts: of rounded inputs: one for each channel, 1 for all or 0 for none.
        axes: of the inputs behind the channels: 2 of images, 0 of tokens.
    """

    shape: tuple[int, int, int]
    codec: Codec
    rank: int = 0
    adapter_bits: int = 8
    inputs: int | None = None
    shifts: int = 0
    axes: int = 0

    def with_shape(self, shape: tuple[int, int, int]) -> LayerFormat:
        """The same for a weight of another shape, whose inputs stay float."""
        return replace(self, shape=shape, inputs=None, shifts=0)

    def tensors(self) -> dict[str, TensorSpec]:
        """Name to :class:`TensorSpec`, in the order of the file."""
        groups, rows, columns = self.shape
        specs = {"codes": TensorSpec(groups * rows * columns, self.codec.bits, False)}
        specs.update(self.codec.stored(groups * rows, columns))
        for side, width in (("left", rows), ("right", columns)) if self.rank else ():
            specs[f"{side}_codes"] = TensorSpec(groups * self.rank * width, self.adapter_bits, False)
            specs[f"{side}_scale"] = TensorSpec(groups * self.rank, 16, True)
        if self.inputs is not None:
            specs["input_step"] = TensorSpec(1, 16, True)
            if self.inputs > 1:
                specs["input_offset"] = TensorSpec(1, self.inputs, False)
            if self.shifts:
                specs["input_shift"] = TensorSpec(self.shifts, 16, True)
        return specs

    def state(self, tensors: Mapping[str, Tensor]) -> CodedLayerState:
        """The inverse of :meth:`CodedLayerState.tensors`, from flat tensors that are unpacked."""
        groups, rows, columns = self.shape
        book = _codebook(self.codec, tensors, groups * rows, columns)
        weight = CodedWeight(tensors["codes"].reshape(groups * rows, columns), book)
        adapter = None
        if self.rank:
            sides, directions = [], groups * self.rank
            for side, width in (("left", rows), ("right", columns)):
                book = _codebook(factor_codec(self.adapter_bits), tensors, directions, width, f"{side}_")
                sides.append(CodedWeight(tensors[f"{side}_codes"].reshape(directions, width), book))
            adapter = CodedLowRank(sides[0], sides[1], groups)
        return CodedLayerState(self.codec, weight, adapter, self.adapter_bits, self.input_quantizer(tensors))

    def input_quantizer(self, tensors: Mapping[str, Tensor]) -> InputRounder | None:
        """What rounds the inputs; None where they stay float."""
        if self.inputs is None:
            return None
        step = tensors["input_step"].float().reshape(())
        shift = tensors["input_shift"].float().reshape(-1, *(1,) * self.axes) if self.shifts else None
        if self.inputs > 1:
            return InputQuantizer(self.inputs, step, int(tensors["input_offset"]), shift)
        return BinaryInputs(step, shift)


def _codebook(codec: Codec, tensors: Mapping[str, Tensor], rows: int, columns: int, prefix: str = "") -> Codebook:
    stored = {name: tensors[prefix + name] for name in codec.stored(rows, columns)}
    floats = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in stored.items()}
    return codec.codebook(floats, rows, columns)
