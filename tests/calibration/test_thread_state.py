"""Threads that work as the one that asked them to."""

from __future__ import annotations

import threading
from contextvars import ContextVar

import torch
from reference.networks import Branching, targets_of
from torch import Tensor

from corank.calibration import LayerwisePasses


def test_the_callers_autocast_and_context_reach_the_passes() -> None:
    asked: ContextVar[str] = ContextVar("asked", default="nobody")
    seen: list[tuple[str, bool, int]] = []

    class Asking(Branching):
        def forward(self, inputs: Tensor) -> Tensor:
            seen.append((asked.get(), torch.is_grad_enabled(), torch.get_num_threads()))
            return super().forward(inputs)

    model, batches = Asking(), [torch.rand(3, 4) + 1, torch.rand(3, 4) + 1]
    token = asked.set("me")
    torch.set_num_threads(3)
    other = threading.Thread(target=lambda: torch.set_num_threads(2))  # which new threads would begin with
    other.start()
    other.join()
    with torch.autocast("cpu", torch.bfloat16), LayerwisePasses(model, targets_of(model), batches) as passes:
        inputs = passes.inputs(0, "last")
    asked.reset(token)
    assert inputs is not None and inputs.dtype == torch.bfloat16
    torch.set_num_threads(1)
    assert set(seen) == {("me", False, 3)}
    with LayerwisePasses(model, targets_of(model), batches) as passes:
        inputs = passes.inputs(0, "last")
    assert inputs is not None and inputs.dtype == torch.float32
