"""Passes that begin anew for every layer."""

from __future__ import annotations

import torch
from reference.networks import Keeping, keeping_batches, targets_of

from corank.calibration import LayerwisePasses


def test_passes_that_begin_anew_see_changed_weights_and_inputs() -> None:
    model, batches = Keeping(), keeping_batches()
    with LayerwisePasses(model, targets_of(model), batches) as passes:
        assert passes.inputs(1, "a") is not None
        with torch.no_grad():
            model.a.weight.mul_(2)
        passes.change("b", torch.zeros_like)
        inputs = passes.inputs(1, "c")
        hidden = model.a(batches[1]).relu()
        scale = hidden.abs().amax() + 1
        assert inputs is not None and torch.allclose(inputs, model.b.bias.relu() * scale)
