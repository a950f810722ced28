"""Forward passes that pause at every layer: sequential calibration at the cost of one pass, without tracing.

Each batch runs through the model in a thread of its own. At every target layer the thread waits until it is told to
go on, so all batches stand before the same layer while that layer is coded, and then see its coded weights. Threads
only compute; who waits for whom is fixed, so the result does not depend on scheduling.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from corank.calibration.samples import run

__all__ = ["LayerwisePasses"]


class _Stopped(BaseException):
    """Ends a paused pass."""


class _Pass:
    """One batch on its way through the model."""

    def __init__(self, model: nn.Module, batch: Any, device: torch.device) -> None:
        self.layer: int = -1
        self.inputs: Tensor | None = None
        self.finished = False
        self.error: BaseException | None = None
        self._stop = False
        self._go, self._paused = threading.Semaphore(0), threading.Semaphore(0)
        self._work = (model, batch, device)
        self._visited: set[int] = set()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
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
        self.thread.join()

    def pause(self, layer: int, inputs: Tensor) -> None:
        if layer in self._visited:  # a shared layer's later calls
            return
        self._visited.add(layer)
        self.layer, self.inputs = layer, inputs
        self._paused.release()
        self._go.acquire()
        if self._stop:
            raise _Stopped

    def _run(self) -> None:
        torch.set_num_threads(1)  # a team of workers for every pass would fight over the cores
        self._paused.release()
        self._go.acquire()
        model, batch, device = self._work
        try:
            if not self._stop:
                with torch.no_grad():
                    run(model, batch, device)
        except _Stopped:
            pass
        except BaseException as error:  # handed to the thread that waits
            self.error = error
        self.finished = True
        self._paused.release()


class LayerwisePasses:
    """All batches walking through a model together; use as a context manager."""

    def __init__(self, model: nn.Module, targets: Mapping[str, nn.Module], batches: Sequence[Any]) -> None:
        device = next((tensor.device for tensor in model.parameters()), torch.device("cpu"))
        self._order = {name: place for place, name in enumerate(targets)}
        self._by_thread: dict[int, _Pass] = {}
        self._changes: dict[int, Callable[[Tensor], Tensor]] = {}
        self._handles = [
            layer.register_forward_pre_hook(self._hook(self._order[name]), with_kwargs=True)
            for name, layer in targets.items()
        ]
        threads = torch.get_num_threads()
        self._passes = [_Pass(model, batch, device) for batch in batches]
        torch.set_num_threads(threads)
        self._begun: set[int] = set()
        for one in self._passes:
            assert one.thread.ident is not None
            self._by_thread[one.thread.ident] = one

    def __enter__(self) -> LayerwisePasses:
        return self

    def __exit__(self, *_: object) -> None:
        for one in self._passes:
            one.stop()
        for handle in self._handles:
            handle.remove()

    def begin(self, batch: int, name: str) -> None:
        """Sends a batch on towards layer ``name`` without waiting for it."""
        one = self._passes[batch]
        if batch not in self._begun and not one.finished and one.layer < self._order[name]:
            self._begun.add(batch)
            one.begin()

    def inputs(self, batch: int, name: str) -> Tensor | None:
        """What layer ``name`` is about to be called with on that batch; None where the batch does not come by it."""
        one, place = self._passes[batch], self._order[name]
        while batch in self._begun or (not one.finished and one.layer < place):
            self.begin(batch, name)
            one.wait()
            self._begun.discard(batch)
        return one.inputs if not one.finished and one.layer == place else None

    def change(self, name: str, change: Callable[[Tensor], Tensor]) -> None:
        """From now on layer ``name`` computes from ``change(inputs)``, in every call of every batch."""
        self._changes[self._order[name]] = change

    def _hook(self, place: int):
        def pause(_module: nn.Module, args: tuple[Tensor, ...], named: dict[str, Tensor]):
            one = self._by_thread.get(threading.get_ident())
            if one is None:
                return None
            one.pause(place, args[0] if args else named["input"])
            change = self._changes.get(place)
            if change is None:
                return None
            if args:
                return (change(args[0]), *args[1:]), named
            return args, {**named, "input": change(named["input"])}

        return pause
