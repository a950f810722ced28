"""From a user's model and data to the context that every verb works in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from corank.calibration import Context, StreamedStatistics, collect_gradients, run, token_ids
from corank.checkpoint import Checkpoint, fingerprint
from corank.devices import chosen_device, device_of
from corank.identity import function_identity
from corank.layers import prepare, rotated
from corank.losses import Loss, output_distance, token_distance
from corank.plan import Plan
from corank.progress import Progress, silent
from corank.quantization.request import QuantizeRequest
from corank.statistics import LayerStatistics, OutputGradient
from corank.verbs.arguments import check_loss, check_numbers, read_samples

__all__ = ["ContextOptions", "gradient_samples", "open_context", "statistics_of", "with_checkpoint"]

_PROBED = 2  # samples that the model is watched with
_SEARCHED = 512  # that are tried where those do not reach all layers
FISHER_SAMPLES = 512
_COMPARED_TOKENS = 2048


@dataclass(frozen=True)
class ContextOptions:
    """How a verb looks at a model; as for :func:`corank.quantize`."""

    samples: int | None = None
    batch_size: int = 32
    seed: int = 0
    device: str | torch.device = "auto"
    fold: bool = True
    loss: Loss | None = None
    progress: Progress | None = None
    rotate: str | None = None


def open_context(model: nn.Module, data: Any, options: ContextOptions) -> Context:
    """A prepared copy of the model where it is to be worked on, with its samples.

    Raises:
        ConfigError, ModelError, DataError: for bad input; the model is then as it was.
    """
    check_numbers(options.samples, options.batch_size, options.seed)
    samples = read_samples(data, options.samples, options.batch_size, options.seed)
    where = chosen_device(options.device, device_of(model))
    batches = [samples.first(_PROBED), *samples.take(_SEARCHED).batches]
    runs = [lambda one, batch=batch: run(one, batch, device_of(one)) for batch in batches]
    if options.rotate is not None:
        model = rotated(model, runs[0], options.rotate, options.seed)
    prepared = prepare(model, runs[0], options.fold, runs[1:])
    prepared.model.to(where)
    usual = token_distance if samples.are_tokens else output_distance
    loss = check_loss(options.loss, prepared.outputs) or usual
    return Context(prepared, samples, loss, options.seed, progress=options.progress or silent)


def with_checkpoint(context: Context, folder: str | Path | None, asked: Callable[[], dict[str, Any]]) -> Context:
    """The context with a folder that keeps the run's steps.

    Args:
        context: without one.
        folder: None keeps nothing; then nothing is hashed either.
        asked: what the run is to do, in plain numbers and texts.
    """
    if folder is None:
        return context

    def identity() -> dict[str, Any]:
        model = context.model
        return {
            "model": fingerprint([*model.parameters(), *model.buffers()]),
            "data": fingerprint(tree_leaves(context.samples.batches)),
            "loss": function_identity(context.loss),
            "seed": context.seed,
            "device": context.device.type,
            **asked(),
        }

    return replace(context, checkpoint=Checkpoint(folder, identity()))


def statistics_of(context: Context, plan: Plan, keep: bool, gradients: int = FISHER_SAMPLES) -> StreamedStatistics:
    """What the coded layers see, collected when it is asked for; ``keep`` it for several codings.

    Args:
        context: of the run.
        plan: of its model.
        keep: it for several codings.
        gradients: samples by which outputs are weighed, at most; 0 where nothing will ask for that.
    """
    coded = plan.coded()
    weighted = {name: context.prepared.targets[name] for name, layer in coded.items() if layer.fit == "loss"}
    further: dict[str, LayerStatistics] = {}
    if weighted and gradients:
        samples = context.samples.take(gradients)
        found = collect_gradients(context.model, weighted, samples, context.seed, context.progress)
        further = {name: {OutputGradient: gradient} for name, gradient in found.items()}
    return StreamedStatistics(context, coded, further, keep)


def gradient_samples(context: Context, request: QuantizeRequest, plan: Plan) -> int:
    """Samples that gradients are collected from: all of 512 for adapters, whose directions rest on them; of token
    sequences a few where only the layers' losses are compared by them; none where nothing is."""
    if request.may_adapt or plan.has_adapters:
        return FISHER_SAMPLES
    if not request.search.chooses_codecs:
        return 0
    tokens = token_ids(context.samples.batches[0])
    return FISHER_SAMPLES if tokens is None else max(1, min(FISHER_SAMPLES, _COMPARED_TOKENS // tokens.shape[1]))
