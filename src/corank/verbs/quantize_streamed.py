"""Language models larger than memory: read, coded and freed one decoder layer after the other."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from corank.autograd import recording
from corank.checkpoint import Checkpoint, fingerprint
from corank.codecs import Codec
from corank.config import check_progress
from corank.errors import ConfigError, DataError
from corank.models.streamed import open_streamed
from corank.plan import match
from corank.precision import exact_float32
from corank.presets import AUTO, Preset, chosen_preset, chosen_search
from corank.progress import Progress, silent
from corank.quantization.float_parts import warn_of_float
from corank.quantization.request import Asked, QuantizeRequest
from corank.quantization.template import LayerOverride, PlanTemplate
from corank.refine import Refinement
from corank.storage.model_record import ATTRIBUTE
from corank.verbs.arguments import check_kinds, check_numbers, read_samples
from corank.verbs.layer_stream import LayerStream
from corank.verbs.quantize import origin_of
from corank.verbs.streamed_parts import StreamedParts, Work

__all__ = ["quantize_streamed"]


@recording()
@exact_float32()
def quantize_streamed(
    folder: str | Path,
    data: Any,
    *,
    bits: int | None = None,
    rate: float | str | None = None,
    codec: str | Codec | None = None,
    preset: str | Preset = "fast",
    layers: Mapping[str, LayerOverride] | None = None,
    samples: int | None = None,
    batch_size: int = 32,
    seed: int = 0,
    device: str | torch.device = "auto",
    reference: str | None = None,
    checkpoint: str | Path | None = None,
    progress: Progress | None = None,
) -> nn.Module:
    """A coded language model from weights that need not fit into memory.

    Weights are read from ``.safetensors`` shards one decoder layer at a time, in float32, coded against what the coded
    layers before it feed it, and freed. At once there are the tables and the head in float, two copies of one decoder
    layer with what coding it needs, the samples' states in the float network and in the coded one, and all codes so
    far. Bits are shared out among the layers of one decoder layer, not among all; nothing is refined afterwards, since
    that needs the whole network.

    Args:
        folder: of a causal language model of transformers: ``config.json`` and ``.safetensors`` files.
        data: token sequences, as :func:`corank.quantize` takes them: a :class:`~corank.data.TokenSet`, or whole
            numbers ``(N, T)``. No padding.
        bits, rate, codec, preset, layers, samples, batch_size, seed, device, reference: as for
            :func:`corank.quantize`. A preset's adapters and refinement are left out.
        checkpoint: a folder that keeps each layer as it is coded; the same call goes on from there, to the identical
            result.
        progress: called with (what, done, total).

    Returns:
        The model, on the CPU, in evaluation mode, for :func:`corank.save`; what was done is at ``.corank_run``.

    Raises:
        ModelError: for a folder that holds no such model, weights that are not whole or do not fit.
        ConfigError, DataError, BudgetError: for other bad input, before anything is coded.
    """
    started = time.perf_counter()
    check_kinds(nn.Identity(), layers=layers, device=device)
    check_progress(progress)
    check_numbers(samples, batch_size, seed)
    if rate == AUTO:
        raise ConfigError("rate='auto' codes the network several times over, which needs it whole; give rate=2.0")
    target = Asked(bits, rate, 0.0, None, None, codec).target()
    recipe = replace(chosen_preset(preset, codec, "mse", rate), refinement=None)
    finder = chosen_search(recipe, None)
    request = QuantizeRequest(
        PlanTemplate(recipe, layers or {}),
        target,
        finder,
        Refinement(iterations=0),
        origin_of(reference or str(folder), preset, finder, finder),
    )
    network = open_streamed(folder)
    for pattern in layers or {}:
        match(pattern, [name for name, module in network.model.named_modules() if module._parameters])
    tokens = read_samples(data, samples, batch_size, seed)
    if not tokens.are_tokens:
        raise DataError("a language model is read layer by layer: give token sequences, whole numbers (N, T)")
    identity = {
        "corank": version("corank"),
        "weights": network.weights.identity(),
        "data": fingerprint(tokens.batches if isinstance(tokens.batches[0], torch.Tensor) else ()),
        "request": repr(request),
        "seed": seed,
    }
    kept = Checkpoint(checkpoint, identity if checkpoint is not None else None)
    work = Work(request, tokens, seed, device, kept, progress or silent)
    model, record = LayerStream(StreamedParts(network, work)).coded()
    model.__dict__[ATTRIBUTE] = replace(record, seconds=time.perf_counter() - started)
    warn_of_float(model, record)
    return model
