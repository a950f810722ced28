"""Passes that wait before each layer, each batch in a thread of its own.

At every target layer the thread waits until it is told to go on, so all batches stand before the same layer while that
layer is coded, and then see its coded weights. Threads only compute; who waits for whom is fixed, so the result does
not depend on scheduling.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

from corank.calibration.samples import run
from corank.calibration.thread_state import as_here
from corank.watching import input_of, watched, with_input

__all__ = ["PausedPasses", "Stopped"]


class Stopped(BaseException):
    """Ends a pass that nobody needs any further."""


class _Pass:
    """One batch on its way through the model."""

    def __init__(self, owner: PausedPasses, model: nn.Module, batch: Any, device: torch.device) -> None:
        self.owner = owner
        self.layer: int = -1
        self.inputs: Tensor | None = None
        self.finished = False
        self.error: BaseException | None = None
        self._stop = False
        self._go, self._paused = threading.Semaphore(0), threading.Semaphore(0)
        self._work = (model, batch, device)
        self._visited: set[int] = set()
        self._thread = threading.Thread(target=as_here(self._run, device), daemon=True)
        self._thread.start()
        self._paused.acquire()

    def begin(self) -> None:
        """Lets it run on; :meth:`wait` for where it stops."""
        self.inputs = None
        self._go.release()

    def wait(self) -> None:
        self._paused.acquire()
        if self.error is not None:
            raise self.error

    def stop(self) -> None:
        if not self.finished:
            self._stop = True
            self._go.release()
        self._thread.join()

    def pause(self, layer: int, inputs: Tensor) -> None:
        if layer in self._visited:  # a shared layer's later calls
            return
        self._visited.add(layer)
        self.layer, self.inputs = layer, inputs
        self._paused.release()
        self._go.acquire()
        if self._stop:
            raise Stopped

    def _run(self) -> None:
        _current.set(self)
        self._paused.release()
        self._go.acquire()
        try:
            if not self._stop:
                run(*self._work)
        except Stopped:
            pass
        except BaseException as error:  # handed to the thread that waits
            self.error = error
        self.finished = True
        self._paused.release()


_current: ContextVar[_Pass | None] = ContextVar("_current", default=None)


class PausedPasses:
    """All batches walking through a model together; :meth:`close` ends them.

    Args:
        model: the network.
        targets: layers to wait before, by name, in the order they run.
        batches: of inputs.
        device: where the model is.
        ahead: whether :meth:`begin` lets a batch run while others do.
    """

    def __init__(
        self,
        model: nn.Module,
        targets: Mapping[str, nn.Module],
        batches: Sequence[Any],
        device: torch.device,
        ahead: bool = True,
    ) -> None:
        self._order = {name: place for place, name in enumerate(targets)}
        self._changes: dict[int, Callable[[Tensor], Tensor]] = {}
        self._passes: list[_Pass] = []
        self._begun: set[int] = set()
        self._ahead = ahead
        self._watching = ExitStack()
        try:
            self._watching.enter_context(watched(targets, self._hook, before=True))
            for batch in batches:
                self._passes.append(_Pass(self, model, batch, device))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Ends all passes; nothing of them is left in the model."""
        for one in self._passes:
            one.stop()
        self._watching.close()

    def begin(self, batch: int, name: str) -> None:
        """Sends a batch on towards layer ``name`` without waiting for it."""
        if self._ahead:
            self._begin(batch, self._order[name])

    def inputs(self, batch: int, name: str) -> Tensor | None:
        """What layer ``name`` is about to be called with on that batch; None where the batch does not come by it."""
        one, place = self._passes[batch], self._order[name]
        while batch in self._begun or (not one.finished and one.layer < place):
            self._begin(batch, place)
            one.wait()
            self._begun.discard(batch)
        return one.inputs if not one.finished and one.layer == place else None

    def change(self, name: str, change: Callable[[Tensor], Tensor]) -> None:
        """From now on layer ``name`` computes from ``change(inputs)``, in every call of every batch."""
        self._changes[self._order[name]] = change

    def _begin(self, batch: int, place: int) -> None:
        one = self._passes[batch]
        if batch not in self._begun and not one.finished and one.layer < place:
            self._begun.add(batch)
            one.begin()

    def _hook(self, name: str) -> Callable[..., tuple[tuple[Any, ...], dict[str, Any]] | None]:
        place = self._order[name]

        def pause(_module: nn.Module, args: tuple[Any, ...], named: dict[str, Any]):
            one = _current.get()
            if one is None or one.owner is not self:  # a call from elsewhere
                return None
            if input_of(args, named).numel():  # a call with no rows, of an expert that no token is sent to, is none
                one.pause(place, input_of(args, named))
            change = self._changes.get(place)
            return None if change is None else with_input(args, named, change(input_of(args, named)))

        return pause
