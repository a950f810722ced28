"""What differs between two quantized networks, from what is stored alone: no float network is needed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from corank.codecs import CODECS
from corank.config import to_json
from corank.errors import ArtifactError
from corank.storage.artifact import read, serialized
from corank.storage.contents import ArtifactContents, contents_of
from corank.storage.model_record import ModelRecord, run_of
from corank.storage.stored_layers import layer_code, other_tensors, slot_tensors

__all__ = ["diff"]

Slots = Mapping[str, Tensor]


@dataclass(frozen=True)
class _Side:
    """One of the two: what was done, what is stored, the file's size."""

    run: ModelRecord
    slots: Mapping[str, Slots]
    others: Mapping[str, Tensor]
    stored_bytes: int


def diff(a: nn.Module | str | Path, b: nn.Module | str | Path) -> dict[str, Any]:
    """What differs between two quantized networks, each a model or the path of an artifact.

    Returns:
        A plain record:

        - ``equal``: both hold the same layers, codes, scales, adapters, other tensors, folded norms and layers left in
          float; how they came about may differ.
        - ``a``, ``b``: origin, bits and bytes of each.
        - ``layers``: each coded layer of either, in the order of ``a``, then those only ``b`` has: ``name``; ``a`` and
          ``b`` (``shape, codec, bits, rank, adapter_bits, inputs, bytes, relative_output_error``; None where it is not
          coded); ``equal``; ``codes_differ``, the share of codes that are not the same (None where shapes or bits
          differ); ``weight_change``, ``||W_a - W_b|| / ||W_a||`` of the composed weights (None where shapes differ).
        - ``tensors``: the other tensors that differ: ``name``; ``a`` and ``b`` (``dtype, shape``, or None);
          ``max_difference`` (None where shapes differ or it is not finite). ``other_tensors``: how many there are.
        - ``folded``, ``skipped``: names that only one has.

    Raises:
        ModelError: for a model that corank did not quantize. ArtifactError: for an unsound file.
    """
    first, second = _side(a), _side(b)
    names = dict.fromkeys([*first.run.layers, *second.run.layers])
    layers = [_compare_layer(name, first, second) for name in names]
    others = dict.fromkeys([*first.others, *second.others])
    tensors = [_compare_tensor(name, first.others.get(name), second.others.get(name)) for name in others]
    changed = [entry for entry in tensors if not entry.pop("equal")]
    folded = _only(first.run.folded, second.run.folded)
    skipped = _only(first.run.skipped, second.run.skipped)
    same = all(layer["equal"] for layer in layers) and not changed
    return {
        "equal": same and not any((*folded.values(), *skipped.values())),
        "a": _about(first),
        "b": _about(second),
        "layers": layers,
        "tensors": changed,
        "other_tensors": len(others),
        "folded": folded,
        "skipped": skipped,
    }


def _side(given: nn.Module | str | Path) -> _Side:
    if isinstance(given, nn.Module):
        run = run_of(given)
        contents = contents_of(given, run)
        return _filled(run, contents, len(serialized(given)))
    run, contents = read(given)
    try:
        return _filled(run, contents, Path(given).stat().st_size)
    except ArtifactError as error:
        raise ArtifactError(f"{given}: {error}") from error


def _filled(run: ModelRecord, contents: ArtifactContents, stored_bytes: int) -> _Side:
    return _Side(run, slot_tensors(run, contents), other_tensors(contents), stored_bytes)


def _about(side: _Side) -> dict[str, Any]:
    run = side.run
    return {
        "model": run.model,
        "preset": run.preset,
        "search": run.search,
        "bits": run.bits,
        "budget": run.budget,
        "activations": run.activations,
        "seed": run.seed,
        "iterations": run.iterations,
        "equivalent_bits": run.equivalent_bits,
        "stored_bytes": side.stored_bytes,
        **({"structure": [dict(entry) for entry in run.structure]} if run.structure else {}),
    }


def _compare_layer(name: str, first: _Side, second: _Side) -> dict[str, Any]:
    ours, theirs = (_described(name, side) for side in (first, second))
    entry: dict[str, Any] = {"name": name, "a": ours, "b": theirs, "equal": False}
    entry.update({"codes_differ": None, "weight_change": None})
    if ours is None or theirs is None or ours["shape"] != theirs["shape"]:
        return entry
    read_alike = all(ours[key] == theirs[key] for key in ("codec", "rank", "adapter_bits", "inputs"))
    left, right = first.slots[name], second.slots[name]
    if read_alike and left.keys() == right.keys() and all(_identical(left[slot], right[slot]) for slot in left):
        return {**entry, "equal": True, "codes_differ": 0.0, "weight_change": 0.0}
    code, other = layer_code(first.run, name, left), layer_code(second.run, name, right)
    if ours["bits"] == theirs["bits"]:
        entry["codes_differ"] = float((code.weight.codes != other.weight.codes).float().mean())
    return {**entry, "weight_change": _change(code.compose(), other.compose())}


def _described(name: str, side: _Side) -> dict[str, Any] | None:
    layer = side.run.layers.get(name)
    if layer is None:
        return None
    plan = side.run.plan.layers[name]
    assert plan.codec is not None
    rank = layer.rank(plan)
    return {
        "shape": list(layer.shape),
        "codec": to_json(plan.codec, CODECS),
        "bits": plan.codec.bits,
        "rank": rank,
        "adapter_bits": plan.adapter_bits if rank else None,
        "inputs": plan.inputs,
        "bytes": -(-layer.stored_bits(plan) // 8),
        "relative_output_error": layer.relative_output_error,
    }


def _compare_tensor(name: str, ours: Tensor | None, theirs: Tensor | None) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": name, "a": _kind(ours), "b": _kind(theirs), "max_difference": None, "equal": False}
    if ours is None or theirs is None or ours.shape != theirs.shape:
        return entry
    # float32 is stored as float16 where that loses nothing, which may be so in one file only.
    alike = ours.dtype == theirs.dtype
    same = _identical(ours, theirs) if alike else torch.equal(ours.double(), theirs.double())
    most = 0.0 if same else float((ours.double() - theirs.double()).abs().max())
    return {**entry, "equal": same, "max_difference": most if math.isfinite(most) else None}


def _kind(tensor: Tensor | None) -> dict[str, Any] | None:
    return None if tensor is None else {"dtype": str(tensor.dtype).removeprefix("torch."), "shape": list(tensor.shape)}


def _identical(ours: Tensor, theirs: Tensor) -> bool:
    """The same bits, NaN too."""
    return torch.equal(ours.reshape(-1).view(torch.uint8), theirs.reshape(-1).view(torch.uint8))


def _change(ours: Tensor, theirs: Tensor) -> float | None:
    size, distance = float(ours.norm()), float((ours - theirs).norm())
    change = distance / size if size > 0 else 0.0 if distance == 0 else math.inf
    return change if math.isfinite(change) else None


def _only(ours: Mapping[str, Any] | tuple[str, ...], theirs: Mapping[str, Any] | tuple[str, ...]) -> dict[str, Any]:
    return {"a": [name for name in ours if name not in theirs], "b": [name for name in theirs if name not in ours]}
