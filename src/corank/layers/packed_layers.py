"""Layers whose weight stays packed, for inference: linear layers, embeddings, and the heads tied to them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from corank.errors import CorankWarning, ModelError
from corank.layers.activation import InputRounder
from corank.layers.coded import CodedLayer, CodedLinear
from corank.layers.held import readers
from corank.layers.lookup import CodedEmbedding
from corank.layers.packed import PackedLinear, is_packable, packed_layer
from corank.layers.packed_codes import PackedWeight, check_running, linear
from corank.layers.replace import replace_module
from corank.layers.transposed import CodedTransposedLinear
from corank.matrix import Geometry
from corank.memory import give_back
from corank.storage.bits import unpack

__all__ = [
    "CodesEmbedding",
    "CodesLayer",
    "CodesLinear",
    "TiedEmbedding",
    "TiedLinear",
    "is_packed",
    "pack_layers",
]


class CodesLayer(nn.Module):
    """Base of the layers of packed codes: no float weight is kept; :attr:`weight` composes one when it is asked for.

    Args:
        layer: a coded one of those kinds.

    Raises:
        ModelError: for one whose values do not fit the kernel, saying why.
    """

    packed: PackedWeight
    bias: nn.Parameter | None

    def __init__(self, layer: CodedLayer) -> None:
        super().__init__()
        self.geometry: Geometry = layer.geometry
        self.packed = PackedWeight(layer.code())
        self.register_parameter("bias", layer.bias)
        marker = cast(Tensor, layer._buffers["_float"])
        self.register_buffer("_float", marker.clone(), persistent=False)
        self.train(layer.training)

    @property
    def weight(self) -> Tensor:
        """The float weight in the layer's own shape and dtype, composed anew."""
        return self.geometry.from_matrix(self.packed.composed().to(cast(Tensor, self._buffers["_float"]).dtype))

    def extra_repr(self) -> str:
        rows, columns = self.packed.shape
        return f"rows={rows}, columns={columns}, bits={self.packed.codes.bits}"


class CodesLinear(CodesLayer):
    """What a coded ``Linear`` (or ``Conv1D`` of transformers) computes, the weight packed.

    Where the gradient of an input is wanted, the weight is composed for that call.
    """

    def __init__(self, layer: CodedLayer) -> None:
        super().__init__(layer)
        self.in_features, self.out_features = self.packed.shape[1], self.packed.shape[0]
        self._format = replace(layer.format, rank=0)
        for name in self._inputs():
            self.register_buffer(name, cast(Tensor, layer._buffers[name]).clone())
        self._feed: InputRounder | None = None

    def forward(self, input: Tensor) -> Tensor:
        """Inputs ``(..., C)`` to ``(..., R)``, in their dtype."""
        if self._format.inputs is not None:
            input = self._rounded(input)
        return linear(self.packed, input, self.bias)

    def _inputs(self) -> Iterable[str]:
        return [name for name in self._format.tensors() if name.startswith("input_")]

    def _rounded(self, input: Tensor) -> Tensor:
        if self._feed is None:
            specs = {name: self._format.tensors()[name] for name in self._inputs()}
            held = {name: cast(Tensor, self._buffers[name]) for name in specs}
            self._feed = self._format.input_quantizer(
                {
                    name: held[name] if one.scale else unpack(held[name], one.bits, one.count)
                    for name, one in specs.items()
                }
            )
        return cast(InputRounder, self._feed)(input)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> CodesLinear:
        kept = {name: cast(Tensor, self._buffers.pop(name)) for name in self._inputs()}
        try:
            super()._apply(fn, recurse)
        finally:
            where = cast(Tensor, self._buffers["_float"]).device
            self._buffers.update({name: one.to(where) for name, one in kept.items()})
            self._feed = None
        return self


class CodesEmbedding(CodesLayer):
    """An ``Embedding`` of packed codes: the rows that are asked for become floats."""

    def __init__(self, layer: CodedEmbedding) -> None:
        super().__init__(layer)
        _as_table(self, layer)

    def forward(self, input: Tensor) -> Tensor:
        """The rows of numbers ``input`` ``(...)``: ``(..., C)``."""
        return _looked_up(self, self, input)


class TiedEmbedding(nn.Module):
    """An ``Embedding`` that reads its rows from a layer of packed codes, such as one that is tied to the head."""

    def __init__(self, table: nn.Embedding, layer: CodesLayer) -> None:
        super().__init__()
        _as_table(self, table)
        self.layer = layer
        self.train(table.training)

    @property
    def weight(self) -> Tensor:
        """The layer's float weight, composed anew."""
        return self.layer.weight

    def forward(self, input: Tensor) -> Tensor:
        """The rows of numbers ``input`` ``(...)``: ``(..., C)``."""
        return _looked_up(self, self.layer, input)


class TiedLinear(nn.Module):
    """A ``Linear`` that reads its weight from a layer of packed codes, such as a head that is tied to the embedding."""

    def __init__(self, head: nn.Linear, layer: CodesLayer) -> None:
        super().__init__()
        self.in_features, self.out_features = head.in_features, head.out_features
        self.register_parameter("bias", head._parameters.get("bias"))
        self.layer = layer
        self.train(head.training)

    @property
    def weight(self) -> Tensor:
        """The layer's float weight, composed anew."""
        return self.layer.weight

    def forward(self, input: Tensor) -> Tensor:
        """Inputs ``(..., C)`` to ``(..., R)``, in their dtype."""
        return linear(self.layer.packed, input, cast("nn.Parameter | None", self.bias))


_KINDS: dict[type[nn.Module], Callable[..., CodesLayer]] = {
    CodedLinear: CodesLinear,
    CodedTransposedLinear: CodesLinear,
    CodedEmbedding: CodesEmbedding,
}


@torch.no_grad()
def pack_layers(model: nn.Module, least: int = 0) -> int:
    """Puts packed layers in the place of coded ones, one after the other, in place.

    Layers of signs whose inputs are signs are counted; linear layers and embeddings keep their codes, and what is tied
    to those reads them. Others stay as they are; of linear layers and embeddings that cannot be packed it is said why.

    Args:
        model: with coded layers.
        least: weights of a layer that is packed.

    Returns:
        How many are packed.
    """
    count, left = 0, dict[str, str]()
    for name, layer in list(model.named_modules()):
        if not isinstance(layer, CodedLayer):
            continue
        made: nn.Module | None = None
        if is_packable(layer):
            made = packed_layer(layer)
        elif (kind := _KINDS.get(type(layer))) is not None and layer.slots()["codes"].count >= least:
            try:
                made = kind(layer)
            except ModelError as error:
                left[name] = str(error)
        if made is not None:
            replace_module(model, layer, made)
            count += 1
    _tie(model)
    give_back()  # codes that were unpacked, layer by layer
    if left:
        name, why = next(iter(left.items()))
        warnings.warn(f"{len(left)} layers compose their weight, first {name!r}: {why}", CorankWarning, stacklevel=3)
    return count


def is_packed(model: nn.Module) -> bool:
    """Whether a model has packed layers."""
    return any(isinstance(module, (CodesLayer, PackedLinear)) for module in model.modules())


def _tie(model: nn.Module) -> None:
    """Linear layers and embeddings that read their weight from a layer which is packed now."""
    for module, name, layer, own in list(readers(model)):
        if name != "weight" or own or not isinstance(layer, CodesLayer):
            continue
        if isinstance(module, nn.Linear) and type(module).forward is nn.Linear.forward:
            replace_module(model, module, TiedLinear(module, layer))
        elif isinstance(module, nn.Embedding) and type(module).forward is nn.Embedding.forward:
            replace_module(model, module, TiedEmbedding(module, layer))


def _as_table(module: nn.Module, table: nn.Embedding) -> None:
    for name in ("num_embeddings", "embedding_dim", "padding_idx", "max_norm", "norm_type"):
        setattr(module, name, getattr(table, name))


def _looked_up(table: nn.Module, layer: CodesLayer, ids: Tensor) -> Tensor:
    """The rows of numbers ``ids``, of which each is decoded once."""
    check_running()
    wanted, places = ids.unique(return_inverse=True)
    if len(wanted) and (int(wanted[0]) < 0 or int(wanted[-1]) >= layer.packed.shape[0]):
        raise IndexError(f"ids from {int(wanted[0])} to {int(wanted[-1])}: the table has {layer.packed.shape[0]} rows")
    rows = layer.packed.rows(wanted).to(cast(Tensor, layer._buffers["_float"]).dtype)
    return F.embedding(places, rows, None, cast("float | None", table.max_norm), cast(float, table.norm_type))
