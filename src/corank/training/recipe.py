"""A training recipe: plain numbers that say how a network trains. JSON both ways; a person may edit it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from corank.codecs import Uniform
from corank.errors import ConfigError
from corank.files import read_at_most, write_whole
from corank.layers import FOUND
from corank.training.callbacks import Callback
from corank.training.described import described, read
from corank.training.inputs import InputTraining, LearnedStepInputs
from corank.training.penalties import Penalty
from corank.training.weights import STARTS, LearnedStep, WeightTraining

__all__ = ["LOSSES", "Optimizer", "Recipe", "Schedule"]

LOSSES = ("distil", "labels", "both")
AUGMENTATIONS = ("none", "flip", "flip-shift")
NORMS = ("adapt", "frozen")
PRECISIONS = ("auto", "float32", "bfloat16")
_VERSION = 2
_DEFAULTS_THEN = {1: {"augment": "flip-shift"}}  # by earlier formats: what a field that is not written meant
_LARGEST_BYTES = 1_000_000  # of a recipe's file


@dataclass(frozen=True)
class Optimizer:
    """What moves the weights.

    Attributes:
        name: of torch.optim ("adamw", "adam", "sgd", ...), or of timm.optim where that is installed ("adamp", "sgdp").
        rate: peak learning rate of weights, biases and norms.
        step_rate: of what a way of training learns beside them (scales), as a factor of ``rate``.
        decay: decoupled or not as the optimizer has it; of weights alone.
        momentum: of optimizers that take one.
        clip: norm that gradients are clipped to; 0 for none.
    """

    name: str = "adamw"
    rate: float = 2e-3
    step_rate: float = 3.0
    decay: float = 0.0
    momentum: float = 0.9
    clip: float = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise ConfigError(f"Optimizer({self.name!r:.60}): the name of one, e.g. Optimizer('adamw')")
        for name in ("rate", "step_rate", "decay", "momentum", "clip"):
            value = getattr(self, name)
            if type(value) not in (int, float) or not (0 <= value < math.inf):
                raise ConfigError(f"Optimizer({name}={value!r}): a number from 0, e.g. Optimizer({name}=0.001)")


@dataclass(frozen=True)
class Schedule:
    """The learning rate over the steps: up linearly over the first ``warm`` of them, then as ``name`` says.

    Attributes:
        name: "cosine" to ``floor``, "linear" to ``floor``, "constant", or "steps": a tenth at 1/2 and again at 3/4.
        warm: share of the steps.
        floor: where the way down ends, as a factor.
        hold: share of the steps, the last ones, in which the rate stays what it came to.
    """

    name: str = "cosine"
    warm: float = 0.1
    floor: float = 0.0
    hold: float = 0.0

    def __post_init__(self) -> None:
        if self.name not in ("cosine", "linear", "constant", "steps"):
            raise ConfigError(f"Schedule({self.name!r:.60}): 'cosine', 'linear', 'constant' or 'steps'")
        for name in ("warm", "floor", "hold"):
            if type(getattr(self, name)) not in (int, float):
                raise ConfigError(f"Schedule({name}={getattr(self, name)!r:.60}): a number, e.g. Schedule({name}=0.1)")
        if not 0 <= self.warm < 1:
            raise ConfigError(f"Schedule(warm={self.warm!r}): a share of the steps, from 0 to below 1")
        if not 0 <= self.hold < 1 - self.warm:
            raise ConfigError(f"Schedule(hold={self.hold!r}): a share of the steps that warming up leaves, e.g. 0.1")
        if not 0 <= self.floor <= 1:
            raise ConfigError(f"Schedule(floor={self.floor!r}): a factor of the rate, 0 to 1, e.g. 0.02")

    def __call__(self, place: float) -> float:
        """The factor of all rates at ``place``, from 0 (before the first step) to below 1."""
        if place < self.warm:
            return 0.1 + 0.9 * place / self.warm
        left = min(1.0, (place - self.warm) / (1 - self.warm - self.hold))
        if self.name == "cosine":
            return self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * left))
        if self.name == "linear":
            return self.floor + (1 - self.floor) * (1 - left)
        return 1.0 if self.name == "constant" else (1.0 if left < 0.5 else 0.1 if left < 0.75 else 0.01)


@dataclass(frozen=True)
class Recipe:
    """How a network trains with low-bit weights; see :func:`corank.train`.

    Attributes:
        weights: of every layer but the first and last; None trains a float network, which comes back as one.
        inputs: of the same layers; None leaves inputs in float.
        edge: weights of the first and last layer.
        edge_inputs: theirs, where ``inputs`` is not None.
        penalties: added to the loss.
        callbacks: run in this order.
        loss: "distil": from the float network, no labels; "labels": their cross entropy; "both": the mean of the two.
        temperature: of the distillation of logits.
        top_logits: of a language model with a vocabulary of more than 16 times as many tokens: how many of the float
            network's logits are kept for each position, with the mass of the rest, where whole ones are too large to
            keep in memory; 0 for whole ones.
        start: "codes" of ``quantize``, the "float" weights, or "scratch".
        optimizer, schedule: of all that trains.
        iterations: steps, 0 for none.
        batch_size: samples a step, over all processes; of token sequences, as many as hold 64 tokens for each.
        augment: of images: "none", "flip", "flip-shift" (by up to an eighth), others of
            :mod:`corank.calibration.augment`, or "auto": flips, and shifts where samples are seen often.
        norms: whether batch norms "adapt" to the batches, to be estimated anew at the end, or stay "frozen".
        average: decay of an exponential average of what trains, which is what ships then; 0 for none.
        structure: names of :data:`corank.layers.FOUND`: changes of the network that are made wherever they fit, before
            it trains, and stored in the file.
        precision: of the passes: "float32", "bfloat16" (autocast), or "auto": bfloat16 where it is native.
    """

    weights: WeightTraining | None = field(default_factory=LearnedStep)
    inputs: InputTraining | None = None
    edge: WeightTraining | None = field(default_factory=lambda: LearnedStep(Uniform(8, range="mse")))
    edge_inputs: InputTraining | None = field(default_factory=lambda: LearnedStepInputs(8))
    penalties: tuple[Penalty, ...] = ()
    callbacks: tuple[Callback, ...] = ()
    loss: str = "distil"
    temperature: float = 2.0
    top_logits: int = 64
    start: str = "codes"
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    iterations: int = 400
    batch_size: int = 128
    augment: str = "auto"
    norms: str = "adapt"
    average: float = 0.0
    precision: str = "auto"
    structure: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self._check_parts()
        for name, allowed in (("loss", LOSSES), ("start", STARTS), ("norms", NORMS), ("precision", PRECISIONS)):
            value = getattr(self, name)
            if value not in allowed:
                raise ConfigError(f"Recipe({name}={value!r}): one of {', '.join(map(repr, allowed))}")
        if not isinstance(self.augment, str):
            raise ConfigError(f"Recipe(augment={self.augment!r:.60}): a name, e.g. 'none' or 'flip-shift'")
        self._check_counts()
        if type(self.temperature) not in (int, float) or not 0 < self.temperature < math.inf:
            raise ConfigError(f"Recipe(temperature={self.temperature!r}): a positive number, e.g. 2.0")
        if type(self.average) not in (int, float) or not 0 <= self.average < 1:
            raise ConfigError(f"Recipe(average={self.average!r}): a decay from 0 (none) to below 1, e.g. 0.999")
        if not isinstance(self.structure, tuple) or not all(kind in FOUND for kind in self.structure):
            raise ConfigError(f"Recipe(structure={self.structure!r}): a tuple of {', '.join(map(repr, FOUND))}")
        if self.weights is not None and self.start not in self.weights.starts:
            kind = type(self.weights).__name__
            raise ConfigError(f"{kind} starts from {' or '.join(map(repr, self.weights.starts))}, not {self.start!r}")

    def _check_counts(self) -> None:
        for name, what in (("iterations", "of steps, e.g. 400"), ("top_logits", "e.g. 64, or 0 for all")):
            value = getattr(self, name)
            if type(value) is not int or value < 0:
                raise ConfigError(f"Recipe({name}={value!r}): a whole number {what}")
        if type(self.batch_size) is not int or self.batch_size < 1:
            raise ConfigError(f"Recipe(batch_size={self.batch_size!r}): a positive whole number, e.g. 128")

    def _check_parts(self) -> None:
        """Raises ConfigError for a part that is of another kind than its place."""
        for name, (kind, example) in _PLACES.items():
            value, optional = getattr(self, name), kind in (WeightTraining, InputTraining)
            if not (isinstance(value, kind) or (value is None and optional)):
                raise ConfigError(f"Recipe({name}={value!r:.80}): a {kind.__name__}, e.g. Recipe({name}={example})")
        for name, (kind, example) in _LISTS.items():
            value = getattr(self, name)
            if not isinstance(value, tuple) or not all(isinstance(item, kind) for item in value):
                raise ConfigError(f"Recipe({name}={value!r:.80}): a tuple of them, e.g. Recipe({name}={example})")

    @property
    def ends_in_float(self) -> bool:
        """Whether nothing is coded in the end."""
        return self.weights is None or self.weights.stored is None

    def in_words(self) -> str:
        """Weights, inputs, steps and loss in one line, for a reader."""
        found = [f"weights {_told(self.weights)}", f"inputs {_told(self.inputs)}"]
        found += [_told(one) for one in self.penalties]
        steps = f"{self.iterations} steps of {self.batch_size}, loss {self.loss}, from {self.start}"
        return f"{', '.join(found)}; {steps}"

    def replaced(self, **fields: Any) -> Recipe:
        """The same with other fields."""
        return replace(self, **fields)

    def to_json(self) -> dict[str, Any]:
        """Every field that is not at its default, plain, and the version of the form."""
        found: dict[str, Any] = {"format": _VERSION}
        default = Recipe()
        for one in fields(self):
            value = getattr(self, one.name)
            if value == getattr(default, one.name):
                continue
            if one.name == "structure":
                found[one.name] = list(value)
            elif isinstance(value, tuple):
                found[one.name] = [described(item) for item in value]
            elif isinstance(value, (WeightTraining, InputTraining)):
                found[one.name] = described(value)
            elif isinstance(value, (Optimizer, Schedule)):
                usual = getattr(default, one.name)
                own = {part.name: getattr(value, part.name) for part in fields(value)}
                found[one.name] = {key: item for key, item in own.items() if item != getattr(usual, key)}
            else:
                found[one.name] = value
        return found

    @classmethod
    def from_json(cls, data: Any) -> Recipe:
        """The inverse of :meth:`to_json`; checks everything.

        Raises:
            ConfigError: for what is no recipe.
        """
        known = {one.name for one in fields(cls)}
        if not isinstance(data, Mapping):
            raise ConfigError(f'a recipe is {{"format": 2, "weights": {{...}}, ...}}, not {str(data)[:80]!r}')
        version = data.get("format", _VERSION)
        if type(version) is not int or not 1 <= version <= _VERSION:
            raise ConfigError(f"a recipe of format {str(version)[:80]}; this version reads formats up to {_VERSION}")
        unknown = sorted(set(data) - known - {"format"})
        if unknown:
            raise ConfigError(f"a recipe has no field {unknown[0][:80]!r}; it has {', '.join(sorted(known))}")
        given = {**_DEFAULTS_THEN.get(version, {}), **data}
        try:
            return cls(**{name: _read(name, value) for name, value in given.items() if name != "format"})
        except (TypeError, OverflowError, RecursionError) as error:  # of a field whose own class did not expect it
            raise ConfigError(f"a recipe that cannot be: {error}") from error

    def save(self, path: str | Path) -> None:
        """Writes the recipe as JSON."""
        write_whole(path, json.dumps(self.to_json(), indent=1) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> Recipe:
        """Reads a recipe written by :meth:`save`, or by a person."""
        try:
            data = json.loads(read_at_most(path, _LARGEST_BYTES))
        except (OSError, ValueError, RecursionError) as error:
            raise ConfigError(f"cannot read a recipe from {path}: {error}") from error
        return cls.from_json(data)


_PLACES: dict[str, tuple[type[Any], str]] = {
    "weights": (WeightTraining, "StraightThrough(StatsQ(2))"),
    "edge": (WeightTraining, "LearnedStep(Uniform(8))"),
    "inputs": (InputTraining, "LearnedStepInputs(4)"),
    "edge_inputs": (InputTraining, "LearnedStepInputs(8)"),
    "optimizer": (Optimizer, "Optimizer('adamw')"),
    "schedule": (Schedule, "Schedule('cosine')"),
}
_LISTS: dict[str, tuple[type[Any], str]] = {
    "penalties": (Penalty, "(Rate(0.5),)"),
    "callbacks": (Callback, "(Meters(),)"),
}


def _read(name: str, value: Any) -> Any:
    if name in _LISTS:
        if not isinstance(value, list):
            raise ConfigError(f"a recipe's {name} are a list, not {str(value)[:80]!r}")
        return tuple(read(item, _LISTS[name][0]) for item in value)
    if name == "structure":
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise ConfigError(f"a recipe's structure is a list of names, not {str(value)[:80]!r}")
        return tuple(value)
    if name in ("optimizer", "schedule"):
        kind = _PLACES[name][0]
        if not isinstance(value, dict) or set(value) - {one.name for one in fields(kind)}:
            raise ConfigError(f"a recipe's {name} has the fields {', '.join(one.name for one in fields(kind))}")
        return kind(**value)
    if name in _PLACES:
        return None if value is None else read(value, _PLACES[name][0])
    return value


def _told(part: Any) -> str:
    """A part by its name and its bits, such as "straight-through (statsq, 2 bits)"."""
    if part is None:
        return "float"
    kind, coded = described(part)["kind"], part.stored if isinstance(part, WeightTraining) else None
    codec = None if coded is None else described(coded)["kind"]
    holder: Any = part if coded is None else coded
    widths = [getattr(holder, one.name) for one in fields(holder) if one.name == "bits"]
    inner = [] if codec in (None, kind) else [codec]
    inner += [f"{bits:.4g} bit{'' if bits == 1 else 's'}" for bits in widths]
    return f"{kind} ({', '.join(inner)})" if inner else kind
