"""The training loop: every step a function of the seed and its number, so that a killed run goes on to the same end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_leaves

from corank.calibration import Context, run, seed_of
from corank.checkpoint import Checkpoint
from corank.errors import DataError, TrainingError
from corank.memory import is_out_of_memory
from corank.precision import native_bfloat16
from corank.processes import all_reduce, number_of_processes
from corank.training.ahead import reading_ahead
from corank.training.failures import Before, NotFiniteError, all_finite, not_finite, too_large
from corank.training.feed import Feed, Part
from corank.training.norms import NormAfter
from corank.training.optimizers import build, groups_of
from corank.training.restored import restored, saved
from corank.training.state import TrainingState
from corank.training.synchronized import synchronized_norms
from corank.watching import evaluating

__all__ = ["train_steps"]

_STEP = "training"
_KEPT_EVERY = 25  # steps


def train_steps(
    state: TrainingState, norms: list[NormAfter], feed: Feed, context: Context
) -> tuple[dict[str, float], ...]:
    """Trains ``state.model`` in place, for the steps of ``state.recipe``.

    Args:
        state: at its start, layers parametrized.
        norms: that will be folded: their gains are kept positive.
        feed: samples, float outputs and the loss.
        context: its checkpoint keeps the state every 25 steps, and one found in it is continued.

    Returns:
        One entry for each step: iteration, loss, where there are penalties the task's loss without them, and what
        callbacks measured; ``state.history`` while it trains.

    Raises:
        TrainingError: for numbers that are not finite, or too little memory; the last good state is in the checkpoint.
    """
    recipe, checkpoint = state.recipe, context.checkpoint
    loop = _Loop(state, norms, feed)
    history = state.history = restored(checkpoint.load(_STEP), state, loop.average)
    state.step = len(history)
    with state.closing, reading_ahead(feed, range(len(history), recipe.iterations)) as loop.parts:
        for part in (*recipe.penalties, *recipe.callbacks):
            part.start(state)
        for number in range(len(history), recipe.iterations):
            state.step, state.measured = number, {}
            before = Before(state) if checkpoint.keeps else None
            try:
                with synchronized_norms(state.model):
                    loss = loop.step()
                history.append({"iteration": number + 1, **state.measured})
                last = number + 1
                if last % _KEPT_EVERY == 0 or last == recipe.iterations:
                    loop.check()
                    loop.keep(checkpoint)
            except Exception as error:
                if not (isinstance(error, NotFiniteError) or is_out_of_memory(error)):
                    raise
                if before is not None and loop.undone(before, error):
                    loop.keep(checkpoint)
                raise loop.failure(error, checkpoint.keeps) from error
            context.progress(f"training, loss {loss:.3g}", last, recipe.iterations)
        state.step = recipe.iterations
        for callback in recipe.callbacks:
            callback.finished(state)
    loop.finish()
    return tuple(history)


class _Loop:
    def __init__(self, state: TrainingState, norms: list[NormAfter], feed: Feed) -> None:
        self._state, self._norms, self._feed = state, norms, feed
        self.parts: Callable[[int], Iterator[Part]] = feed.parts  # or what reads ahead
        recipe, model = state.recipe, state.model
        model.train(recipe.start == "scratch" or recipe.loss == "labels")
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                module.train(recipe.norms == "adapt")
        for layer in state.layers.values():
            for way in (layer.weight, layer.inputs):
                if way is not None:
                    way.train()
        state.optimizer = build(recipe.optimizer, state.groups or groups_of(state))
        for group in state.optimizer.param_groups:
            group["peak"] = group["lr"]
        self._trained = [one for group in state.optimizer.param_groups for one in group["params"]]
        self._average_of = recipe.average
        self.average = [one.detach().clone() for one in self._trained] if recipe.average else []
        twice = any(penalty.differentiates_twice() for penalty in recipe.penalties)
        wanted = recipe.precision == "bfloat16" or (recipe.precision == "auto" and native_bfloat16(state.device))
        self._bfloat16 = state.bfloat16 = wanted and not twice
        self._moves, self._at_once = False, 1
        self._turns: bool | None = None  # images' channels last; None until a pass was tried

    def step(self) -> float:
        """One step; returns the loss before it."""
        state, recipe = self._state, self._state.recipe
        optimizer = state.optimizer
        assert optimizer is not None
        self._moves = False
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * recipe.schedule(state.place)
        optimizer.zero_grad(set_to_none=True)
        total = self._backward()
        gradients = [one.grad for one in self._trained if one.grad is not None]
        if not all_finite([total, *gradients]):
            raise NotFiniteError("gradient" if bool(torch.isfinite(total).all()) else "loss")
        self._moves = True
        for callback in recipe.callbacks:
            callback.gradients_ready(state)
        if recipe.optimizer.clip:
            torch.nn.utils.clip_grad_norm_(self._trained, recipe.optimizer.clip)
        optimizer.step()
        loss, task = total.tolist()
        state.measured["loss"] = loss
        if recipe.penalties:
            state.measured["task"] = task
        self._after()
        return loss

    def check(self) -> None:
        """Raises NotFiniteError for a step that led to what is not."""
        if not all_finite(self._trained):
            raise NotFiniteError("result")

    def undone(self, before: Before, error: Exception) -> bool:
        """Undoes a step that failed; whether the state is then, in all processes, that before it, and a good one."""
        if is_out_of_memory(error):
            for one in self._trained:
                one.grad = None
            if number_of_processes() > 1:  # the others know nothing of it
                return False
        if self._moves:
            return False
        before.restore()
        return all_finite(self._trained)

    def failure(self, error: Exception, kept: bool) -> TrainingError:
        """What is said of a step that failed."""
        if isinstance(error, NotFiniteError):
            return not_finite(self._state, str(error), kept)
        return too_large(self._state, self._at_once, kept)

    def _backward(self) -> Tensor:
        """Adds the gradients of a step's batch, part by part; returns ``(2,)``: the loss, and without penalties."""
        state = self._state
        total = torch.zeros(2, dtype=torch.float32, device=state.device)
        for place, part in enumerate(self.parts(state.step)):
            state.share, state.first = part.share, place == 0
            self._at_once = len(tree_leaves(part.inputs)[0])
            with _seeded(seed_of(state.seed, "draws", state.step, part.start)):
                loss, task = self._loss(part)
                (loss * part.share).backward()
            total += torch.stack([loss.detach(), task.detach()]).reshape(2) * part.share
        if number_of_processes() > 1:
            for one in self._trained:
                one.grad = torch.zeros_like(one) if one.grad is None else one.grad
            all_reduce([total, *(one.grad for one in self._trained if one.grad is not None)])
        return total

    def _loss(self, part: Part) -> tuple[Tensor, Tensor]:
        state, feed = self._state, self._feed
        state.batch, state.labels = self._laid_out(part.inputs), part.labels
        with torch.autocast(state.device.type, torch.bfloat16, enabled=self._bfloat16):
            if feed.teacher is not None:
                state.reference = feed.teacher.outputs(state.step, state.batch, part.start)
            for callback in state.recipe.callbacks:
                callback.inputs_ready(state, self._task)
            state.output = run(state.model, state.batch, state.device)
        task = feed.objective(state)
        loss = task + sum(penalty(state, task) for penalty in state.recipe.penalties)
        for callback in state.recipe.callbacks:
            loss = callback.loss_ready(state, loss)
        return loss, task

    def _task(self, inputs: Any) -> Tensor:
        """The task's loss of other inputs in the place of the batch's."""
        state = self._state
        state.output = run(state.model, inputs, state.device)
        return self._feed.objective(state)

    def _laid_out(self, inputs: Any) -> Any:
        """Images with their channels last where they pass in bfloat16: convolutions are a third faster so."""
        if not (self._bfloat16 and isinstance(inputs, Tensor) and inputs.dim() == 4):
            return inputs
        turned = inputs.contiguous(memory_format=torch.channels_last)
        if self._turns is None:
            self._turns = self._runs(turned[:2])
        return turned if self._turns else inputs

    def _runs(self, inputs: Tensor) -> bool:
        """Whether the network takes images so: one that calls ``view()`` on what a convolution gave may not."""
        state = self._state
        try:
            with (
                torch.no_grad(),
                evaluating(state.model),
                _seeded(0),
                torch.autocast(state.device.type, torch.bfloat16),
            ):
                run(state.model, inputs, state.device)
        except DataError:
            return False
        finally:
            state.outputs.clear()  # what was watched
        return True

    @torch.no_grad()
    def _after(self) -> None:
        state = self._state
        for norm in self._norms:
            norm.keep_positive()
        for _, layer, weight in state.weights():
            weight.after_step(layer.matrix, state.step)
        for callback in state.recipe.callbacks:
            callback.step_done(state)
        for kept, one in zip(self.average, self._trained, strict=False):
            kept.lerp_(one.detach(), 1 - self._average_of)

    def keep(self, checkpoint: Checkpoint) -> None:
        """Saves the state, where there is a folder for it."""
        if checkpoint.keeps:
            checkpoint.save(_STEP, *saved(self._state, self.average, self._state.history))

    @torch.no_grad()
    def finish(self) -> None:
        """Puts the averages in the place of what was averaged, and frees what only steps need."""
        assert self._state.optimizer is not None
        self._state.optimizer.zero_grad(set_to_none=True)
        self._state.optimizer = None
        for kept, one in zip(self.average, self._trained, strict=False):
            one.copy_(kept)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Draws by torch's own generators within, such as dropout's, hang on the seed alone."""
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices=devices):
        # torch.manual_seed formats the stack each time while CUDA has not begun: up to a millisecond
        torch.default_generator.manual_seed(seed)
        if devices:
            torch.cuda.manual_seed_all(seed)
        yield
