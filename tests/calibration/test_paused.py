"""Passes in threads: one at a time where they must be, and none left behind."""

from __future__ import annotations

import threading

import pytest
import torch
from reference.networks import Branching, targets_of
from torch import Tensor, nn

from corank.calibration import LayerwisePasses
from corank.calibration.interleaved import Interleaving


class Crowded(nn.Module):
    """Counts how many threads are inside at the same time; keeps the count on itself."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
        self.inside, self.most = 0, 0

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.a(inputs)
        self.inside += 1
        self.most = max(self.most, self.inside)
        for _ in range(20):
            hidden = (hidden @ torch.eye(4)).relu()
        self.inside -= 1
        self.last = hidden
        return self.b(hidden)


def test_modules_that_set_something_run_one_batch_at_a_time() -> None:
    model, batches = Crowded(), [torch.rand(30000, 4) for _ in range(6)]
    with LayerwisePasses(model, targets_of(model), batches) as passes:
        for number in range(len(batches)):
            passes.inputs(number, "a")
        for number in range(len(batches)):
            passes.begin(number, "b")
        for number in range(len(batches)):
            assert passes.inputs(number, "b") is not None
    assert model.most == 1


@pytest.mark.parametrize("refused", [0, 2])
def test_threads_that_cannot_be_had_leave_nothing_behind(refused: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model, threads, active = Branching(), torch.get_num_threads(), threading.active_count()
    batches, begun, start = [torch.rand(3, 4)] * 4, [], threading.Thread.start
    torch.set_num_threads(2)
    monkeypatch.setattr("corank.calibration.layerwise.interleaving_of", lambda *_: Interleaving(True, True))

    def limited(thread: threading.Thread) -> None:
        if len(begun) == refused:
            raise RuntimeError("can't start new thread")
        begun.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)
    try:
        with pytest.raises(RuntimeError, match="can't start new thread"):
            LayerwisePasses(model, targets_of(model), batches)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert threading.active_count() == active
    assert not any(layer._forward_pre_hooks for layer in model.children())
