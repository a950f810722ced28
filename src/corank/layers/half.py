"""Modules that compute with what fp16 holds of their parameters, so that what trains is what a file holds."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

__all__ = ["HalfModule", "HalfParameters", "half"]

_LARGEST = 65504.0  # of fp16


class HalfModule(nn.Module):
    """Base of modules whose ``forward()`` reads their own parameters by :func:`half`."""

    def settle(self) -> None:
        """Rounds the parameters to what is computed with, so that a file holds them in fp16."""
        with torch.no_grad():
            for parameter in self.parameters(recurse=False):
                parameter.copy_(half(parameter))


class HalfParameters(HalfModule, ABC):
    """Base of those that have a few numbers a channel, which can be drawn anew."""

    @abstractmethod
    def reset_parameters(self) -> None:
        """Gives the parameters the numbers of a new module, in place."""


def half(value: Tensor) -> Tensor:
    """As fp16 holds it; the gradient passes the rounding. Other dtypes than float32 stay as they are."""
    if value.dtype != torch.float32:
        return value
    with torch.no_grad():
        stored = value.clamp(-_LARGEST, _LARGEST).to(torch.float16).float()
    # The difference is a small multiple of the value's last place, so that the sum is the stored value exactly.
    return value + (stored - value).detach() if torch.is_grad_enabled() and value.requires_grad else stored
