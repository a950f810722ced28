"""The distance of inner outputs, by its formula."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import corank
from corank.layers import CodedLayer
from corank.refine import Refinement
from corank.refine.features import FeatureDistance
from corank.refine.trainable_model import TrainableModel
from corank.training.recipe import Recipe
from corank.training.state import TrainingState


def test_it_is_the_mean_relative_error_of_the_layers() -> None:
    teacher = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3)).eval()
    data = torch.randn(12, 5)
    coded = corank.quantize(teacher, data, bits=3, budget=0, preset="nearest", all_layers=True)
    student = TrainableModel(coded, Refinement())
    state = TrainingState(Recipe(), student, teacher, {}, batch=data)
    penalty = FeatureDistance(2.0)
    with state.closing:
        penalty.start(state)
        for _ in range(2):  # nothing of one pass stays for the next
            teacher(data)
            student(data)
            found = penalty(state, torch.zeros(()))
            inner = teacher[0](data), coded[0](data)
            errors = [error(*inner), error(teacher[2](inner[0].relu()), coded[2](inner[1].relu()))]
            state.outputs.clear()  # of the four calls above
            torch.testing.assert_close(found, 2.0 * torch.stack(errors).mean())
    found.backward()
    assert all(latent.gains["scale"].grad is not None for latent in student.latents.values())
    assert all(isinstance(layer, CodedLayer) and not layer._forward_hooks for layer in student.layers.values())
    assert not any(module._forward_hooks for module in teacher.modules())


def error(expected: Tensor, given: Tensor) -> Tensor:
    return (given - expected).square().sum() / expected.square().sum()
