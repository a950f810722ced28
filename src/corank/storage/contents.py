"""What an artifact holds: a header of plain values and a few packed blobs, one for each kind of number."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from corank.layers import CodedLayer, PreparedModel
from corank.matrix import Geometry
from corank.storage.artifact_file import FORMAT, file_bytes, written
from corank.storage.bits import unpack
from corank.storage.model_record import LayerRecord, ModelRecord
from corank.storage.placement import blob_sizes, placed_tensors

__all__ = [
    "ArtifactContents",
    "contents_of",
    "float_bytes",
    "header_of",
    "input_codes",
    "predict_bytes",
]

_MEASURED_BYTES = 8  # of what a codec says of itself in the header once it is fitted: two numbers
_ERROR_BYTES = 2  # of a layer's error in the header: 10 bits of three digits, 6 of an exponent, as many as it can have


@dataclass(frozen=True)
class ArtifactContents:
    """A header and its blobs: ``codes`` (uint8), ``scales`` (float16), and a blob for each dtype of the rest."""

    header: dict[str, Any]
    blobs: dict[str, Tensor]

    def serialize(self) -> bytes:
        """The bytes of the file, of this version's format."""
        return written(self.header, self.blobs)

    @property
    def size_bytes(self) -> int:
        """How many bytes :meth:`serialize` gives."""
        return file_bytes(self.header, sum(blob.numel() * blob.element_size() for blob in self.blobs.values()))


def contents_of(model: nn.Module, run: ModelRecord) -> ArtifactContents:
    """Packs a quantized model."""
    modules = dict(model.named_modules(remove_duplicate=False))
    coded: dict[str, list[Tensor]] = {"codes": [], "scales": []}
    for tensor in placed_tensors(run):
        coded[tensor.blob].append(cast(Tensor, modules[tensor.layer]._buffers[tensor.slot]).cpu())
    index: dict[str, list[Any]] = {}
    parts: dict[str, list[Tensor]] = {}
    for name, tensor in plain_tensors(model).items():
        kind, value = _stored(tensor)
        index.setdefault(kind, []).append([name, list(value.shape)])
        parts.setdefault(kind, []).append(value.reshape(-1))
    empty = {"codes": torch.zeros(0, dtype=torch.uint8), "scales": torch.zeros(0, dtype=torch.float16)}
    # without scales: those that are powers of two are exponents, which are packed as codes are
    blobs = {kind: torch.cat(own) if own else empty[kind] for kind, own in {**coded, **parts}.items()}
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
        **({} if run.recipe is None else {"recipe": dict(run.recipe)}),
        **({"structure": entries} if (entries := _structure(run)) else {}),
    }


def _structure(run: ModelRecord) -> list[dict[str, Any]]:
    """How the network differs from its class, without the widths of norms that the file does not hold."""
    folded = set(run.folded)
    return [dict(one) for one in run.structure if one["kind"] != "width" or one["module"] not in folded]


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
    for tensor in placed_tensors(run):
        part = contents.blobs[tensor.blob][tensor.begin : tensor.end]
        if tensor.slot == "input_step":
            found[tensor.layer] = (float(part), 0)
        elif tensor.slot == "input_offset":
            found[tensor.layer] = (found[tensor.layer][0], int(unpack(part, tensor.spec.bits, 1)))
    return found


def predict_bytes(prepared: PreparedModel, run: ModelRecord) -> int:
    """The most that the artifact of a plan can take with codes of fixed width, before anything is fitted.

    The header is packed as it will be; only what is not known yet, the layers' errors, is counted at its most. What
    ``run`` does not say yet, its caller has to add.

    Args:
        prepared: the float copy, norms folded.
        run: with the plan, and layers whose errors need not be known.
    """
    packed, scales = blob_sizes(run)
    total, index = packed + 2 * scales, dict[str, list[Any]]()
    for name, (kind, size, shape) in plain_sizes(prepared.model, run.layers).items():
        total += size
        index.setdefault(kind, []).append([name, shape])
    alike = replace(run, layers={name: LayerRecord(layer.shape, 0.00123) for name, layer in run.layers.items()})
    dtype = str(prepared.targets[next(iter(run.layers))].get_parameter("weight").dtype).removeprefix("torch.")
    measured = sum(bool(plan.codec and plan.codec.checked_tensors) for plan in run.plan.layers.values())
    unknown = _ERROR_BYTES * len(run.layers) + _MEASURED_BYTES * measured
    return file_bytes(header_of(alike, index, dtype), total + unknown)


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


def _stored(tensor: Tensor) -> tuple[str, Tensor]:
    """The dtype a tensor is stored in and its value: float32 goes as float16 where that loses nothing."""
    value = tensor.detach().contiguous()
    if value.dtype == torch.float32:
        half = value.to(torch.float16)
        if bool((half.float() == value).all()):
            return "float16", half
    return str(value.dtype).removeprefix("torch."), value
