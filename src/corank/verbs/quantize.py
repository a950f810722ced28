"""The public call: prepare a copy, calibrate, search a plan, apply it."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from corank.autograd import recording
from corank.calibration import Context
from corank.codecs import Codec
from corank.compiled import uncompiled
from corank.config import check_progress
from corank.devices import device_of
from corank.layers import check_rotation
from corank.losses import Loss
from corank.plan import Plan
from corank.precision import exact_float32
from corank.presets import Preset, chosen_preset, chosen_search, keeps_to_rate
from corank.processes import init_processes
from corank.progress import Progress
from corank.pruning.narrowing import Narrowing
from corank.quantization.encode import CodedModel, drafted, encode, redrafted
from corank.quantization.request import Asked, Origin, QuantizeRequest, RateForSize, usual_rate
from corank.quantization.template import LayerOverride, PlanTemplate, check_fitted
from corank.quantization.to_rate import code_to_size, first_rate
from corank.refine import PostTraining, Refinement
from corank.search import Search
from corank.storage.model_record import ModelRecord
from corank.verbs.arguments import check_kinds, check_range
from corank.verbs.fewer_channels import narrowing_for, quantize_narrowed
from corank.verbs.finishing import finish
from corank.verbs.opening import ContextOptions, gradient_samples, open_context, statistics_of, with_checkpoint

__all__ = ["identity_of", "origin_of", "quantize"]


@uncompiled()
@recording()
@exact_float32()
def quantize(
    model: nn.Module,
    data: Any,
    *,
    bits: int | None = None,
    rate: float | str | None = None,
    budget: float | None = None,
    size: int | str | None = None,
    plan: Plan | None = None,
    layers: Mapping[str, LayerOverride] | None = None,
    codec: str | Codec | None = None,
    preset: str | Preset = "fast",
    search: str | Search | None = None,
    adapter_bits: int | None = None,
    activations: int | None = None,
    activation_range: str = "mse",
    all_layers: bool = False,
    refinement: PostTraining | None = None,
    loss: Loss | None = None,
    samples: int | None = None,
    batch_size: int = 32,
    fold: bool = True,
    rotate: str | None = None,
    seed: int = 0,
    device: str | torch.device = "auto",
    reference: str | None = None,
    checkpoint: str | Path | None = None,
    progress: Progress | None = None,
    prune: str | Narrowing | None = None,
) -> nn.Module:
    """A copy of a trained model whose weights are low-bit codes plus low-rank adapters of the residual (CoRa).

    No label is read, and without a ``refinement`` no weight is trained. The model is watched, never traced: any eager
    module works. Float32 passes are exact float32 on every device (:func:`corank.exact_float32`).

    Args:
        model: the trained float network; it is not changed.
        data: unlabelled calibration samples: an :class:`~corank.data.ImageSet` or :class:`~corank.data.TokenSet`, a
            tensor ``(N, ...)`` (token ids are whole numbers ``(N, T)``), a mapping of tensors by the names of the
            model's arguments, or an iterable of batches (tensors, ``(inputs, labels)`` pairs, or such mappings).
        bits: of each weight's code, 1 to 8; the codec's own (4) unless ``size`` is given, then the most that fit.
        rate: instead of ``bits``: bits a weight that codes take after entropy coding, such as 1.9. Their steps are
            equal, as wide as the rate needs (:class:`~corank.codecs.RateUniform`; smaller files at equal error:
            ``codec="trellis"``, :class:`~corank.codecs.Trellis`; no other codec has a rate); layers get more or less by
            what they lose (:class:`~corank.search.Rates`). No adapters unless ``budget`` says so. "auto": the one
            whose file, as ``save`` writes it by default, has at most ``size`` bytes, found by coding the network two to
            six times; up to three copies of it are then held.
        budget: extra bits per quantized weight that all adapters together may store; None: the preset's (0.25, or 0
            where that is less than any adapter takes), 0 with ``rate``, or what ``size`` leaves.
        size: of the saved file: bytes or "1.2MB" (1 KB is 1000 bytes). Alone, or with "fast" or "best", it is met by
            ``rate="auto"``; with bits, a codec that has no rate, a search, ``adapter_bits`` or ``activations``, or
            another preset, by codes of fixed width and adapters of what is left.
        plan: carries this plan out; nothing is searched.
        layers: exceptions by name pattern, later ones winning: bits, "float", a codec, its name or a
            :class:`~corank.plan.LayerPlan`, e.g. ``{"conv1": 8, "*.downsample.*": "float"}``.
        codec: of every layer but the first and last: a name of :data:`~corank.codecs.CODECS` such as "dense-shift", or
            a codec; None: the preset's (uniform).
        preset: "fast", "best", "paper", "nearest", or a :class:`~corank.presets.Preset`.
        search: "cora", "cora-from-0.9", "greedy", "joint", "uniform", or a :class:`~corank.search.Search`; None: the
            preset's.
        adapter_bits: of the adapters' factors, 2 to 8; None: the preset's (8).
        activations: bits of the layers' inputs, 2 to 8; the first and the last layer get 8. None leaves them in float.
        activation_range: where inputs are clipped: "mse", "minmax", "kl" or "kl-mass"; see ``docs/activations.md``.
        all_layers: also give the first and the last layer ``bits``; as in the literature they get 8 otherwise.
        refinement: a :class:`~corank.refine.Refinement` or a :class:`~corank.refine.BlockReconstruction` to run after
            the coding, ``Refinement(iterations=0)`` for none;
            None: the preset's.
        loss: ``(output, reference_output) -> scalar`` for search and refinement; None: KL of the logits for
            classifiers and language models, else the relative squared error of every output.
        samples: at most this many are used, None for 1600, or token sequences of 102,400 tokens in all; image and token
            sets are sampled by ``seed``, anything else read from the front.
        batch_size: of the batches that a tensor or a set is cut into; of token sequences, as many as hold 64 tokens for
            each.
        fold: fold norms into the layer before them, where that is proved to be sound.
        rotate: spreads outliers by random-sign Hadamard matrices before anything is rounded: "fold" those of the
            residual stream and the values of a Llama, Mistral or Qwen2, folded into the weights around; "layers" those
            of every plain linear layer's inputs, which are turned as it runs; see ``docs/rotation.md``.
        seed: draws samples, calibration positions and search batches.
        device: "auto" (CUDA if there is any, else CPU) or a torch device. The result is where ``model`` was.
        reference: what the model was made from, kept in the file for its reader; never executed.
        checkpoint: a folder that keeps what is done; the same call with the same folder goes on from there, to the
            identical result.
        progress: called with (what, done, total).
        prune: beside ``size``: "auto" weighs fewer channels against fewer bits. Narrowed networks
            (:func:`corank.prune`, each distilled for 100 steps, no labels) and the whole one are coded to the size, and
            the one ships that is nearest to the float network on samples held back; the whole one where they cannot be
            told apart. Also shares, "0.2p,0.4p", or a :class:`~corank.pruning.narrowing.Narrowing`.

    Returns:
        A drop-in copy, in evaluation mode; what was done is at ``.corank_run`` (a
        :class:`~corank.storage.model_record.ModelRecord`).

    Raises:
        ConfigError, ModelError, DataError, BudgetError: for bad input; the model is then as it was.
    """
    started = time.perf_counter()
    check_kinds(model, budget=budget, layers=layers, plan=plan, refinement=refinement, device=device)
    check_rotation(rotate)
    check_progress(progress)
    init_processes()
    other = None if keeps_to_rate(codec) else codec
    fixed = (bits, budget, plan, other, search, adapter_bits, activations)
    rate = usual_rate(rate, size, preset, refinement, fixed)
    target = Asked(bits, rate, budget, size, plan, codec, activations).target()
    if prune is not None:
        again = partial(
            quantize, bits=bits, rate=rate, budget=budget, size=size, layers=layers, codec=codec, preset=preset,
            search=search, adapter_bits=adapter_bits, activations=activations, activation_range=activation_range,
            all_layers=all_layers, refinement=refinement, loss=loss, batch_size=batch_size, fold=fold,
            rotate=rotate, seed=seed, device=device, reference=reference,
        )  # fmt: skip
        how = narrowing_for(prune, target)
        seen = ContextOptions(samples, batch_size, seed, device, fold, loss, progress)
        return quantize_narrowed(model, data, how, (seen, checkpoint), again)
    recipe = chosen_preset(preset, codec, activation_range, rate)
    check_range(activations, activation_range, plan, [recipe.layer, recipe.edge, *(layers or {}).values()])
    finder = chosen_search(recipe, search)
    how = refinement or recipe.refinement or Refinement(iterations=0)
    template = PlanTemplate(recipe, layers or {}, adapter_bits, all_layers, activations)
    request = QuantizeRequest(template, target, finder, how, origin_of(reference, preset, search, finder))
    context = open_context(model, data, ContextOptions(samples, batch_size, seed, device, fold, loss, progress, rotate))
    return _coded(request, context, checkpoint, started).to(device_of(model))


def _coded(request: QuantizeRequest, context: Context, checkpoint: str | Path | None, started: float) -> nn.Module:
    """The context's model, coded and finished, where the context works."""
    target, template, how = request.target, request.template, request.post_training
    if isinstance(target, RateForSize):
        request = request.at_rate(first_rate(context.prepared, template, target))
    draft = drafted(request, context)
    check_fitted(draft.plan)
    context = with_checkpoint(context, checkpoint, lambda: identity_of(request, draft))
    weighed = gradient_samples(context, request, draft.plan)
    statistics = statistics_of(context, draft.plan, isinstance(target, RateForSize), weighed)
    teacher = copy.deepcopy(context.model) if how.iterations else nn.Identity()

    def attempt(at: float, number: int) -> CodedModel:
        again, own = request.at_rate(at), context.within(f"attempt-{number}")
        return encode(again, redrafted(draft, again, own), statistics, own)

    if isinstance(target, RateForSize):
        coded = code_to_size(attempt, request.template.recipe.rate, target.size, draft.weights)
    else:
        coded = encode(request, draft, statistics, context)
    return finish(coded, teacher, how, context, started)


def origin_of(reference: str | None, preset: str | Preset, search: str | Search | None, finder: Search) -> Origin:
    """The names that the record has of what was asked for."""
    name = search if isinstance(search, str) else type(finder).__name__.lower()
    return Origin(reference, preset if isinstance(preset, str) else "custom", name)


def identity_of(request: QuantizeRequest, draft: ModelRecord) -> dict[str, Any]:
    """What tells this run from others, for its checkpoint."""
    return {
        "corank": version("corank"),
        "plan": draft.plan.to_json(),
        "target": repr(request.target),
        "search": repr(request.search),
        "refinement": repr(request.post_training),
    }
