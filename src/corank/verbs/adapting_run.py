"""What an adapter's training needs before its first step, and what of it ships: factors beside codes, a last layer."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from corank.calibration import Context, run, seed_of
from corank.calibration.batches import Batches
from corank.checkpoint import fingerprint
from corank.coded_weight import CodedWeight
from corank.devices import device_of
from corank.errors import ConfigError, ModelError
from corank.layers import PreparedModel, module_named
from corank.losses import logits_of
from corank.notes import note
from corank.refine import Refinement
from corank.refine.task_factors import TaskFactors, TaskWeight
from corank.refine.trainable_model import TrainableModel, coded_layers
from corank.storage.task_adapter import HEAD_CODEC, TaskAdapter, TaskHead, adapted, base_identity
from corank.training.finish import check_alike
from corank.training.recipe import Recipe
from corank.training.state import TrainingState
from corank.verbs.adapter_ranks import Ranks, adapter_room
from corank.verbs.class_head import head_name

__all__ = ["AdaptingAsked", "AdaptingRun"]

_USUAL = 4  # rank
_PROBED = 32  # samples that both forms are compared on
_BIAS_SHARE = 0.3  # of the learning rate, for biases and norms, which are not in units of their layer's weights


@dataclass(frozen=True)
class AdaptingAsked:
    """What was asked for; see :func:`corank.adapt`.

    Attributes:
        size: in bytes.
        named: classes that the data names; None where it names none.
    """

    rank: int | Mapping[str, int] | None
    size: int | None
    classes: int | None
    teacher: nn.Module | None
    biases: bool
    bits: int
    named: int | None

    def __post_init__(self) -> None:
        if self.rank is not None and self.size is not None:
            raise ConfigError("rank and size were both given; choose one: the size sets the ranks")
        if self.classes is not None and (type(self.classes) is not int or self.classes < 1):
            raise ConfigError(f"classes={self.classes!r}: of the task, from 1; None for those of the labels")
        if type(self.biases) is not bool:
            raise ConfigError(f"biases={self.biases!r}: True, or False for those of the base")


@dataclass(frozen=True)
class AdaptingRun:
    """A training of an adapter that is set up.

    Attributes:
        base: its identity.
        recipe: to carry out.
        student: the base as it trains.
        factors: what trains beside the codes, by layer.
        head: the task's last layer, by its name; empty where it has the base's.
        start: biases and norms before the first step.
        prepared: the network that is learned from, or the base; ``outputs`` are of the task's classes.
    """

    base: str
    recipe: Recipe
    student: TrainableModel
    factors: Mapping[str, TaskFactors]
    head: Mapping[str, TaskWeight]
    start: Mapping[str, Tensor]
    prepared: PreparedModel

    @classmethod
    def of(cls, model: nn.Module, batches: Batches, asked: AdaptingAsked, recipe: Recipe, seed: int) -> AdaptingRun:
        """Sets a training up; the model, where it is to be worked on, is not changed.

        Raises:
            ConfigError, ModelError, DataError, BudgetError: for what cannot train.
        """
        device, probe, identity = device_of(model), batches.first(2), base_identity(model)
        outputs = run(model, probe, device)
        teacher = None if asked.teacher is None else copy.deepcopy(asked.teacher).float().eval().to(device)
        learned = None if teacher is None else run(teacher, probe, device)
        head = _fresh_head(model, _classes(outputs, learned, batches, asked), seed)
        beside = TaskAdapter(identity, head=head, iterations=recipe.iterations)
        own = model if head is None else adapted(model, beside)
        outputs = run(own, probe, device)
        if learned is not None:
            _check_taught(outputs, learned)
        trained = _trained_vectors(own, head, asked.biases)
        room = adapter_room(own, asked.bits, None if head is None else head.name)
        if asked.size is None:
            ranks = room.ranks(_USUAL if asked.rank is None else asked.rank)
        else:
            held = {name: one for name, one in trained.items() if head is None or name != f"{head.name}.bias"}
            ranks = room.within(asked.size, replace(beside, vectors=held))
        if not (ranks or trained or head):
            raise ConfigError("nothing trains: rank=0 with biases=False and the base's last layer; classes=N renews it")
        factors, heads = _factors(own, ranks, room.bits, recipe.optimizer.rate, seed), dict[str, TaskWeight]()
        if head is not None:
            layer, weight = coded_layers(own)[head.name], head.weight.decode().to(device)
            heads[head.name] = TaskWeight(layer, weight, HEAD_CODEC, recipe.optimizer.rate)
        rates = Refinement(bias_rate=_BIAS_SHARE * recipe.optimizer.rate)
        student = TrainableModel(own, rates, {**factors, **heads}, trained)
        prepared = PreparedModel(student.network if teacher is None else teacher, outputs=outputs)
        return cls(identity, recipe, student, factors, heads, _copied(student.vectors), prepared)

    def begun(self, seed: int) -> TrainingState:
        """The training before its first step."""
        by_rate: dict[float, list[Tensor]] = {}
        for _, parameter, rate in self.student.trained():
            by_rate.setdefault(rate, []).append(parameter)
        state = TrainingState(self.recipe, self.student, None, {}, seed)
        state.groups = [{"params": own, "lr": rate} for rate, own in by_rate.items()]
        return state

    def identity(self, batches: Batches) -> dict[str, Any]:
        """What tells this training from others, for its checkpoint."""
        return {
            "verb": "adapt", "base": self.base, "recipe": self.recipe.to_json(), "samples": batches.identity,
            "trained": {name: list(one.shape) for name, one in self.student.named_parameters()},
            "start": fingerprint(list(self.student.parameters())),
        }  # fmt: skip

    @torch.no_grad()
    def adapter(self) -> TaskAdapter:
        """What ships, on the CPU: factors that are not zero, vectors that have moved, the last layer."""
        cpu = torch.device("cpu")
        found = {name: one.factors() for name, one in self.factors.items()}
        layers = {name: one.to(cpu) for name, one in found.items() if one is not None}
        vectors = {name: _stored(one, self.start[name]) for name, one in self.student.vectors.items()}
        head = None
        for name, one in self.head.items():
            weight, bias = one.coded(), vectors.pop(f"{name}.bias", None)
            book = HEAD_CODEC.codebook(
                {"scale": weight.codebook.tensors()["scale"].float().to(cpu)}, *weight.codes.shape
            )
            head = TaskHead(name, CodedWeight(weight.codes.to(cpu), book), bias)
        moved = {name: one for name, one in vectors.items() if not torch.equal(one, self.start[name].float().cpu())}
        return TaskAdapter(self.base, layers, moved, head, self.recipe.iterations)

    @torch.no_grad()
    def check(self, found: nn.Module, context: Context) -> None:
        """Raises TrainingError where the network that ships computes something else than the one that trained."""
        if any(layer.inputs is not None for layer in self.student.layers.values()):
            return  # through many layers any difference of rounded inputs grows: see corank.training.finish
        self.student.eval()
        probe, where = context.samples.first(_PROBED), device_of(found)
        check_alike("network", run(self.student, probe, where), run(found, probe, where))


def _copied(vectors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: one.detach().clone() for name, one in vectors.items()}


def _stored(trained: Tensor, start: Tensor) -> Tensor:
    """As fp16 holds it; the start where that is not finite, or where nothing moved."""
    half = trained.detach().to(torch.float16).float()
    kept = ~half.isfinite() | (trained.detach() == start)
    return torch.where(kept, start.float(), half).cpu()


def _factors(model: nn.Module, ranks: Ranks, bits: Mapping[str, int], rate: float, seed: int) -> dict[str, TaskFactors]:
    layers = coded_layers(model)
    return {
        name: TaskFactors(layers[name], rank, bits[name], rate, seed_of(seed, "factors", number))
        for number, (name, rank) in enumerate(ranks.items())
    }


def _trained_vectors(model: nn.Module, head: TaskHead | None, biases: bool) -> dict[str, Tensor]:
    """Biases and norms that train: all, or those of a new last layer alone."""
    own = {name: one.detach() for name, one in model.named_parameters() if one.is_floating_point() and one.dim() == 1}
    return {name: one for name, one in own.items() if biases or (head is not None and name == f"{head.name}.bias")}


def _classes(outputs: Any, learned: Any, batches: Batches, asked: AdaptingAsked) -> int | None:
    """How many rows a new last layer has; None where the base's stays."""
    own, taught = logits_of(outputs), None if learned is None else logits_of(learned)
    if asked.classes is not None:
        return asked.classes
    found = asked.named
    if taught is not None:
        found = taught.shape[-1]
    elif found is None and batches.source.labels and all(one.dim() == 1 for one in batches.source.labels):
        found = 1 + max(int(one.max()) for one in batches.source.labels)
    if own is None or own.dim() != 2 or found is None or found < 1 or found == own.shape[1]:
        return None
    note(f"the task has {found} classes and the base {own.shape[1]}: its last layer is the task's own, of 8-bit codes")
    return found


def _fresh_head(model: nn.Module, classes: int | None, seed: int) -> TaskHead | None:
    """A last layer of so many rows, as torch starts one; None for none."""
    if classes is None:
        return None
    name = head_name(model)
    old = cast(nn.Linear, module_named(model, name))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed_of(seed, "head", classes))
        fresh = nn.Linear(old.in_features, classes, dtype=torch.float32, device="cpu")
    weight = fresh.weight.detach()
    book = HEAD_CODEC.fit(weight)
    return TaskHead(name, CodedWeight(book.nearest(weight), book), torch.zeros(classes, dtype=torch.float32))


def _check_taught(outputs: Any, learned: Any) -> None:
    given, expected = ([tuple(one.shape) for one in tree_leaves(each)] for each in (learned, outputs))
    if given != expected:
        raise ModelError(
            f"the teacher gives outputs of shapes {str(given)[:100]} where the network gives {str(expected)[:100]}; "
            "a teacher has the task's classes"
        )
