"""Gradients where the library needs them, whatever its caller has switched off."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["recording"]


@contextmanager
def recording() -> Iterator[None]:
    """Within, autograd records and tensors are ordinary ones, also inside of a caller's ``no_grad`` or
    ``inference_mode``; afterwards all is as the caller had it. Also a decorator: ``@recording()``.

    What is made in inference mode can never take part in a backward pass, so a search or a refinement, and every model
    that is handed back, must be made outside of it.
    """
    with torch.inference_mode(False), torch.enable_grad():
        yield
