"""Batch statistics of norms that were not folded, taken anew from the coded network."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from corank.calibration.samples import Samples, run

__all__ = ["reestimate_norms"]


@torch.no_grad()
def reestimate_norms(model: nn.Module, data: Any, samples: int = 1600, batch_size: int = 64) -> tuple[str, ...]:
    """Replaces, in place, the running means and variances of batch norms by those of the coded network's activations.

    Rounding shifts what a norm is fed, while its statistics are still the float network's. One pass with every other
    module in evaluation mode averages the batches' statistics, each batch alike. A network whose norms were all folded
    is left as it is; norms without running statistics have nothing to replace.

    Args:
        model: a coded network, or any other.
        data: unlabelled samples, as for :func:`corank.quantize`.
        samples: at most this many are read.
        batch_size: of the batches that a tensor is cut into.

    Returns:
        The names of the norms whose statistics are new.

    Raises:
        DataError: for data that is empty or that the model cannot take.
    """
    norms = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm) and isinstance(module.running_mean, Tensor)
    }
    if not norms:
        return ()
    batches = Samples.of(data, samples, batch_size).batches
    was_training = {module: module.training for module in model.modules()}
    was_momentum = {name: module.momentum for name, module in norms.items()}
    was_running = {name: [buffer.clone() for buffer in module.buffers()] for name, module in norms.items()}
    device = next(iter(norms.values())).running_mean.device  # pyright: ignore[reportOptionalMemberAccess]
    model.eval()
    for module in norms.values():
        module.reset_running_stats()
        module.momentum = None  # torch then averages all batches alike
        module.train()
    try:
        for batch in batches:
            run(model, batch, device)
    except BaseException:
        for name, module in norms.items():
            for buffer, old in zip(module.buffers(), was_running[name], strict=True):
                buffer.copy_(old)
        raise
    finally:
        for name, module in norms.items():
            module.momentum = was_momentum[name]
        for module, training in was_training.items():
            module.training = training
    return tuple(norms)
