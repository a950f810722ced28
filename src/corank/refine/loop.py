"""The distillation loop: at most a few hundred steps from the float network, over what ships anyway."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from corank.calibration import Context, live_numbers, mean_loss, outputs_of, run
from corank.calibration.augment import flip_and_shift
from corank.errors import DataError
from corank.losses import distance
from corank.notes import note
from corank.padding import masks_of, real_rows
from corank.processes import all_reduce, number_of_processes, shard
from corank.refine.refinement import Refinement
from corank.refine.trainable_model import TrainableModel, coded_layers
from corank.watching import watched

__all__ = ["refine"]

_STEP = "refinement"
_JUDGED = 512  # samples that decide whether the refined model is kept
_KEPT_EVERY = 25  # steps
_LIVE_BYTES = 3 << 30  # of activations that wait for the backward pass


def refine(
    model: nn.Module, teacher: nn.Module, refinement: Refinement, context: Context
) -> tuple[Mapping[str, float], ...]:
    """Tunes a coded model in place: scales, biases, norms, adapter factors and, if asked, the codes themselves.

    Norm statistics stay as they are. If the distance on (up to 512 of) the samples is not smaller afterwards, the
    model is left as it was; with ``augment`` it is the mean of those as they are and flipped and shifted. Batches too
    large for memory are run in parts.

    Args:
        model: holds :class:`~corank.layers.CodedLayer` modules.
        teacher: the float model, norms folded as in ``model``.
        refinement: how.
        context: of the run: its samples and its loss, a seed that draws batches and augmentation, and a checkpoint that
            keeps the state every 25 steps; a state found in it is continued.

    Returns:
        One entry for each step: iteration, divergence; the last one also has the distances before and after on the
        samples that judge the result.
    """
    if refinement.iterations == 0:
        return ()
    steps = _Steps(TrainableModel(model, refinement), teacher, refinement, context)
    judge = _Judge(teacher, refinement, context)
    plain, before = judge(model)
    steps.set_pace(refinement.pace(plain))
    kept = context.checkpoint
    history = steps.restore(kept.load(_STEP))
    for number in range(len(history), refinement.iterations):
        history.append({"iteration": number + 1, "divergence": steps.step(number)})
        if (number + 1) % _KEPT_EVERY == 0:
            kept.save(_STEP, steps.state(), {"history": history})
        context.progress("refining", number + 1, refinement.iterations)
    unrefined = copy.deepcopy(model.state_dict())
    steps.student.harden_into(model)
    _, after = judge(model)
    if not after < before:
        model.load_state_dict(unrefined)
    history[-1] = {**history[-1], "before": before, "after": after}
    return tuple(history)


class _Steps:
    """One refinement under way."""

    def __init__(self, student: TrainableModel, teacher: nn.Module, refinement: Refinement, context: Context) -> None:
        self.student, self._teacher, self._loss, self._how = student, teacher, context.loss, refinement
        self.device = next(iter(student.latents.values())).device
        self._seed, samples = context.seed, context.samples
        generator = torch.Generator().manual_seed(self._seed)
        self._draws = samples.draws(min(refinement.batch_size, len(samples)), generator)
        self._load = samples.loader()
        by_rate: dict[float, list[Tensor]] = {}  # all of a rate together: a step takes one pass over each group
        for _, parameter, rate in student.trained():
            by_rate.setdefault(rate, []).append(parameter)
        self.optimizer = torch.optim.Adam([{"params": own, "lr": rate, "peak": rate} for rate, own in by_rate.items()])
        live = live_numbers(student.model, samples.first(1), self.device)
        even = -(-min(refinement.batch_size, len(samples)) // number_of_processes())
        self._part = max(1, min(_LIVE_BYTES // (8 * live), even))
        self._features = _Features(student.model, teacher) if refinement.features > 0 else None
        self._bfloat16 = _runs_in_bfloat16(refinement, teacher, samples.first(self._part), self.device)

    def set_pace(self, factor: float) -> None:
        """Multiplies all learning rates."""
        for group in self.optimizer.param_groups:
            group["peak"] *= factor

    def step(self, number: int) -> float:
        """One gradient step; returns the loss before it."""
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * _one_cycle(number / self._how.iterations)
        batch = self._load(next(self._draws))
        if self._how.augment and isinstance(batch, Tensor):
            views = torch.Generator().manual_seed((self._seed << 20) + number)  # a step of its own, to resume at any
            batch = flip_and_shift(batch, views)
        total, count = torch.zeros(1, dtype=torch.float32, device=self.device), len(tree_leaves(batch)[0])
        self.optimizer.zero_grad()
        for _, start in shard(range(0, count, self._part)):
            self.student.draw_drops((((self._seed << 20) + number) << 10) + start)
            part = tree_map(lambda leaf, at=start: leaf[at : at + self._part], batch)
            weight = len(tree_leaves(part)[0]) / count
            total += weight * self._backward(part, weight)
        self._add_up(total)
        self.optimizer.step()
        return float(total)

    def _add_up(self, total: Tensor) -> None:
        """Sums loss and gradients over the processes; a process without a part adds nothing."""
        if number_of_processes() == 1:
            return
        for _, parameter, _ in self.student.trained():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        all_reduce(
            [total, *(parameter.grad for _, parameter, _ in self.student.trained() if parameter.grad is not None)]
        )

    def state(self) -> dict[str, Tensor]:
        """All that trains and Adam's moments of it."""
        found: dict[str, Tensor] = {}
        for name, parameter, _ in self.student.trained():
            found[name] = parameter
            moments = self.optimizer.state.get(parameter, {})  # empty where no gradient came by
            found.update({f"{kind}:{name}": moment for kind, moment in moments.items()})
        return found

    def restore(self, found: tuple[dict[str, Tensor], dict[str, Any]] | None) -> list[dict[str, float]]:
        """Goes on from a kept state; returns the history of the steps that led to it."""
        if found is None:
            return []
        tensors, note = found
        for name, parameter, _ in self.student.trained():
            with torch.no_grad():
                parameter.copy_(tensors[name])
            for kind in ("step", "exp_avg", "exp_avg_sq"):
                if (moment := tensors.get(f"{kind}:{name}")) is not None:
                    where = torch.device("cpu") if kind == "step" else parameter.device
                    self.optimizer.state[parameter][kind] = moment.to(where)
        for _ in note["history"]:
            next(self._draws)
        return list(note["history"])

    def _backward(self, batch: Any, weight: float) -> float:
        with (
            nullcontext() if self._features is None else self._features.watching(),
            torch.autocast(self.device.type, torch.bfloat16, enabled=self._bfloat16),
        ):
            with torch.no_grad():
                reference = run(self._teacher, batch, self.device)
            output = self.student(batch, self.device)
        found = distance(self._loss, _as_float(output), _as_float(reference), batch)
        whole = found
        if self._features is not None:
            whole = found + self._how.features * self._features.take(masks_of(batch))
        (whole * weight).backward()
        return float(found.detach())


class _Features:
    """The coded layers' outputs in both networks during one pass."""

    def __init__(self, student: nn.Module, teacher: nn.Module) -> None:
        self._student = dict(coded_layers(student))
        modules = dict(teacher.named_modules(remove_duplicate=False))
        self._teacher = {name: modules[name] for name in self._student}
        self._given: dict[str, Tensor] = {}
        self._expected: dict[str, Tensor] = {}

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Within, outputs are kept for :meth:`take`."""
        with (
            watched(self._student, lambda name: _keeper(self._given, name)),
            watched(self._teacher, lambda name: _keeper(self._expected, name)),
        ):
            yield

    def take(self, masks: Sequence[Tensor]) -> Tensor:
        """The mean over layers of the squared error relative to the float output's energy, padding left out.

        Layers that the two networks gave other numbers of rows (experts that tokens are routed to) have none.
        """
        errors = []
        for name, given in self._given.items():
            expected = self._expected.get(name)
            if expected is None or expected.shape != given.shape or not given.numel():
                continue
            if not self._student[name].geometry.kernel:
                given, expected = real_rows(masks, given), real_rows(masks, expected)
            expected = expected.float()
            errors.append((given.float() - expected).square().sum() / expected.square().sum().clamp(min=1e-12))
        self._given.clear()
        self._expected.clear()
        return torch.stack(errors).mean() if errors else torch.zeros((), dtype=torch.float32)


def _runs_in_bfloat16(how: Refinement, teacher: nn.Module, batch: Any, device: torch.device) -> bool:
    """Whether passes are to run under bfloat16 autocast, and can: a ``forward()`` that puts what a layer gave into a
    float32 tensor of its own cannot."""
    if not how.uses_bfloat16(device) or how.precision != "auto":
        return how.uses_bfloat16(device)
    try:
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16):
            run(teacher, batch, device)
    except DataError:
        note("refined in float32, as the network does not run under bfloat16 autocast, in which this device is faster")
        return False
    return True


def _keeper(found: dict[str, Tensor], name: str) -> Callable[..., None]:
    def keep(_module: nn.Module, _inputs: object, _named: object, output: Tensor) -> None:
        found[name] = output

    return keep


class _Judge:
    """Mean distance from the float model on the first samples: as they are, and flipped and shifted as the steps are.

    The codes were fitted to the samples as they are, what is refined was not: only both together are fair to both.
    """

    def __init__(self, teacher: nn.Module, how: Refinement, context: Context) -> None:
        self._loss = context.loss
        plain = list(context.samples.take(_JUDGED).batches)
        self._sets = [plain]
        if how.augment and all(isinstance(batch, Tensor) and batch.dim() == 4 for batch in plain):
            views = torch.Generator().manual_seed(context.seed)
            self._sets.append([flip_and_shift(batch, views) for batch in plain])
        self._references = [outputs_of(teacher, batches) for batches in self._sets]

    def __call__(self, model: nn.Module) -> tuple[float, float]:
        """The distance on the samples as they are, and the one that decides: the mean of both."""
        pairs = zip(self._sets, self._references, strict=True)
        found = [mean_loss(model, batches, references, self._loss) for batches, references in pairs]
        return found[0], sum(found) / len(found)


def _one_cycle(place: float, warm: float = 0.1) -> float:
    """The learning rate's factor: up linearly over the first tenth, down along a cosine to zero."""
    if place < warm:
        return 0.1 + 0.9 * place / warm
    return 0.5 * (1 + math.cos(math.pi * (place - warm) / (1 - warm)))


def _as_float(output: Any) -> Any:
    return tree_map(
        lambda leaf: leaf.float() if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf, output
    )
