"""Passes that pause at every layer."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import Tensor, nn

from corank.calibration import LayerwisePasses
from corank.errors import DataError


class Branching(nn.Module):
    """Takes its second layer only where the batch's mean is positive; uses its first one twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.first(self.first(inputs)).relu()
        if float(inputs.mean()) > 0:
            hidden = self.second(hidden)
        return self.last(hidden)


def targets_of(model: nn.Module) -> dict[str, nn.Module]:
    return dict(model.named_children())


def test_every_layer_sees_what_a_plain_pass_gives_it() -> None:
    model, batches = Branching(), [torch.rand(3, 4), torch.rand(5, 4) + 1]
    seen: dict[tuple[int, str], Tensor] = {}
    with LayerwisePasses(model, targets_of(model), batches) as lockstep:
        for name in targets_of(model):
            for number in range(len(batches)):
                inputs = lockstep.inputs(number, name)
                assert inputs is not None
                seen[number, name] = inputs.clone()
    for number, batch in enumerate(batches):
        hidden = model.first(model.first(batch)).relu()
        assert torch.equal(seen[number, "first"], batch)
        assert torch.allclose(seen[number, "second"], hidden)
        assert torch.allclose(seen[number, "last"], model.second(hidden))


def test_a_weight_changed_at_a_layer_is_what_the_next_layers_see() -> None:
    model, batch = Branching(), torch.rand(3, 4) + 1
    with LayerwisePasses(model, targets_of(model), [batch]) as lockstep:
        assert lockstep.inputs(0, "first") is not None
        with torch.no_grad():
            model.first.weight.zero_()
            model.first.bias.fill_(2.0)
        inputs = lockstep.inputs(0, "second")
    assert inputs is not None and torch.equal(inputs, torch.full((3, 4), 2.0))


def test_a_batch_that_passes_a_layer_by_gives_none_and_goes_on() -> None:
    model = Branching()
    with LayerwisePasses(model, targets_of(model), [-torch.rand(3, 4)]) as lockstep:
        assert lockstep.inputs(0, "first") is not None
        assert lockstep.inputs(0, "second") is None
        assert lockstep.inputs(0, "last") is not None


def test_starting_ahead_changes_nothing() -> None:
    model, batches = Branching(), [torch.rand(3, 4) + 1, torch.rand(2, 4) + 1]
    with LayerwisePasses(model, targets_of(model), batches) as lockstep:
        lockstep.begin(0, "second")
        lockstep.begin(1, "second")
        lockstep.begin(1, "second")
        given = [lockstep.inputs(number, "second") for number in (0, 1)]
    for batch, inputs in zip(batches, given, strict=True):
        assert inputs is not None
        assert torch.allclose(inputs, model.first(model.first(batch)).relu())


def test_an_error_in_the_model_reaches_the_caller_and_no_thread_is_left() -> None:
    model, before = Branching(), threading.active_count()
    with (
        pytest.raises(DataError, match="could not run"),
        LayerwisePasses(model, targets_of(model), [torch.rand(3, 7)]) as one,
    ):
        one.inputs(0, "first")
        one.inputs(0, "second")
    assert threading.active_count() == before
    assert not model.first._forward_pre_hooks
    assert torch.equal(model(torch.zeros(1, 4)), model(torch.zeros(1, 4)))


def test_leaving_early_ends_all_passes_and_keeps_the_thread_count() -> None:
    model, before, threads = Branching(), threading.active_count(), torch.get_num_threads()
    with LayerwisePasses(model, targets_of(model), [torch.rand(3, 4)] * 4) as lockstep:
        lockstep.inputs(2, "first")
        lockstep.begin(3, "first")
    assert threading.active_count() == before
    assert torch.get_num_threads() == threads
