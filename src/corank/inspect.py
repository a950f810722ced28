"""What a quantized model or an artifact is made of, as one plain record."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import torch
from torch import nn

from corank.layers import CodedLayerState
from corank.storage.artifact import opened, read_coded
from corank.storage.artifact_file import FORMAT
from corank.storage.coders import entropy
from corank.storage.contents import ArtifactContents, contents_of, input_codes
from corank.storage.entropy_coding import CodeStream, encode_contents, relative_codes
from corank.storage.float_tensors import float_tensors
from corank.storage.histogram import entropy_bits, histogram
from corank.storage.model_record import PARTS, ModelRecord, part_of, run_of
from corank.storage.placement import placed_tensors
from corank.storage.stored_layers import layer_code, slot_tensors

__all__ = ["inspect", "run_record"]


def inspect(model: nn.Module | str | Path, codes: bool = False, coder: str = "auto") -> dict[str, Any]:
    """The record of a quantized model, or of an artifact on disk (which is checked whole, and not built).

    Keys: ``model, preset, search, bits, budget, activations, seed, equivalent_bits, stored_bytes, fixed_bytes,
    stored_parts, iterations, layers`` (each with ``name, shape, bits, rank, max_rank, bytes, stored_bits,
    relative_output_error, inputs, input_step, input_offset, coder, bits_per_weight, file_bits_per_weight``),
    ``folded, skipped, float_tensors, plan, recipe``. ``float_tensors`` are what the file holds beside the codes, the
    largest first (each with ``name, shape, bytes, reason``; bytes as in memory). ``recipe`` is that of a training, as
    :meth:`corank.Recipe.to_json` writes it, or None; ``candidates``, where channels were weighed against bits, the
    networks that were tried. ``inputs`` are the bits of a layer's inputs; None, and so are step
    and offset, where they are float. ``stored_bytes`` is the file's size (of a model: that of
    ``corank.save(model, path, coder)``),
    ``fixed_bytes`` what it would be with all codes at their fixed width; a layer's bits per weight, before and after
    its codes are coded by ``coder``, count all that it stores.

    Args:
        model: what :func:`corank.quantize` or :func:`corank.load` returned, or the path of an artifact.
        codes: also unpack every code, which takes some seconds for a hundred million, and add to each layer
            ``code_counts`` (weights that take each code), ``code_entropy`` (bits per weight, codes taken as
            independent), ``relative_entropy`` (the same for codes less that of zero, as coders see them: rows whose
            offsets differ are then alike), ``weight_range`` (two values), ``coded_counts`` (weights of the stored
            network in 48 equal bins of that range) and ``float_counts`` (of the float network; empty for a file, which
            does not hold them).
        coder: of a model, what ``corank.save`` will be given; a file says itself how it is coded.

    Raises:
        ModelError: for a model that corank did not quantize. ArtifactError: for an unsound file.
    """
    if isinstance(model, nn.Module):
        run = run_of(model)
        contents = contents_of(model, run)
        held, runs = encode_contents(run, contents, coder)
        stored = held.size_bytes
    else:
        run, contents, runs = read_coded(model)
        held, stored = opened(model)[1], Path(model).stat().st_size
    saved = sum(part.fixed_bytes - part.size_bytes for part in runs)
    fixed = contents.size_bytes if contents.header["format"] >= FORMAT else stored + saved
    sizes = {"stored_bytes": stored, "fixed_bytes": fixed, "stored_parts": _parts(run, held, runs, stored)}
    record = {**run_record(run, contents), **sizes}
    plain = contents.blobs["scales"].numel() * 2
    coding = _coding(run, runs, 1 - _bytes_of(held)["scales"] / max(1, plain))
    if codes:
        relative = {name: entropy(symbols, 1 << bits) for name, symbols, bits in relative_codes(run, contents)}
        for name, slots in slot_tensors(run, contents).items():
            coding[name] |= {**_spread(name, layer_code(run, name, slots), run), "relative_entropy": relative[name]}
    record["layers"] = [{**layer, **coding[layer["name"]]} for layer in record["layers"]]
    return record


def run_record(run: ModelRecord, contents: ArtifactContents) -> dict[str, Any]:
    """The part of a record that a run and what it stored tell."""
    return {
        "model": run.model,
        "preset": run.preset,
        "search": run.search,
        "bits": run.bits,
        "budget": run.budget,
        "activations": run.activations,
        "seed": run.seed,
        "equivalent_bits": run.equivalent_bits,
        "iterations": run.iterations,
        "seconds": run.seconds,
        "layers": [{**layer, **_inputs(layer["name"], run, contents)} for layer in run.layer_records()],
        "folded": list(run.folded),
        "skipped": dict(run.skipped),
        "float_tensors": float_tensors(run, contents.header),
        "search_history": [dict(entry) for entry in run.history],
        "samples": run.samples,
        "notes": list(run.notes),
        "plan": run.plan.to_json(),
        "recipe": None if run.recipe is None else dict(run.recipe),
        **({"structure": [dict(entry) for entry in run.structure]} if run.structure else {}),
        **({"candidates": [dict(entry) for entry in run.candidates]} if run.candidates else {}),
    }


def _inputs(name: str, run: ModelRecord, contents: ArtifactContents) -> dict[str, Any]:
    step, offset = input_codes(run, contents).get(name, (None, None))
    inputs = run.plan.layers[name].inputs  # those of 1 bit have no code that stands for zero
    return {"inputs": inputs, "input_step": step, "input_offset": None if inputs == 1 else offset}


def _parts(
    run: ModelRecord, contents: ArtifactContents, runs: Sequence[CodeStream], stored_bytes: int
) -> dict[str, int]:
    """The file's bytes by what they are for; they add up to its size. Coded scales count by how many they are."""
    parts, scales = dict.fromkeys(PARTS, 0), dict.fromkeys(PARTS, 0)
    sizes = _bytes_of(contents)
    for part in runs:
        parts[part_of(part.slot)] += part.size_bytes
    for tensor in placed_tensors(run):
        scales[part_of(tensor.slot)] += tensor.spec.count if tensor.spec.scale else 0
    bounds = [sizes["scales"] * one // max(1, sum(scales.values())) for one in (0, *accumulate(scales.values()))]
    for name, (begin, end) in zip(PARTS, pairwise(bounds), strict=True):
        parts[name] += end - begin
    others = sum(size for name, size in sizes.items() if name not in ("codes", "scales"))
    return {**parts, "other tensors": others, "header": stored_bytes - others - sum(parts.values())}


def _bytes_of(contents: ArtifactContents) -> dict[str, int]:
    """Of each blob."""
    return {"scales": 0, **{name: blob.numel() * blob.element_size() for name, blob in contents.blobs.items()}}


def _coding(run: ModelRecord, runs: Sequence[CodeStream], less: float) -> dict[str, dict[str, Any]]:
    """How each layer's codes are coded, and all its bits per weight before and after; scales take ``less``, a share of
    their bytes."""
    found, scales = dict[str, dict[str, Any]](), dict.fromkeys(run.layers, 0)
    for tensor in placed_tensors(run):
        scales[tensor.layer] += 16 * tensor.spec.count if tensor.spec.scale else 0
    for name, layer in run.layers.items():
        own = [part for part in runs if part.layer == name]
        stored = layer.stored_bits(run.plan.layers[name])
        saved = 8 * sum(part.fixed_bytes - part.size_bytes for part in own) + less * scales[name]
        found[name] = {
            "coder": next(part.coder for part in own if part.slot == "codes"),
            "bits_per_weight": stored / layer.weights,
            "file_bits_per_weight": (stored - saved) / layer.weights,
        }
    return found


def _spread(name: str, code: CodedLayerState, run: ModelRecord) -> dict[str, Any]:
    """How a layer's codes and weights are spread."""
    counts = torch.bincount(code.weight.codes.flatten(), minlength=1 << code.codec.bits).tolist()
    composed, known = code.compose(), run.layers[name].histogram
    shown = histogram(composed) if known is None else histogram(composed, known.low, known.high)
    return {
        "code_counts": counts,
        "code_entropy": entropy_bits(counts) * code.weight.codes.numel() / composed.numel(),
        "weight_range": [shown.low, shown.high],
        "coded_counts": list(shown.counts),
        "float_counts": [] if known is None else list(known.counts),
    }
