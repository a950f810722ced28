"""What a tuning was asked for, and what each kind of space measures."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from corank.calibration import Samples
from corank.checkpoint import fingerprint
from corank.errors import BudgetError, ConfigError
from corank.export.int8_configured import ConfiguredInt8
from corank.export.int8_settings import sums_overflow
from corank.identity import function_identity
from corank.storage.artifact import serialized
from corank.tuning.descriptors import descriptors
from corank.tuning.int8_space import INT8, Int8Maker
from corank.tuning.measuring import Made, Maker, Measuring
from corank.tuning.own_space import own_space, quantize_arguments, smallest_arguments
from corank.tuning.records import Record, shipped_records
from corank.tuning.selection import Selection
from corank.tuning.space import Configuration, Space
from corank.tuning.trial import Goal, Measure, Measurement
from corank.tuning.tuners import Task
from corank.verbs.opening import ContextOptions, open_context
from corank.verbs.quantize import quantize
from corank.verbs.tuning_data import Parts, read_parts

__all__ = ["INT8_SPACE", "OWN_SPACE", "Opened", "Score", "TuneOptions", "asked_space", "open_tuning"]

INT8_SPACE, OWN_SPACE = "int8", "corank"
Score = Callable[[Configuration], "float | Measurement | Mapping[str, Any]"]


@dataclass(frozen=True)
class TuneOptions:
    """As for :func:`corank.tune`."""

    space: Space
    goal: Goal
    score: Score | None
    samples: int
    selection: int
    rungs: tuple[float, ...]
    latency: bool
    seed: int
    device: str | torch.device
    reference: str | None


@dataclass(frozen=True)
class Opened:
    """What a study measures.

    Attributes:
        task: for the tuner.
        measure: of a configuration.
        maker: of its file; None where a function of the user's measures.
        final: the same as ``measure`` on samples that nothing was chosen by; None likewise.
        scored: what the score is.
        identity: what tells this study from others.
    """

    task: Task
    measure: Measure
    maker: Maker | None
    final: Measuring | None
    scored: str
    identity: dict[str, Any] = field(default_factory=dict)


def asked_space(space: str | Space, sized: bool) -> Space:
    """The space of that name, or the one given.

    Raises:
        ConfigError: for another name.
    """
    if isinstance(space, Space):
        return space
    if space == INT8_SPACE:
        return INT8
    if space == OWN_SPACE:
        return own_space(sized)
    raise ConfigError(
        f"space={space!r}: 'corank' for a file of corank, 'int8' for ONNX Runtime, or a corank.tuning.Space with a "
        "score of your own"
    )


def open_tuning(model: Any, data: Any, evaluation: Any, options: TuneOptions) -> Opened:
    """Reads the data, runs the float network, and says how a configuration is measured.

    Raises:
        ConfigError, ModelError, DataError: for bad input.
    """
    ours = options.space.name in (INT8.name, own_space(True).name, own_space(False).name)
    if options.score is not None or not ours:
        return _of_function(options)
    if not isinstance(model, nn.Module) or data is None:
        raise ConfigError(f"the space {options.space.name!r} needs a model and data: tune(model, data, space=...)")
    parts = read_parts(data, evaluation, (options.samples, options.selection), options.seed)
    where = "cpu" if options.space.name == INT8.name else options.device
    network = copy.deepcopy(model).eval()  # the caller's stays in the mode that it is in
    network = network.cpu().float() if options.space.name == INT8.name else network
    context = open_context(network, parts.calibration, ContextOptions(seed=options.seed, device=where))
    chosen, final = (Selection.of(network, *part) for part in (parts.selection, parts.final))
    if options.space.name == INT8.name:
        maker: Maker = Int8Maker(ConfiguredInt8(context.prepared, parts.calibration, sums_overflow()))
    else:
        maker = QuantizeMaker(network, parts.calibration, options)
    about = descriptors(context.prepared)
    reference = chosen.reference if options.goal.least is None else None
    task = Task(options.space, about, reference, shipped_records(options.space.name))
    measuring = Measuring(maker, chosen, options.latency)
    identity = _identity(options, chosen.scored) | _fingerprints(network, parts)
    return Opened(task, measuring, maker, replace(measuring, selection=final), chosen.scored, identity)


@dataclass(frozen=True)
class QuantizeMaker:
    """Makes a file of corank with the settings of a configuration.

    Attributes:
        model: the float network.
        samples: calibration samples, of which a cheap look takes the first.
        options: size, seed, device and the model's name.
    """

    model: nn.Module
    samples: Samples
    options: TuneOptions

    def __call__(self, configuration: Configuration, share: float) -> Made:
        given = quantize_arguments(configuration, self.options.goal.most)
        samples = self.samples.take(math.ceil(share * len(self.samples)))
        about = {"seed": self.options.seed, "device": self.options.device, "reference": self.options.reference}
        try:
            made = quantize(self.model, samples, **given, **about)
        except BudgetError:
            # Its smallest file says how far the size is, to the tuner and, where none keeps to it, to the caller.
            made = quantize(self.model, samples, **smallest_arguments(configuration), **about)
        return Made(serialized(made), made)


def record_of_study(opened: Opened, name: str, found: list[tuple[Configuration, Measurement]]) -> Record:
    """What was measured, for tuners of other models."""
    task = opened.task
    samples = max((one.samples or 0 for _, one in found), default=0)
    trials = tuple((configuration, one.score) for configuration, one in found)
    return Record(task.space.name, name, dict(task.descriptors), task.reference or 0.0, samples, trials)


def _of_function(options: TuneOptions) -> Opened:
    score = options.score
    if not callable(score):
        raise ConfigError(
            f"the space {options.space.name!r} is your own: tune(space=..., score=function), which takes a "
            "configuration and returns a number, the higher the better"
        )

    def measure(configuration: Configuration, _share: float) -> Measurement:
        found = score(dict(configuration))
        if isinstance(found, Measurement):
            return found
        return Measurement(**found) if isinstance(found, Mapping) else Measurement(float(found))

    task = Task(options.space, records=shipped_records(options.space.name))
    identity = _identity(options, "score") | {"function": function_identity(score)}
    return Opened(task, measure, None, None, "score", identity)


def _identity(options: TuneOptions, scored: str) -> dict[str, Any]:
    return {
        "version": version("corank"), "space": options.space.to_json(), "goal": options.goal.to_json(),
        "rungs": list(options.rungs), "seed": options.seed, "score": scored,
    }  # fmt: skip


def _fingerprints(model: nn.Module, parts: Parts) -> dict[str, str]:
    tensors = [
        leaf
        for samples in (parts.calibration, parts.selection[0], parts.final[0])
        for leaf in tree_leaves(samples.batches)
    ]
    labels = [one for one in (parts.selection[1], parts.final[1]) if one is not None]
    return {
        "model": fingerprint([*model.parameters(), *model.buffers()])[:16],
        "data": fingerprint([*tensors, *labels])[:16],
    }
