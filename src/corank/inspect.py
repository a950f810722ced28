"""What a quantized model or an artifact is made of, as one plain record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from corank.storage.artifact import read
from corank.storage.contents import Contents, contents_of, input_codes
from corank.storage.run import Run, run_of

__all__ = ["inspect", "run_record"]


def inspect(model: nn.Module | str | Path) -> dict[str, Any]:
    """The record of a quantized model, or of an artifact on disk (which is checked whole, and not built).

    Keys: ``model, preset, search, bits, budget, activations, seed, equivalent_bits, stored_bytes, iterations,
    layers`` (each with ``name, shape, bits, rank, max_rank, bytes, relative_output_error, inputs, input_step,
    input_offset``), ``folded, skipped, plan``. ``inputs`` are the bits of a layer's inputs; None, and so are step and
    offset, where they are float.

    Raises:
        ModelError: for a model that corank did not quantize. ArtifactError: for an unsound file.
    """
    if isinstance(model, nn.Module):
        run = run_of(model)
        contents = contents_of(model, run)
        return {**run_record(run, contents), "stored_bytes": len(contents.serialize())}
    run, contents = read(model)
    return {**run_record(run, contents), "stored_bytes": Path(model).stat().st_size}


def run_record(run: Run, contents: Contents) -> dict[str, Any]:
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
        "search_history": [dict(entry) for entry in run.history],
        "plan": run.plan.to_json(),
    }


def _inputs(name: str, run: Run, contents: Contents) -> dict[str, Any]:
    step, offset = input_codes(run, contents).get(name, (None, None))
    return {"inputs": run.plan.layers[name].inputs, "input_step": step, "input_offset": offset}
