"""What an artifact holds: a JSON header and a few packed blobs, one for each kind of number."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import safetensors.torch
import torch
from torch import Tensor, nn

from corank.layers import CodedLayer, PreparedModel, TensorSpec
from corank.matrix import Geometry
from corank.storage.bits import packed_bytes, unpack
from corank.storage.model_record import LayerRecord, ModelRecord

__all__ = [
    "FORMAT",
    "ArtifactContents",
    "contents_of",
    "digest",
    "float_bytes",
    "header_of",
    "input_codes",
    "predict_bytes",
]

FORMAT = 1


@dataclass(frozen=True)
class ArtifactContents:
    """A header and its blobs: ``codes`` (uint8), ``scales`` (float16), and a blob for each dtype of the rest."""

    header: dict[str, Any]
    blobs: dict[str, Tensor]

    def serialize(self) -> bytes:
        """The bytes of the file."""
        text = json.dumps(self.header, separators=(",", ":"))
        data = safetensors.torch.save(
            self.blobs, metadata={"corank": text, "sha256": digest(text, self.blobs), "format": "pt"}
        )
        return _in_order(data)


def _in_order(data: bytes) -> bytes:
    """The same file with its frame's keys in order, which the library does not keep: equal models give equal bytes."""
    end = 8 + int.from_bytes(data[:8], "little")
    frame = json.dumps(json.loads(data[8:end]), separators=(",", ":"), sort_keys=True, ensure_ascii=False).encode()
    frame += b" " * (-len(frame) % 8)
    return len(frame).to_bytes(8, "little") + frame + data[end:]


def digest(header: str, blobs: Mapping[str, Tensor]) -> str:
    """SHA-256 over the header's text and all blobs, in hexadecimal."""
    total = hashlib.sha256(header.encode())
    for name in sorted(blobs):
        blob = blobs[name]
        total.update(f"\0{name}:{blob.dtype}:{blob.numel()}\0".encode())
        total.update(blob.contiguous().view(torch.uint8).numpy().data)
    return total.hexdigest()


def contents_of(model: nn.Module, run: ModelRecord) -> ArtifactContents:
    """Packs a quantized model."""
    codes, scales = [], []
    modules = dict(model.named_modules(remove_duplicate=False))
    for name in run.layers:
        layer = cast(CodedLayer, modules[name])
        for slot_name, slot in layer.slots().items():
            (scales if slot.scale else codes).append(cast(Tensor, layer._buffers[slot_name]).cpu())
    index: dict[str, list[Any]] = {}
    parts: dict[str, list[Tensor]] = {}
    for name, tensor in plain_tensors(model).items():
        kind, value = _stored(tensor)
        index.setdefault(kind, []).append([name, list(value.shape)])
        parts.setdefault(kind, []).append(value.reshape(-1))
    blobs = {"codes": torch.cat(codes), "scales": torch.cat(scales)}
    blobs.update({kind: torch.cat(tensors) for kind, tensors in parts.items()})
    first = cast(CodedLayer, modules[next(iter(run.layers))])
    dtype = str(cast(Tensor, first._buffers["_float"]).dtype).removeprefix("torch.")
    return ArtifactContents(header_of(run, index, dtype), blobs)


def header_of(run: ModelRecord, index: Mapping[str, list[Any]], dtype: str) -> dict[str, Any]:
    """The header: everything but the numbers."""
    return {
        "format": FORMAT,
        "model": run.model,
        "preset": run.preset,
        "search": run.search,
        "bits": run.bits,
        "budget": run.budget,
        "activations": run.activations,
        "seed": run.seed,
        "iterations": run.iterations,
        "dtype": dtype,
        "plan": run.plan.to_json(),
        "layers": {name: [*layer.shape, _told(layer.relative_output_error)] for name, layer in run.layers.items()},
        "folded": list(run.folded),
        "skipped": dict(run.skipped),
        "tensors": {kind: entries for kind, entries in index.items()},
    }


def plain_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Every parameter and persistent buffer that is not part of a coded weight; shared ones once."""
    coded = {id(buffer) for module in model.modules() if isinstance(module, CodedLayer) for buffer in module.buffers()}
    persistent = set(model.state_dict())
    found: dict[str, Tensor] = {name: parameter for name, parameter in model.named_parameters()}
    found.update({name: buffer for name, buffer in model.named_buffers() if name in persistent})
    return {name: tensor.detach().cpu() for name, tensor in found.items() if id(tensor) not in coded}


def float_bytes(model: nn.Module) -> int:
    """Bytes of a model's parameters and persistent buffers as a float checkpoint stores them."""
    persistent = set(model.state_dict())
    tensors = [*model.parameters(), *(buffer for name, buffer in model.named_buffers() if name in persistent)]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def input_codes(run: ModelRecord, contents: ArtifactContents) -> dict[str, tuple[float, int]]:
    """Step and offset of every layer whose inputs are quantized."""
    found: dict[str, tuple[float, int]] = {}
    packed = scales = 0
    for name, layer in run.layers.items():
        for slot_name, slot in _slots(layer, run, name).items():
            if slot_name == "input_step":
                found[name] = (float(contents.blobs["scales"][scales]), 0)
            elif slot_name == "input_offset":
                code = unpack(contents.blobs["codes"][packed : packed + 1], slot.bits, 1)
                found[name] = (found[name][0], int(code))
            packed += 0 if slot.scale else packed_bytes(slot.count, slot.bits)
            scales += slot.count if slot.scale else 0
    return found


def predict_bytes(prepared: PreparedModel, run: ModelRecord) -> int:
    """Size of the artifact that a plan will give, before anything is fitted.

    Args:
        prepared: the float copy, norms folded.
        run: with the plan, and layers whose errors need not be known.
    """
    packed = scales = 0
    for name in run.layers:
        plan, layer = run.plan.layers[name], run.layers[name]
        assert plan.codec is not None
        for slot in _slots(layer, run, name).values():
            packed += 0 if slot.scale else packed_bytes(slot.count, slot.bits)
            scales += slot.count if slot.scale else 0
    sizes = {"codes": packed, "scales": 2 * scales}
    index: dict[str, list[Any]] = {}
    for name, (kind, size, shape) in plain_sizes(prepared.model, run.layers).items():
        sizes[kind] = sizes.get(kind, 0) + size
        index.setdefault(kind, []).append([name, shape])
    text = json.dumps(header_of(run, index, "float32"), separators=(",", ":"))
    nothing = {name: torch.zeros(0, dtype=torch.uint8) for name in sizes}
    frame = len(safetensors.torch.save(nothing, metadata={"corank": text, "sha256": "0" * 64, "format": "pt"}))
    return frame + 12 * len(sizes) + sum(sizes.values())


def plain_sizes(model: nn.Module, coded: Iterable[str]) -> dict[str, tuple[str, int, list[int]]]:
    """Name to dtype, bytes and shape of every tensor that a file will hold beside the codes of those layers."""
    weights = {f"{name}.weight" for name in coded}
    biases = {f"{name}.bias" for name in coded}
    found: dict[str, tuple[str, int, list[int]]] = {}
    for name, tensor in plain_tensors(model).items():
        if name not in weights:
            kind = "float16" if name in biases else _stored(tensor)[0]
            width = 2 if kind == "float16" else tensor.element_size()
            found[name] = (kind, tensor.numel() * width, list(tensor.shape))
    return found


def placeholder_layers(prepared: PreparedModel, names: list[str]) -> dict[str, LayerRecord]:
    """Layers of known shape and unknown error, for :func:`predict_bytes`."""
    return {name: LayerRecord(Geometry.of(prepared.targets[name]).matrix_shape, 0.00123) for name in names}


def _told(error: float) -> float | None:
    return float(f"{error:.3g}") if math.isfinite(error) else None


def _slots(layer: LayerRecord, run: ModelRecord, name: str) -> dict[str, TensorSpec]:
    return layer.slots(run.plan.layers[name])


def _stored(tensor: Tensor) -> tuple[str, Tensor]:
    """The dtype a tensor is stored in and its value: float32 goes as float16 where that loses nothing."""
    value = tensor.detach().contiguous()
    if value.dtype == torch.float32:
        half = value.to(torch.float16)
        if bool((half.float() == value).all()):
            return "float16", half
    return str(value.dtype).removeprefix("torch."), value
