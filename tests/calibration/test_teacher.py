"""The float network's outputs, remembered or computed, are the same."""

from __future__ import annotations

import importlib

import pytest
import torch
from torch import nn

from corank.calibration import Samples, Teacher, mean_loss, outputs_of
from corank.losses import output_distance


@pytest.fixture
def model() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).eval()


@pytest.mark.parametrize("room", [1 << 20, 16])
def test_gives_the_outputs_of_a_draw(model: nn.Module, room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.import_module("corank.calibration.teacher"), "_REMEMBERED_BYTES", room)
    samples = Samples.of(torch.randn(100, 6), 100, 16)
    calls: list[int] = []
    teacher = Teacher(model, samples, output_distance)
    model.register_forward_hook(lambda *_: calls.append(1))
    draw, load = torch.tensor([3, 77, 12]), samples.loader()
    assert torch.allclose(teacher(draw, load), model(load(draw)), atol=1e-6)
    assert len(calls) == (1 if room > 1000 else 2)  # one for the comparison


def test_mean_over_samples_not_batches(model: nn.Module) -> None:
    batches = [torch.randn(6, 6), torch.randn(2, 6)]
    references = outputs_of(model, batches)
    assert mean_loss(model, batches, references, output_distance) == 0
    given = iter([1.0, 5.0])
    assert mean_loss(model, batches, references, lambda *_: torch.tensor(next(given))) == pytest.approx(2.0)
