"""What a classifier makes of samples: probabilities, without labels."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from corank.calibration import run
from corank.devices import device_of
from corank.errors import DataError, ModelError
from corank.evaluation.placed import placed
from corank.losses import logits_of
from corank.precision import exact_float32
from corank.watching import evaluating

__all__ = ["probabilities"]


@exact_float32()
def probabilities(model: nn.Module, batches: Iterable[Any], device: str | torch.device | None = None) -> Tensor:
    """The softmax of a classifier's logits.

    Args:
        model: gives logits ``(N, classes)``, alone or under "logits"; left in the mode it was in.
        batches: of inputs, as the model takes them.
        device: where to run; None: where the model is.

    Returns:
        float32 ``(N, classes)``, on the CPU.

    Raises:
        DataError: for no batch. ModelError: when the output is not logits.
    """
    where = torch.device(device) if device is not None else device_of(model)
    model, found = placed(model, where), list[Tensor]()
    with evaluating(model), torch.no_grad():
        for inputs in batches:
            logits = logits_of(run(model, inputs, where))
            if logits is None:
                raise ModelError("probabilities need logits (N, classes); this model gives something else")
            found.append(logits.float().softmax(1).cpu())
    if not found:
        raise DataError("there is nothing to predict; give at least one sample")
    return torch.cat(found)
