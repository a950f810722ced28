"""Batch norms whose statistics are those of the whole batch, whichever processes hold its parts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import SyncBatchNorm, _BatchNorm

from corank.errors import ModelError
from corank.processes import all_reduce, number_of_processes

__all__ = ["all_reduced", "synchronized_norms"]

_WITH_ACTIVATION = "BatchNormAct2d"  # timm's: a norm whose forward() also drops and activates


class _AllReduced(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.clone(memory_format=torch.contiguous_format)
        all_reduce([total])
        return total

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:
        return all_reduced(grad_outputs[0])  # differentiable again, for penalties on gradients


def all_reduced(value: Tensor) -> Tensor:
    """The sum over the processes, on any device and backend; its gradient is that of the sum of all their losses.

    All processes must come by, forward and backward, in the same order.
    """
    return _AllReduced.apply(value)


@contextmanager
def synchronized_norms(model: nn.Module) -> Iterator[None]:
    """Within, batch norms in training mode normalise by, and remember, statistics of all processes' samples.

    The result is that of one process with the whole batch: outputs, running statistics and, where the losses are
    summed over the processes, gradients. torch's ``SyncBatchNorm`` does not run on CPUs. Parts may differ in size, and
    may be empty, but every process must run the network equally often. In a single process nothing changes.

    Raises:
        ModelError: for a norm in training mode with a ``forward()`` of its own.
    """
    before: dict[_BatchNorm, type[_BatchNorm]] = {}
    try:
        if number_of_processes() > 1:
            for name, module in model.named_modules():
                if isinstance(module, _BatchNorm) and not isinstance(module, (_Synchronized, SyncBatchNorm)):
                    _check(name, module)
                    before[module] = type(module)
                    module.__class__ = _synchronized(type(module))
        yield
    finally:
        for module, kind in before.items():
            module.__class__ = kind


class _Synchronized(_BatchNorm):
    """What stands before a norm's own class while it is synchronized."""

    def forward(self, input: Tensor) -> Tensor:
        if not (self.training or (self.running_mean is None and self.running_var is None)):
            return super().forward(input)
        self._check_input_dim(input)
        with torch.autocast(input.device.type, enabled=False):
            found = _normalised(self, input)
        if _WITH_ACTIVATION in (kind.__name__ for kind in type(self).__mro__):
            return self.get_submodule("act")(self.get_submodule("drop")(found))
        return found


def _normalised(norm: _BatchNorm, inputs: Tensor) -> Tensor:
    """``inputs`` ``(N, C, ...)`` by the mean and variance of all processes' samples."""
    exact = inputs.to(torch.promote_types(inputs.dtype, torch.float32))
    over, shape = [0, *range(2, inputs.dim())], [1, -1] + [1] * (inputs.dim() - 2)
    count = exact.new_full((1,), exact[:, 0].numel())
    sums = all_reduced(torch.cat([exact.sum(over), count]))
    total = sums[-1].detach()
    mean = sums[:-1] / total
    centred = exact - mean.view(shape)
    variance = all_reduced(centred.square().sum(over)) / total  # in a second pass: E[x²] - E[x]² cancels
    if norm.training and norm.running_mean is not None and norm.running_var is not None:
        _remember(norm, mean, variance * (total / (total - 1).clamp(min=1)))
    found = centred * (variance + norm.eps).rsqrt().view(shape)
    if norm.affine:
        found = found * norm.weight.to(exact.dtype).view(shape) + norm.bias.to(exact.dtype).view(shape)
    return found.to(inputs.dtype)


@torch.no_grad()
def _remember(norm: _BatchNorm, mean: Tensor, variance: Tensor) -> None:
    assert norm.running_mean is not None and norm.running_var is not None
    share = norm.momentum
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
        if share is None:
            share = 1 / float(norm.num_batches_tracked)
    for kept, new in ((norm.running_mean, mean), (norm.running_var, variance)):
        kept.mul_(1 - (share or 0.0)).add_(new.to(kept.dtype), alpha=share or 0.0)


def _check(name: str, norm: _BatchNorm) -> None:
    kind = type(norm)
    if norm.training and kind.forward is not _BatchNorm.forward and kind.__name__ != _WITH_ACTIVATION:
        raise ModelError(
            f"the norm {name!r} is a {kind.__name__} with a forward() of its own, whose statistics cannot be taken "
            "over several processes; freeze the norms: Recipe(norms='frozen'), or use one process"
        )


def _synchronized(kind: type[_BatchNorm]) -> type[_BatchNorm]:
    return type(f"Synchronized{kind.__name__}", (_Synchronized, kind), {})
