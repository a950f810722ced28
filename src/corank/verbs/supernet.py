"""The public calls that train one network which holds many, and take one of them out."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from corank.autograd import recording
from corank.calibration import Context, Samples, run
from corank.calibration.norms import reestimate_norms
from corank.checkpoint import fingerprint
from corank.coding.install import coded_module
from corank.compiled import uncompiled
from corank.config import check_progress
from corank.devices import chosen_device, device_of
from corank.errors import ConfigError
from corank.layers import PreparedModel, remove_norm, replace_module
from corank.losses import output_distance
from corank.matrix import Geometry
from corank.models.elastic import MobileSupernet
from corank.plan import LayerPlan, Plan
from corank.precision import exact_float32
from corank.processes import number_of_processes
from corank.progress import Progress, silent
from corank.storage.model_record import ATTRIBUTE, LayerRecord, ModelRecord
from corank.storage.supernet_file import SUPERNET, SupernetRecord
from corank.training.loop import train_steps
from corank.training.norms import NormAfter
from corank.training.objective import Objective
from corank.training.recipe import Optimizer, Recipe
from corank.training.state import TrainingState
from corank.training.subnets import choose, extreme, layers_of, plain_network, space_of
from corank.training.supernet import Sandwich, bits_of, give_steps, groups_of_supernet, inherit
from corank.verbs.arguments import check_kinds, check_numbers, read_samples
from corank.verbs.opening import with_checkpoint
from corank.verbs.training_data import calibrated_on, feed_of, read_labelled, reading_threads

__all__ = ["at_subnet", "extract_subnet", "reference_of", "taken_out", "train_supernet"]

_PROBED = 2  # samples
_CALIBRATED = 512  # that norms are estimated on, unless the caller says otherwise


@uncompiled()
@recording()
@exact_float32()
def train_supernet(
    model: nn.Module,
    data: Any,
    bits: int | None,
    *,
    iterations: int = 400,
    batch_size: int = 128,
    teacher: nn.Module | None = None,
    random: int = 2,
    signed: bool = True,
    shared: bool = True,
    optimizer: Optimizer | None = None,
    augment: str = "auto",
    samples: int | None = None,
    parts: int = 0,
    workers: int | None = None,
    seed: int = 0,
    device: str | torch.device = "auto",
    checkpoint: str | Path | None = None,
    progress: Progress | None = None,
) -> nn.Module:
    """A copy of a network with elastic layers, trained so that each of its subnets works without further training.

    Once quantization-aware training (OQAT, arXiv 2010.04354): one learned step a layer for the weights, and one for the
    inputs, whatever part of the layer is taken. Each training step runs the largest, the smallest and ``random`` other
    subnets. A float network is quantized; one of more bits hands all parameters on, each step doubled for each bit less
    (bit inheritance), and begins with a fresh optimizer: ``bits`` 4, then 3, then 2.

    Args:
        model: a supernet, such as ``corank.models.resolve("elastic:10").model``; it is not changed.
        data: with labels, as for :func:`corank.train`; without, where there is a ``teacher``.
        bits: of weights and inputs, 2 to 8; None trains in float. The first and last layer have weights of 8 bits and
            float inputs.
        iterations: steps; 0 quantizes, or hands on, alone.
        batch_size: samples a step.
        teacher: a float network that the largest subnet is distilled from, beside labels where there are some.
        random: subnets drawn a step, beside the largest and the smallest.
        signed: where inputs are negative when steps begin, round them to signed values; else they become zero.
        shared: one step a layer; False: one for each part of it, what the method is compared with.
        optimizer: None for that of every recipe.
        augment: of images, as in a :class:`corank.Recipe`.
        samples: that steps begin from and norms are estimated on, at most; None for 512.
        parts, workers, seed, device, checkpoint, progress: as for :func:`corank.train`.

    Returns:
        The supernet, float32, in evaluation mode, its largest subnet chosen, where ``model`` was; what was done is at
        ``.corank_supernet``.

    Raises:
        ConfigError, ModelError, DataError, TrainingError: the model is then as it was.
    """
    started = time.perf_counter()
    check_kinds(model, device=device)
    check_progress(progress)
    check_numbers(samples, batch_size, seed)
    space_of(model)
    if number_of_processes() > 1:
        raise ConfigError("a supernet trains in one process; start it without torchrun or accelerate launch")
    batches = read_labelled(data, batch_size, seed)
    loss = "labels" if teacher is None else "both" if batches.source.labels else "distil"
    batches.check_labels(loss)
    recipe = Recipe(
        weights=None, edge=None, edge_inputs=None, callbacks=(Sandwich(random),), loss=loss, start="scratch",
        optimizer=optimizer or Optimizer(), iterations=iterations, batch_size=batch_size, augment=augment,
    )  # fmt: skip
    own = copy.deepcopy(model).float().to(chosen_device(device, device_of(model)))
    seen = read_samples(calibrated_on(data, batches, samples or _CALIBRATED), samples or _CALIBRATED, 64, seed)
    before = bits_of(own)
    _quantized(own, bits, (signed, shared), seen)
    context = Context(PreparedModel(own, outputs=_probed(own, seen)), seen, output_distance, seed,
                      progress=progress or silent)  # fmt: skip
    asked = {"verb": "supernet", "recipe": replace(recipe, callbacks=()).to_json(), "random": random,
             "bits": [before, bits], "signed": signed, "shared": shared, "samples": batches.identity}  # fmt: skip
    context = with_checkpoint(context, checkpoint, lambda: asked | _taught(teacher))
    feed = feed_of(
        batches, recipe, Objective(loss, recipe.temperature, None, False), _teaching(context, teacher), parts
    )
    state = _state(own, recipe, seed)
    norms = [NormAfter(name, layer.norm, layer) for name, layer in layers_of(own) if layer.norm is not None]
    history = train_steps(state, norms, replace(feed, workers=reading_threads(batches, workers)), context)
    at_subnet(own, extreme(space_of(own), largest=True), seen)
    record = SupernetRecord(bits, before, iterations, seed, time.perf_counter() - started, history)
    own.__dict__[SUPERNET] = record
    return own.to(device_of(model))


@exact_float32()
def extract_subnet(
    model: nn.Module, data: Any, chosen: Mapping[str, int] | None = None, *, samples: int | None = None
) -> nn.Module:
    """One subnet of a supernet as an ordinary network, which computes what the supernet does, bit for bit.

    Args:
        model: a supernet, such as :func:`corank.train_supernet` returns; it is not changed.
        data: that the subnet's batch statistics are estimated on, unlabelled: as for :func:`corank.quantize`.
        chosen: name to value of each choice, such as ``{"stages.0.depth": 1, ...}``
            (:func:`corank.training.subnets.space_of`); None for the largest.
        samples: at most so many of the data; None for 512.

    Returns:
        A coded network for :func:`corank.save`; of a float supernet, a float one. It takes images of the resolution
        that was chosen. Where the supernet has a name, ``.corank_run.model`` is that of the subnet.

    Raises:
        ConfigError, ModelError, DataError: for what cannot be.
    """
    check_kinds(model)
    own = copy.deepcopy(model)
    at_subnet(own, extreme(space_of(own), largest=True) if chosen is None else chosen, _seen(data, samples))
    return taken_out(own)


def taken_out(own: nn.Module) -> nn.Module:
    """The subnet that a supernet in evaluation mode has chosen, with the statistics that its norms have."""
    found, bits = plain_network(own), bits_of(own)
    if bits is None:
        return found
    plans, layers, folded = dict[str, LayerPlan](), dict[str, LayerRecord](), list[str]()
    for name, layer in layers_of(own):
        conv = dict(found.named_modules()).get(f"{name}.conv")
        if conv is None:  # it does not run
            continue
        result = layer.result()
        inputs = None if result.code.inputs is None else result.code.inputs.bits
        plans[f"{name}.conv"] = LayerPlan(result.code.codec, inputs=inputs)
        layers[f"{name}.conv"] = LayerRecord(Geometry.of(conv).matrix_shape, float("nan"))
        if layer.norm is not None:
            remove_norm(found, found.get_submodule(f"{name}.norm"))
            folded.append(f"{name}.norm")
        replace_module(found, conv, coded_module(conv, result))
    made = own.__dict__.get(SUPERNET)
    done = (made.seed, made.iterations) if isinstance(made, SupernetRecord) else (0, 0)
    found.__dict__[ATTRIBUTE] = ModelRecord(
        Plan(plans), layers, tuple(folded), model=reference_of(own), preset="supernet", bits=bits, activations=bits,
        seed=done[0], iterations=done[1],
    )  # fmt: skip
    return found


def reference_of(own: nn.Module) -> str | None:
    """The name of the subnet that is chosen, where it has one."""
    return own.reference if isinstance(own, MobileSupernet) else None


def at_subnet(own: nn.Module, chosen: Mapping[str, int], samples: Samples) -> None:
    """Chooses a subnet, in place, its batch statistics those of the samples."""
    own.eval()
    choose(own, chosen)
    reestimate_norms(own, list(samples.batches), len(samples))


def _seen(data: Any, samples: int | None) -> Samples:
    return read_samples(data, samples or _CALIBRATED, 64, 0)


def _quantized(own: nn.Module, bits: int | None, how: tuple[bool, bool], seen: Samples) -> None:
    """Steps where there are none, fewer bits where there are more."""
    now = bits_of(own)
    if now is None:
        for _, layer in layers_of(own):
            layer.turn()
        if bits is not None:
            give_steps(own, bits, how[0], seen.batches, how[1])
    elif bits is None:
        raise ConfigError(f"this supernet has {now} bits already; train it at {now} bits or fewer, e.g. bits={now}")
    else:
        inherit(own, bits)


def _probed(own: nn.Module, seen: Samples) -> Any:
    own.eval()
    with torch.no_grad():
        return run(own, seen.first(_PROBED), device_of(own))


def _state(own: nn.Module, recipe: Recipe, seed: int) -> TrainingState:
    own.requires_grad_(True)
    how = recipe.optimizer
    groups = groups_of_supernet(own, how.rate, how.step_rate, how.decay)
    return TrainingState(recipe, own, None, {}, seed, groups=groups)


def _teaching(context: Context, teacher: nn.Module | None) -> Context:
    if teacher is None:
        return context
    own = copy.deepcopy(teacher).float().eval().to(context.device)
    return replace(context, prepared=replace(context.prepared, model=own))


def _taught(teacher: nn.Module | None) -> dict[str, Any]:
    return {"teacher": None if teacher is None else fingerprint([*teacher.parameters(), *teacher.buffers()])}
