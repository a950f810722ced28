"""What one task adds to a coded base, and the network that both make: the base's codes are shared, never copied."""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from corank.adapters import CodedLowRank, full_rank
from corank.codecs import CODECS, Uniform
from corank.coded_weight import CodedWeight
from corank.config import to_json
from corank.errors import ArtifactError, ModelError
from corank.layers import CodedLayer, CodedLayerState, CodedLinear, TransposedLinear, module_named, names_of
from corank.plan import LayerPlan, Plan
from corank.storage.bits import pack
from corank.storage.model_record import ATTRIBUTE, LayerRecord, ModelRecord, part_of, run_of

__all__ = ["ADAPTER", "HEAD_CODEC", "TaskAdapter", "TaskHead", "adapted", "adapter_of", "base_identity", "rooms"]

ADAPTER = "corank_adapter"
"""Where an adapted network carries what its task added."""
HEAD_CODEC = Uniform(8, symmetric=True)
"""Of a task's own last layer: half the bytes of float16, and training sees the codes."""

_KINDS = (nn.Linear, nn.modules.conv._ConvNd, TransposedLinear)


@dataclass(frozen=True)
class TaskHead:
    """A last layer of a task's own.

    Attributes:
        name: of the layer that it takes the place of.
        weight: ``(K, C)`` coded by :data:`HEAD_CODEC`, a row for each class.
        bias: ``(K,)`` float32 of numbers that fp16 holds; None for none.
    """

    name: str
    weight: CodedWeight
    bias: Tensor | None

    @property
    def classes(self) -> int:
        """How many there are."""
        return self.weight.codes.shape[0]


@dataclass(frozen=True)
class TaskAdapter:
    """What one task adds to a coded base; found on the network of both as ``model.corank_adapter``.

    Attributes:
        base: tells the base from all others, see :func:`base_identity`.
        layers: by name, the factors that are added to a layer's weight.
        vectors: by name, biases and what norms multiply and add, in the place of the base's: float32 ``(n,)`` of
            numbers that fp16 holds.
        head: the task's own last layer; None where it has the base's.
        iterations: gradient steps that it took.
    """

    base: str
    layers: Mapping[str, CodedLowRank] = field(default_factory=dict)
    vectors: Mapping[str, Tensor] = field(default_factory=dict)
    head: TaskHead | None = None
    iterations: int = 0

    def about(self) -> dict[str, Any]:
        """What it holds, as plain data."""
        head = self.head
        return {
            "base": self.base,
            "iterations": self.iterations,
            "ranks": {name: one.rank for name, one in self.layers.items()},
            "bits": sorted({one.bits for one in self.layers.values()}),
            "factor_bytes": sum(-(-one.size_bits // 8) for one in self.layers.values()),
            "vectors": {name: len(one) for name, one in self.vectors.items()},
            "head": None if head is None else {"name": head.name, "shape": list(head.weight.codes.shape)},
        }


def base_identity(model: nn.Module) -> str:
    """Tells one coded base from another: half a SHA-256, as hexadecimal, of its layers' names, codes and scales.

    It does not hang on the coder of the file that the base came from, nor on the precision that it computes in.

    Raises:
        ModelError: for a model that corank did not quantize.
    """
    run, total = run_of(model), hashlib.sha256()
    for name, record in run.layers.items():
        layer = cast(CodedLayer, module_named(model, name))
        told = [name, record.shape, to_json(layer.codec, CODECS), layer.rank, layer.adapter_bits, layer.inputs]
        total.update(json.dumps(told, sort_keys=True).encode())
        for slot in layer.slots():
            total.update(cast(Tensor, layer._buffers[slot]).cpu().contiguous().view(torch.uint8).numpy().data)
    return total.hexdigest()[:32]


def rooms(model: nn.Module) -> dict[str, int]:
    """By name, the largest rank that an adapter of each coded linear layer and convolution can have, beside one that it
    has already; layers without room, such as depthwise ones, are left out."""
    names = names_of(model)
    found: dict[str, int] = {}
    for module in model.modules():
        if isinstance(module, CodedLayer) and isinstance(module, _KINDS):
            room = full_rank(module.geometry.matrix_shape) - module.rank
            if room > 0:
                found[names[id(module)][0]] = room
    return found


def adapter_of(model: nn.Module) -> TaskAdapter:
    """What the task of an adapted network added.

    Raises:
        ModelError: for any other network.
    """
    found = model.__dict__.get(ADAPTER) if isinstance(model, nn.Module) else None
    if not isinstance(found, TaskAdapter):
        raise ModelError(
            f"this {type(model).__name__} has no task's adapter: save what corank.adapt or corank.load_adapter "
            "returned; a network by itself goes into a file by corank.save(model, path)"
        )
    return found


def adapted(base: nn.Module, adapter: TaskAdapter) -> nn.Module:
    """The network of a base and what a task adds to it.

    The base is not changed, and its codes and scales are shared: the network's own are those of the adapter alone. It
    is a coded network like any other.

    Raises:
        ModelError: for what is no coded base. ArtifactError: for an adapter of another one, or that does not fit.
    """
    own = base_identity(base)
    if adapter.base != own:
        raise ArtifactError(
            f"the adapter belongs to a base with the codes {adapter.base[:12]}..., and this one's are {own[:12]}...; "
            "load the base that it was trained on, without another task's adapter"
        )
    parameters, room, memo = dict(base.named_parameters()), rooms(base), dict[int, Any]()
    for name, vector in adapter.vectors.items():
        if name not in parameters or parameters[name].shape != vector.shape:
            raise ArtifactError(f"the base has no vector {name[:80]!r} of {len(vector)} numbers")
    for name, one in base.named_parameters():
        value = adapter.vectors[name].to(one) if name in adapter.vectors else one.detach()
        memo[id(one)] = nn.Parameter(value, requires_grad=one.requires_grad)
    memo |= {id(one): one for one in base.buffers()}
    for name, more in adapter.layers.items():
        if name not in room:
            raise ArtifactError(f"the base has no layer {name[:80]!r} that takes an adapter")
        layer = cast(CodedLayer, module_named(base, name))
        memo[id(layer)] = _widened(layer, more, room[name], memo)
    if adapter.head is not None:
        old = dict(base.named_modules()).get(adapter.head.name)
        memo[id(old)] = _headed(old, adapter.head)
    found = copy.deepcopy(base, memo)
    found.__dict__[ATTRIBUTE] = _record(run_of(base), found, adapter)
    found.__dict__[ADAPTER] = adapter
    return found


def _widened(layer: CodedLayer, more: CodedLowRank, room: int, memo: Mapping[int, Any]) -> CodedLayer:
    """The layer with more directions; its own tensors are shared."""
    groups, rows, columns = layer.geometry.matrix_shape
    sides = (more.groups, more.left.codes.shape[1], more.right.codes.shape[1])
    if sides != (groups, rows, columns) or not 0 < more.rank <= room:
        raise ArtifactError(
            f"an adapter of shape {sides} and rank {more.rank} for a layer of {(groups, rows, columns)}, which takes "
            f"ranks to {room}"
        )
    code = layer.code()
    joined = more.to(code.weight.codes.device).behind(code.adapter)
    found = type(layer)(layer, layer.codec, joined.rank, joined.bits, layer.inputs)
    found.keep_bias(layer.bias is not None).keep_shifts(layer.shifts)
    tensors = replace(code, adapter=joined).tensors()
    for name, spec in found.slots().items():
        own = tensors[name].reshape(-1) if spec.scale else pack(tensors[name], spec.bits)
        found._buffers[name] = own if part_of(name) == "adapter" else layer._buffers[name]
    if layer.bias is not None:
        found._parameters["bias"] = memo[id(layer.bias)]
    return found


def _headed(old: nn.Module | None, head: TaskHead) -> CodedLinear:
    """The task's last layer, of which the inputs are rounded as those of the base's are."""
    coded = isinstance(old, CodedLayer)
    rows, columns = head.weight.codes.shape
    if not isinstance(old, nn.Linear) or old.in_features != columns:
        raise ArtifactError(f"the base has no last layer {head.name[:80]!r} of {columns} inputs")
    like = cast(Tensor, old._buffers["_float"]) if coded else old.weight
    plain = nn.Linear(columns, rows, head.bias is not None, dtype=like.dtype, device=like.device)
    rounder = old.input_quantizer() if coded else None
    found = CodedLinear(plain, HEAD_CODEC, inputs=None if rounder is None else rounder.bits)
    found.keep_shifts(0 if rounder is None else rounder.shifts)
    found.fill(CodedLayerState(HEAD_CODEC, head.weight, None, 8, rounder), head.bias)
    return found.train(old.training)


def _record(run: ModelRecord, found: nn.Module, adapter: TaskAdapter) -> ModelRecord:
    plans, layers, skipped = dict(run.plan.layers), dict(run.layers), dict(run.skipped)
    for name in adapter.layers:
        layer = cast(CodedLayer, module_named(found, name))
        plans[name] = replace(plans[name], rank=layer.rank, adapter_bits=layer.adapter_bits)
    if adapter.head is not None:
        head = cast(CodedLayer, module_named(found, adapter.head.name))
        plans[adapter.head.name] = LayerPlan(HEAD_CODEC, inputs=head.inputs, input_shifts=head.shifts)
        layers[adapter.head.name] = LayerRecord(head.geometry.matrix_shape, math.nan)
        skipped.pop(adapter.head.name, None)
    steps = run.iterations + adapter.iterations
    return replace(run, plan=Plan(plans), layers=layers, skipped=skipped, iterations=steps)
