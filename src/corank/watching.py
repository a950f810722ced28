"""Watching modules at work: hooks that are always removed, and a mode that several may ask for at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from torch import Tensor, nn

from corank.errors import ModelError

__all__ = ["HookError", "evaluating", "input_of", "watched", "with_input"]

Name = TypeVar("Name")
Hook = Callable[..., Any]


class HookError(Exception):
    """An error that a hook of :func:`watched` raised, on its way through the model's own ``forward()`` to whoever runs
    the model, who must not take it for the model's.

    Attributes:
        error: what was raised.
    """

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


@contextmanager
def watched(modules: Mapping[Name, nn.Module], hook: Callable[[Name], Hook], *, before: bool = False) -> Iterator[None]:
    """Within, ``hook(name)`` is called at every call of the module of that name; afterwards nothing of it is left.

    Args:
        modules: by name.
        hook: gives each module's hook, called with (module, arguments, named arguments, output). What it returns,
            unless None, is the module's output. What it raises comes as a :class:`HookError`.
        before: call it before the module instead, without output; what it returns, unless None, are the arguments
            and named arguments that the module is called with.
    """
    handles = []
    try:
        for name, module in modules.items():
            register = module.register_forward_pre_hook if before else module.register_forward_hook
            handles.append(register(_owned(hook(name)), with_kwargs=True))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _owned(hook: Hook) -> Hook:
    """The hook, whose errors say that they are its own."""

    def owned(*arguments: Any) -> Any:
        try:
            return hook(*arguments)
        except Exception as error:
            raise HookError(error) from error

    return owned


def input_of(args: tuple[Any, ...], named: Mapping[str, Any]) -> Tensor:
    """The tensor that a layer is called with, by place or by name.

    Raises:
        ModelError: when it is called without one.
    """
    found = args[0] if args else named.get(_name_of_input(named))
    if not isinstance(found, Tensor):
        raise ModelError(f"a layer is called with {type(found).__name__} where its inputs, a tensor, are expected")
    return found


def with_input(
    args: tuple[Any, ...], named: Mapping[str, Any], inputs: Tensor
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The same arguments with other inputs in place of those that :func:`input_of` finds."""
    if args:
        return (inputs, *args[1:]), dict(named)
    return args, {**named, _name_of_input(named): inputs}


def _name_of_input(named: Mapping[str, Any]) -> str:
    """``input`` as in torch's own layers or, of a layer with a ``forward()`` of its own, its first argument."""
    return "input" if "input" in named else next(iter(named), "input")


_modes = threading.Lock()
_evaluated: dict[nn.Module, tuple[int, bool]] = {}  # how many ask for it, and the mode that it was in before


@contextmanager
def evaluating(*models: nn.Module) -> Iterator[None]:
    """Within, all modules of the models are in evaluation mode; afterwards in the mode that each was in before.

    Several threads may ask for it of one model at the same time: it leaves evaluation mode with the last of them.
    """
    parts = list({part: None for model in models for part in model.modules()})
    with _modes:
        for part in parts:
            count, was = _evaluated.get(part, (0, part.training))
            _evaluated[part] = (count + 1, was)
            part.training = False
    try:
        yield
    finally:
        with _modes:
            for part in parts:
                count, was = _evaluated.pop(part)
                if count > 1:
                    _evaluated[part] = (count - 1, was)
                else:
                    part.training = was
