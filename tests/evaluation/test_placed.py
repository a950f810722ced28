"""Models where they are to run: moved only where nothing of them is there."""

from __future__ import annotations

import torch
from torch import nn

from corank.evaluation import placed

ELSEWHERE = torch.device("meta")


def test_a_copy_is_moved_and_the_model_is_not() -> None:
    model = nn.Linear(3, 2)
    moved = placed(model, ELSEWHERE)
    assert moved is not model and moved.weight.device == ELSEWHERE
    assert model.weight.device == torch.device("cpu") and placed(model, torch.device("cpu")) is model


def test_models_without_a_place_or_of_several_stay() -> None:
    spread = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2, device=ELSEWHERE))
    for model in (nn.ReLU(), spread):
        assert placed(model, ELSEWHERE) is model
