"""RPReLU in the place of ReLU (ReActNet, arXiv 2003.03488), also where a network calls ``relu`` as a function.

A binary layer sees signs alone, so what tells them apart must not be cut off at zero: a ReLU gives nothing negative.
"""

from __future__ import annotations

from collections.abc import Sequence
from inspect import Signature, signature
from types import CodeType, MethodType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from corank.errors import ModelError
from corank.layers.half import HalfParameters, half

__all__ = ["NAME", "RELUS", "RPReLU", "replace_relus"]

NAME = "rprelu"
"""Under which a module holds those that it uses."""
RELUS = (torch.relu, F.relu, Tensor.relu)


class RPReLU(HalfParameters):
    """``x - shift + lift`` where ``x > shift``, else ``slope * (x - shift) + lift``: of each channel, axis 1.

    Computes with what fp16 holds of the three, as biases are stored; their gradients pass the rounding.

    Args:
        channels: how many.
        like: of its dtype and device the parameters are.
    """

    def __init__(self, channels: int, like: Tensor) -> None:
        super().__init__()
        empty = torch.empty(channels, dtype=like.dtype, device=like.device)
        self.shift, self.lift = nn.Parameter(empty), nn.Parameter(empty.clone())
        self.slope = nn.Parameter(empty.clone())
        self.reset_parameters()

    def reset_parameters(self) -> None:
        with torch.no_grad():
            self.shift.zero_()
            self.lift.zero_()
            self.slope.fill_(0.25)

    def forward(self, inputs: Tensor) -> Tensor:
        """Inputs ``(N, channels, ...)``."""
        shape = (-1, *(1 for _ in inputs.shape[2:]))
        shift, slope, lift = (half(one).reshape(shape) for one in (self.shift, self.slope, self.lift))
        shifted = inputs - shift
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            return _PReLU.apply(shifted, slope.to(shifted.dtype)) + lift
        return F.prelu(shifted, slope.to(shifted.dtype).reshape(-1)) + lift


class _PReLU(torch.autograd.Function):
    """PReLU, whose own backward pass chooses number by number, at five times the time."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, slope: Tensor) -> Tensor:
        ctx.save_for_backward(inputs, slope)
        return F.prelu(inputs, slope.reshape(-1))

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor]:
        (inputs, slope), given = ctx.saved_tensors, grad_outputs[0]
        above = torch.ops.aten.threshold_backward(given, inputs, 0)
        below = given - above
        return torch.addcmul(above, below, slope), (below * inputs).sum_to_size(slope.shape)


def replace_relus(module: nn.Module, channels: Sequence[int], like: Tensor) -> None:
    """From now on the calls of ``relu`` that come by while ``module`` runs are RPReLUs, one each, in their order.

    Calls of ``torch.relu``, ``torch.nn.functional.relu``, ``Tensor.relu`` and ``nn.ReLU`` count; those in place as a
    statement (``relu_``) do not. Names of what the module holds stay; the new parameters stand in its ``rprelu``.

    Args:
        module: is changed.
        channels: of each call; 0 leaves one as it is.
        like: of its dtype and device the parameters are.

    Raises:
        ModelError: for a module that has something of that name already. When it runs: for other calls than these.
    """
    if isinstance(module, nn.Sequential):
        raise ModelError(f"a {type(module).__name__} runs all that it holds; name the ReLU in it, or what holds it")
    if NAME in module.__dict__ or NAME in module._modules or "forward" in module.__dict__:
        raise ModelError(
            f"a {type(module).__name__} with {NAME!r} or a forward() of its own instance cannot be changed"
        )
    # Threshold is ReLU by another name: a call that is left alone must not be counted by a module around this one.
    parts = [RPReLU(count, like) if count else nn.Threshold(0.0, 0.0) for count in channels]
    module.add_module(NAME, nn.ModuleList(parts).train(module.training))
    module.__dict__["forward"] = _Forward(module)


class _Forward:
    """Stands in the place of a module's ``forward``; a copied or pickled module has one of its own."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module

    @property
    def __code__(self) -> CodeType:  # torch.export asks where a forward() is written, and what it takes
        return type(self._module).forward.__code__

    @property
    def __signature__(self) -> Signature:
        return signature(MethodType(type(self._module).forward, self._module))

    def __call__(self, *args: Any, **named: Any) -> Any:
        module = self._module
        parts = module._modules[NAME]
        assert isinstance(parts, nn.ModuleList)
        calls = _Calls(list(parts))
        with calls:
            found = type(module).forward(module, *args, **named)
        if calls.count != len(parts):
            raise ModelError(_otherwise(module, len(parts), f"{calls.count} times"))
        return found


class _Calls(TorchFunctionMode):
    """Of one run of a module: gives each call of ``relu`` to the part whose turn it is."""

    def __init__(self, parts: list[nn.Module]) -> None:
        super().__init__()
        self._parts, self.count = parts, 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func not in RELUS:
            return func(*args, **kwargs)
        self.count += 1
        if self.count > len(self._parts):
            raise ModelError(f"relu is called more often than the {len(self._parts)} times that were replaced")
        return self._parts[self.count - 1](args[0] if args else kwargs["input"])


def _otherwise(module: nn.Module, expected: int, given: str) -> str:
    return (
        f"a {type(module).__name__} calls relu {given} where {expected} calls were replaced: it computes otherwise now"
    )
