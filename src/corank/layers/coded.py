"""Layers whose weight is codes: drop-in for their torch counterparts, without a float weight."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from corank.codecs import Codec
from corank.errors import ConfigError
from corank.layers.activation import InputRounder
from corank.layers.binary_inputs import BinaryInputs
from corank.layers.state import CodedLayerState, LayerFormat, TensorSpec
from corank.matrix import Geometry, MatrixModule
from corank.storage.bits import pack, packed_bytes, unpack

__all__ = [
    "CodedConv1d",
    "CodedConv2d",
    "CodedConv3d",
    "CodedConvTranspose1d",
    "CodedConvTranspose2d",
    "CodedConvTranspose3d",
    "CodedLayer",
    "CodedLinear",
]

_GEOMETRY = (
    "in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "transposed", "output_padding",
    "groups", "padding_mode", "_reversed_padding_repeated_twice", "in_features", "out_features", "nx", "nf",
    "num_embeddings", "embedding_dim", "padding_idx", "max_norm", "norm_type", "scale_grad_by_freq", "sparse", "mode",
    "include_last_offset",
)  # fmt: skip

_COMPOSED = "_composed_before"  # in a pickled state: whether the weight, which is not pickled, was composed


class CodedLayer(nn.Module):
    """Base of the coded layers: keeps packed codes, composes the float weight once and caches it.

    ``weight`` is composed on first use in the dtype and on the device the module was moved to; codes and scales keep
    their stored precision through ``.half()`` and the like, so casting there and back loses nothing.
    """

    codec: Codec
    rank: int
    adapter_bits: int
    inputs: int | None
    shifts: int = 0
    geometry: Geometry
    bias: nn.Parameter | None
    _lent: tuple[Tensor, Callable[[Tensor], Tensor] | None] | None = None

    def __init__(
        self,
        layer: nn.Module,
        codec: Codec,
        rank: int = 0,
        adapter_bits: int = 8,
        inputs: int | None = None,
    ) -> None:
        """A coded layer of the same geometry as the float ``layer``, codes all zero until :meth:`fill`.

        It has a bias as ``layer`` has; see :meth:`keep_bias`. ``inputs`` are the bits that inputs are rounded to; of
        1 bit they have no shifts; see :meth:`keep_shifts`.
        """
        nn.Module.__init__(self)
        for name in _GEOMETRY:
            if name in layer.__dict__:
                self.__dict__[name] = layer.__dict__[name]
        self.codec, self.rank, self.adapter_bits, self.inputs = codec, rank, adapter_bits, inputs
        self.geometry = Geometry.of(layer)
        reference = cast(Tensor, layer.weight)
        self.register_parameter("bias", None)
        self.register_buffer("_float", torch.zeros(0, dtype=reference.dtype, device=reference.device), persistent=False)
        for name, slot in self.slots().items():
            size = slot.count if slot.scale else packed_bytes(slot.count, slot.bits)
            dtype = torch.float16 if slot.scale else torch.uint8
            self.register_buffer(name, torch.full((size,), name == "input_step", dtype=dtype, device=reference.device))
        self.keep_bias(layer._parameters.get("bias") is not None)
        self._cache: Tensor | None = None
        self._feed: Callable[[Tensor], Tensor] | None = None
        self.register_load_state_dict_post_hook(_forget)
        self.training = layer.training

    def keep_bias(self, has_bias: bool) -> CodedLayer:
        """Gives the layer a bias of zeros, or none: one comes with a folded norm. Returns the layer."""
        marker = cast(Tensor, self._buffers["_float"])
        rows = self.geometry.matrix_shape[0] * self.geometry.matrix_shape[1]
        empty = torch.zeros(rows, dtype=marker.dtype, device=marker.device)
        self._parameters["bias"] = nn.Parameter(empty, requires_grad=False) if has_bias else None
        return self

    def keep_shifts(self, count: int) -> CodedLayer:
        """Gives rounded inputs so many shifts of zero: one for each channel, 1 for all or 0. Returns the layer.

        Raises:
            ConfigError: for another number, or shifts of inputs in float.
        """
        if count not in ((0,) if self.inputs is None else (0, 1, self.geometry.channels)):
            width = "in float" if self.inputs is None else f"of {self.inputs} bits"
            raise ConfigError(
                f"{count} shifts of inputs {width} and {self.geometry.channels} channels: one for each channel, 1 for "
                "all, or 0; inputs in float are not shifted"
            )
        self.shifts = count
        self._buffers.pop("input_shift", None)
        if count:
            self.register_buffer("input_shift", torch.zeros(count, dtype=torch.float16, device=self._where()))
        self._feed = None
        return self

    def slots(self) -> dict[str, TensorSpec]:
        """What this layer stores."""
        return self.format.tensors()

    @property
    def format(self) -> LayerFormat:
        """How it stores that."""
        shape, axes = self.geometry.matrix_shape, len(self.geometry.kernel)
        return LayerFormat(shape, self.codec, self.rank, self.adapter_bits, self.inputs, self.shifts, axes)

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """The float layer's output with the composed weight, of the inputs as they are rounded.

        ``output_size`` is for transposed convolutions, as in torch.
        """
        if self.inputs is not None:
            input = self._rounded(input)
        return super().forward(input) if output_size is None else super().forward(input, output_size)

    def fill(self, code: CodedLayerState, bias: Tensor | None) -> None:
        """Takes over codes, scales and bias."""
        self.codec = code.codec.with_measured_size(code.weight.codebook)
        tensors = code.tensors()
        for name, slot in self.slots().items():
            value = tensors[name]
            self._buffers[name] = (value.reshape(-1) if slot.scale else pack(value, slot.bits)).to(self._where())
        if self.bias is not None and bias is not None:
            self.bias.data.copy_(bias)
        self._cache = self._feed = None

    def code(self) -> CodedLayerState:
        """The codes, codebook and adapter, unpacked."""
        return self.format.state({name: self._unpacked(name, spec) for name, spec in self.slots().items()})

    def input_quantizer(self) -> InputRounder | None:
        """What rounds the inputs; None where they stay float."""
        specs = {name: spec for name, spec in self.slots().items() if name.startswith("input_")}
        return self.format.input_quantizer({name: self._unpacked(name, spec) for name, spec in specs.items()})

    @property
    def weight(self) -> Tensor:
        """The composed float weight, in the layer's own shape; cached until the module is moved, cast or loaded.

        ``torch.export`` makes the cached weight a constant of its program; without one, the program composes it. Within
        :meth:`computing_with` it is the weight that was given.
        """
        if self._lent is not None:
            return self._lent[0]
        if torch.compiler.is_exporting() and self._cache is None:
            return self._composed()
        self.compose()
        return cast(Tensor, self._cache)

    @contextmanager
    def computing_with(self, weight: Tensor, inputs: Callable[[Tensor], Tensor] | None = None) -> Iterator[None]:
        """Within, the layer computes with another weight and rounds its inputs by ``inputs``, what it holds untouched.

        Args:
            weight: in the layer's own shape, of any float dtype: cast to the layer's, differentiably.
            inputs: in place of the layer's own rounding, where it rounds its inputs; None leaves them as they are.
        """
        self._lent = (weight.to(cast(Tensor, self._buffers["_float"]).dtype), inputs)
        try:
            yield
        finally:
            self._lent = None

    def compose(self) -> bool:
        """Composes the weight now, where it is not cached; True."""
        marker, cached = cast(Tensor, self._buffers["_float"]), self._cache
        if cached is not None and (cached.device != marker.device or cached.dtype != marker.dtype):
            self._cache = self._feed = None
        if self._cache is not None and (self._feed is not None or self.inputs is None):
            return True
        # Outside of inference mode, whose tensors autograd refuses later.
        with torch.inference_mode(False), torch.no_grad():
            if self._cache is None:
                self._cache = self._composed()
            if self._feed is None:
                self._feed = self.input_quantizer()
        return True

    # As torch.compiler.assume_constant_result marks a function, but without its import of torch._dynamo, which takes
    # seconds: torch.compile runs it while it traces and finds the weight cached, so its graph decodes nothing.
    compose._dynamo_marked_constant = True  # pyright: ignore[reportFunctionMemberAccess]

    def to_float(self) -> nn.Module:
        """A plain torch layer with the composed weight, which takes its inputs as they come: in float."""
        kind = next(
            kind for kind in type(self).__mro__ if issubclass(kind, nn.Module) and not issubclass(kind, CodedLayer)
        )
        plain = kind.__new__(kind)
        nn.Module.__init__(plain)
        if isinstance(plain, MatrixModule):
            plain.geometry = self.geometry
        for name in _GEOMETRY:
            if name in self.__dict__:
                plain.__dict__[name] = self.__dict__[name]
        plain.register_parameter("weight", nn.Parameter(self.weight.clone()))
        bias = None if self.bias is None else nn.Parameter(self.bias.detach().clone())
        plain.register_parameter("bias", bias)
        return plain.train(self.training)

    def extra_repr(self) -> str:
        base = super().extra_repr()
        inputs = "" if self.inputs is None else f", inputs={self.inputs}"
        return f"{base}, bits={self.codec.bits}, rank={self.rank}{inputs}"

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> CodedLayer:
        kept = {name: self._buffers.pop(name) for name in self.slots()}
        try:
            super()._apply(fn, recurse)
        finally:
            self._buffers.update({name: cast(Tensor, tensor).to(self._where()) for name, tensor in kept.items()})
            composed, self._cache, self._feed = self._cache is not None, None, None
        self._again(composed)
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cache": None, "_feed": None, "_lent": None, _COMPOSED: self._cache is not None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        composed = state.pop(_COMPOSED, False)
        super().__setstate__(state)
        self._again(composed)

    def _again(self, composed: bool) -> None:
        if composed and self._where().type != "meta":
            self.compose()

    def _composed(self) -> Tensor:
        code = replace(self.format, inputs=None, shifts=0).state(self._weight_tensors())
        matrix = code.compose().to(cast(Tensor, self._buffers["_float"]).dtype)
        return self.geometry.from_matrix(matrix).contiguous()

    def _rounded(self, inputs: Tensor) -> Tensor:
        if self._lent is not None:
            return inputs if self._lent[1] is None else self._lent[1](inputs)
        if torch.compiler.is_exporting() and self._feed is None:
            assert self.inputs is not None
            step = cast(Tensor, self._buffers["input_step"]).float().reshape(())
            if self.inputs == 1:
                return cast(BinaryInputs, self.input_quantizer())(inputs)
            if self.shifts:
                shift = cast(Tensor, self._buffers["input_shift"]).float()
                inputs = inputs - shift.reshape(-1, *(1 for _ in self.geometry.kernel)).to(inputs.dtype)
            offset = self._unpacked("input_offset", self.slots()["input_offset"]).float().reshape(())
            return (inputs / step).round().clamp(-offset, 2**self.inputs - 1 - offset).mul(step)
        self.compose()
        return cast(InputRounder, self._feed)(inputs)

    def _where(self) -> torch.device:
        return cast(Tensor, self._buffers["_float"]).device

    def _weight_tensors(self) -> dict[str, Tensor]:
        return {n: self._unpacked(n, spec) for n, spec in self.slots().items() if not n.startswith("input_")}

    def _unpacked(self, name: str, spec: TensorSpec) -> Tensor:
        stored = cast(Tensor, self._buffers[name])
        return stored if spec.scale else unpack(stored, spec.bits, spec.count)


def _forget(module: nn.Module, _incompatible: object) -> None:
    layer = cast(CodedLayer, module)
    layer._cache = layer._feed = None


class CodedLinear(CodedLayer, nn.Linear):  # pyright: ignore[reportIncompatibleVariableOverride]
    """A ``Linear`` layer with a coded weight."""


class CodedConv1d(CodedLayer, nn.Conv1d):  # pyright: ignore[reportIncompatibleVariableOverride]
    """A ``Conv1d`` layer with a coded weight."""


class CodedConv2d(CodedLayer, nn.Conv2d):  # pyright: ignore[reportIncompatibleVariableOverride]
    """A ``Conv2d`` layer with a coded weight."""


class CodedConv3d(CodedLayer, nn.Conv3d):  # pyright: ignore[reportIncompatibleVariableOverride]
    """A ``Conv3d`` layer with a coded weight."""


class CodedConvTranspose1d(CodedLayer, nn.ConvTranspose1d):  # pyright: ignore[reportIncompatibleVariableOverride]
    """A ``ConvTranspose1d`` layer with a coded weight."""


class CodedConvTranspose2d(CodedLayer, nn.ConvTranspose2d):  # pyright: ignore[reportIncompatibleVariableOverride]
    """A ``ConvTranspose2d`` layer with a coded weight."""


class CodedConvTranspose3d(CodedLayer, nn.ConvTranspose3d):  # pyright: ignore[reportIncompatibleVariableOverride]
    """A ``ConvTranspose3d`` layer with a coded weight."""
