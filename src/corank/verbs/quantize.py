"""The public call: prepare a copy, calibrate, search a plan, apply it."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from corank.calibration import Samples, StreamedStatistics, collect_gradients, run
from corank.calibration.collect import Progress
from corank.checkpoint import Checkpoint, fingerprint
from corank.codecs import Codec
from corank.compiled import uncompiled
from corank.errors import ConfigError
from corank.layers import PreparedModel, prepare
from corank.losses import Loss, output_distance, token_distance
from corank.plan import Plan
from corank.precision import exact_float32
from corank.presets import AUTO, Preset, chosen_preset, chosen_search
from corank.processes import join
from corank.quantization.encode import CodedModel, Encoder
from corank.quantization.template import LayerOverride, PlanTemplate
from corank.quantization.to_rate import code_to_size, first_rate, room_for
from corank.refine import PostTraining, Refinement, remaining, tune
from corank.search import Allocation, Search
from corank.statistics import LayerStatistics, OutputGradient
from corank.storage.model_record import ATTRIBUTE, ModelRecord
from corank.verbs.arguments import check_kinds, check_loss, check_request, read_samples

__all__ = ["quantize"]

_FISHER_SAMPLES = 512


@uncompiled()
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
    seed: int = 0,
    device: str | torch.device = "auto",
    reference: str | None = None,
    checkpoint: str | Path | None = None,
    progress: Progress | None = None,
) -> nn.Module:
    """A copy of a trained model whose weights are low-bit codes plus low-rank adapters of the residual (CoRa).

    No label is read, and without a ``refinement`` no weight is trained. The model is watched, never traced: any eager
    module works. Float32 passes are exact float32 on every device (:func:`corank.exact_float32`).

    Args:
        model: the trained float network; it is not changed.
        data: unlabelled calibration samples: an :class:`~corank.data.ImageSet` or :class:`~corank.data.TokenSet`, a
            tensor ``(N, ...)`` (token ids are whole numbers ``(N, T)``), or an iterable of batches (tensors,
            ``(inputs, labels)`` pairs, or mappings of keyword arguments).
        bits: of each weight's code, 1 to 8; the codec's own (4) unless ``size`` is given, then the most that fit.
        rate: instead of ``bits`` and ``codec``: bits a weight that codes take after entropy coding, such as 1.9. Their
            steps are equal, as wide as the rate needs (:class:`~corank.codecs.RateUniform`); layers get more or less by
            what they lose (:class:`~corank.search.Rates`). No adapters unless ``budget`` says so. "auto": the one
            whose file, as ``save`` writes it by default, has at most ``size`` bytes, found by coding the network two to
            six times; up to three copies of it are then held.
        budget: extra bits per quantized weight that all adapters together may store; None: the preset's (0.25, or 0
            where that is less than any adapter takes), 0 with ``rate``, or what ``size`` leaves.
        size: instead of ``budget``, or for ``rate="auto"``, the size of the saved file: bytes or "1.2MB" (1 KB is 1000
            bytes).
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
        seed: draws samples, calibration positions and search batches.
        device: "auto" (CUDA if there is any, else CPU) or a torch device. The result is where ``model`` was.
        reference: what the model was made from, kept in the file for its reader; never executed.
        checkpoint: a folder that keeps what is done; the same call with the same folder goes on from there, to the
            identical result.
        progress: called with (what, done, total).

    Returns:
        A drop-in copy, in evaluation mode; what was done is at ``.corank_run`` (a
        :class:`~corank.storage.model_record.ModelRecord`).

    Raises:
        ConfigError, ModelError, DataError, BudgetError: for bad input; the model is then as it was.
    """
    started = time.perf_counter()
    check_kinds(model, budget=budget, layers=layers, plan=plan, refinement=refinement, device=device)
    join()
    others = {"bits": bits, "size": None if rate == AUTO else size, "plan": plan}
    recipe = chosen_preset(preset, codec, activation_range, rate, others)
    finder = chosen_search(recipe, search)
    tuning = refinement or recipe.refinement or Refinement(iterations=0)
    room, size = room_for(rate, size, tuning)
    check_request(bits, budget, size, samples, batch_size, seed, activations, plan)
    inputs = read_samples(data, samples, batch_size, seed)
    prepared, home = _prepare(model, inputs, fold, device)
    base = PlanTemplate(recipe, layers or {}, adapter_bits, all_layers, activations)
    base = base if room is None else base.at_rate(first_rate(prepared, base.at_rate, room, budget or 0.0))
    distance = check_loss(loss, prepared.outputs) or (token_distance if inputs.are_tokens else output_distance)
    names = (reference, preset if isinstance(preset, str) else "custom", _search_name(search, finder))
    job = Encoder(prepared, finder, plan, bits, size, budget, inputs, distance, seed, progress, *names)
    draft = job.draft(base)
    kept = Checkpoint(checkpoint, _identity(prepared, inputs, draft, finder, budget, room or size, tuning, distance))
    job = replace(job, statistics=_calibrate(prepared, draft.plan, inputs, seed, progress, room is not None))
    teacher = copy.deepcopy(prepared.model) if tuning.iterations else nn.Identity()
    coded = _coded(job, base, kept, room, draft.weights)
    tuning = remaining(tuning, coded.found.iterations)
    course = tune(coded.model, teacher, inputs, tuning, distance, seed, progress, kept)
    outcome = replace(coded.run, seconds=time.perf_counter() - started)
    coded.model.__dict__[ATTRIBUTE] = _with_history(outcome, coded.found, course)
    return coded.model.to(home)


def _coded(job: Encoder, base: PlanTemplate, kept: Checkpoint, room: int | None, weights: int) -> CodedModel:
    """The model coded once or, for a file of ``room`` bytes, at the rate that fits."""
    if room is None:
        return job(base, job.prepared, kept)
    return code_to_size(partial(job.on_a_copy, base, kept), first=base.recipe.rate, size=room, weights=weights)


def _identity(
    prepared: PreparedModel,
    inputs: Samples,
    draft: ModelRecord,
    finder: Search,
    budget: float | None,
    size: int | str | None,
    tuning: PostTraining,
    distance: Loss,
) -> dict[str, Any]:
    """What tells this run from others, for its checkpoint."""
    return {
        "corank": version("corank"),
        "model": fingerprint([*prepared.model.parameters(), *prepared.model.buffers()]),
        "data": fingerprint(tree_leaves(inputs.batches)),
        "plan": draft.plan.to_json(),
        "search": repr(finder),
        "budget": budget,
        "size": size,
        "refinement": repr(tuning),
        "loss": getattr(distance, "__qualname__", type(distance).__qualname__),
        "seed": draft.seed,
        "device": next(_tensors(prepared.model)).device.type,
    }


def _with_history(run: ModelRecord, found: Allocation, course: tuple[Mapping[str, float], ...]) -> ModelRecord:
    """The run with the steps of the search, then those of the refinement."""
    later = [{**step, "iteration": step["iteration"] + found.iterations} for step in course]
    last = int(later[-1]["iteration"]) if later else found.iterations
    return replace(run, iterations=last, history=(*found.history, *later))


def _devices(model: nn.Module, device: str | torch.device) -> tuple[torch.device, torch.device]:
    home = next((tensor.device for tensor in [*model.parameters(), *model.buffers()]), torch.device("cpu"))
    if device == "auto":
        return torch.device("cuda") if torch.cuda.is_available() else home, home
    try:
        where = torch.device(device)
        torch.zeros(1, device=where)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device={str(device)!r} cannot be used here: {str(error).splitlines()[0]}") from error
    return where, home


def _prepare(
    model: nn.Module, inputs: Samples, fold: bool, device: str | torch.device
) -> tuple[PreparedModel, torch.device]:
    """The float copy where it is to be worked on, and the device that the result goes to."""
    where, home = _devices(model, device)
    probe = inputs.first(2)
    prepared = prepare(model, lambda one: run(one, probe, next(_tensors(one)).device), fold)
    prepared.model.to(where)
    return prepared, home


def _tensors(model: nn.Module):
    yield from model.parameters()
    yield from model.buffers()
    yield torch.zeros(0)


def _calibrate(
    prepared: PreparedModel, plan: Plan, inputs: Samples, seed: int, progress: Progress | None, keep: bool
) -> StreamedStatistics:
    targets = {name: prepared.targets[name] for name in plan.coded()}
    weighted = {name: targets[name] for name, layer in plan.coded().items() if layer.fit == "loss"}
    further: dict[str, LayerStatistics] = {}
    if weighted:
        found = collect_gradients(prepared.model, weighted, inputs.take(_FISHER_SAMPLES), seed, progress)
        further = {name: {OutputGradient: gradient} for name, gradient in found.items()}
    return StreamedStatistics(prepared.model, targets, inputs, further, seed, progress, keep)


def _search_name(asked: str | Search | None, finder: Search) -> str:
    return asked if isinstance(asked, str) else type(finder).__name__.lower()
