"""Coded linear layers as compressed-tensors packs them: whole numbers of 4 and 8 bits in int32."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from corank.errors import ModelError
from corank.export.stored import Kind, StoredWeight, stored_weight
from corank.layers import CodedLinear

__all__ = ["PackedLayer", "Scheme", "layers_of", "pack_rows"]

_KINDS: tuple[Kind, ...] = ((4, True), (4, False), (8, True), (8, False))
_TOGETHER = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))  # vLLM computes these as one layer


@dataclass(frozen=True)
class Scheme:
    """How a layer's numbers are kept.

    Args:
        bits: 4 or 8.
        group_size: columns that share a scale; -1 for a scale a row.
        symmetric: numbers are signed, and there are no zero points.
    """

    bits: int
    group_size: int
    symmetric: bool

    def to_json(self, targets: Sequence[str]) -> dict[str, Any]:
        """A group of ``quantization_config``, for the layers of these names."""
        grouped = self.group_size > 0
        weights = {
            "num_bits": self.bits,
            "type": "int",
            "symmetric": self.symmetric,
            "strategy": "group" if grouped else "channel",
            "group_size": self.group_size if grouped else None,
            "dynamic": False,
            "actorder": None,
            "observer": "minmax",
        }
        return {"targets": list(targets), "weights": weights, "input_activations": None, "output_activations": None}


@dataclass(frozen=True)
class PackedLayer:
    """Numbers ``(R, C)`` and zero points ``(R, G)``, both counted from the middle of the range, and scales."""

    scheme: Scheme
    numbers: Tensor
    zero: Tensor
    scale: Tensor

    def tensors(self, dtype: torch.dtype) -> dict[str, Tensor]:
        """What a file holds of it, scales in ``dtype``."""
        bits = self.scheme.bits
        found = {
            "weight_packed": pack_rows(self.numbers, bits),
            "weight_scale": self.scale.to(dtype).contiguous(),
            "weight_shape": torch.tensor(self.numbers.shape, dtype=torch.int64),
        }
        if not self.scheme.symmetric:
            found["weight_zero_point"] = pack_rows(self.zero.T, bits).T.contiguous()
        return found


def layers_of(model: nn.Module) -> tuple[dict[str, PackedLayer], dict[str, str]]:
    """The layers that the format holds, by name, and why it does not hold the others."""
    found: dict[str, StoredWeight] = {}
    reasons: dict[str, str] = {}
    for name, module in model.named_modules():
        if isinstance(module, CodedLinear):
            kept = "vLLM keeps heads in float" if name.rpartition(".")[2] == "lm_head" else _kept(module)
            if isinstance(kept, str):
                reasons[name] = kept
            else:
                found[name] = kept
    signed = {name: _signed(stored) for name, stored in found.items()}
    # One kind for all of a width and group, so that layers that vLLM joins agree.
    unsigned = {_form(found[name]) for name, numbers in signed.items() if numbers is None}
    layers = {name: _layer(stored, _form(stored) not in unsigned) for name, stored in found.items()}
    for name in list(layers):
        parent, _, own = name.rpartition(".")
        joined = next((names for names in _TOGETHER if own in names), (own,))
        schemes = {layers[full].scheme if (full := f"{parent}.{one}") in layers else None for one in joined}
        if len(schemes) > 1:
            reasons[name] = f"{' and '.join(joined)} are one layer in vLLM, and are kept in different ways here"
    return {name: layer for name, layer in layers.items() if name not in reasons}, reasons


def _kept(layer: CodedLinear) -> StoredWeight | str:
    code = layer.code()
    if code.adapter is not None:
        return "its adapter is added to its weight"
    try:
        stored = stored_weight(code.weight, _KINDS)
    except ModelError:
        return "its codes are more than eight bits wide"
    if stored.table is not None:
        return "its levels are not equally spaced"
    if not stored.is_affine:
        return "its zero points lie between two codes (quantize with --codec uniform:half=false)"
    if not torch.equal(code.weight.decode(), layer.weight.detach().float()):
        return "its weight is more than its codes"
    rows, columns = stored.codes.shape
    if stored.scale.shape[1] > 1 and columns % stored.group_size:
        return f"its {columns} columns are no multiple of its groups of {stored.group_size}"
    return replace(stored, scale=stored.scale.expand(rows, -1))


def _form(stored: StoredWeight) -> tuple[int, int]:
    return stored.bits, stored.group_size if stored.scale.shape[1] > 1 else -1


def _signed(stored: StoredWeight) -> Tensor | None:
    """Numbers less their zero points, where they fit the width."""
    numbers = stored.codes.long()
    if stored.zero is not None:
        zero = stored.zero.expand(len(numbers), -1).long()
        numbers = numbers - zero.repeat_interleave(-(-numbers.shape[1] // zero.shape[1]), dim=1)
    half = 1 << (stored.bits - 1)
    return numbers if -half <= int(numbers.min()) and int(numbers.max()) < half else None


def _layer(stored: StoredWeight, symmetric: bool) -> PackedLayer:
    bits, group_size = _form(stored)
    scheme = Scheme(bits, group_size, symmetric)
    numbers = _signed(stored)
    none = torch.zeros(1, 1, dtype=torch.float32)
    if symmetric:
        assert numbers is not None
        return PackedLayer(scheme, numbers, none, stored.scale)
    middle = 0 if stored.signed else 1 << (bits - 1)
    zero = (none if stored.zero is None else stored.zero).expand(stored.scale.shape).long()
    return PackedLayer(scheme, stored.codes.long() - middle, zero - middle, stored.scale)


def pack_rows(numbers: Tensor, bits: int) -> Tensor:
    """Whole numbers ``(R, C)``, counted from the middle of their range, as int32 ``(R, ceil(C bits / 32))``.

    The first of a row lies in the lowest bits.
    """
    each = 32 // bits
    wide = torch.nn.functional.pad(numbers.long() + (1 << (bits - 1)), (0, -numbers.shape[1] % each))
    places = torch.arange(each, dtype=torch.int64) * bits
    words = (wide.reshape(len(wide), -1, each) << places).sum(-1)
    return torch.where(words >= 1 << 31, words - (1 << 32), words).to(torch.int32)
