"""Where training starts: what ``quantize`` ends in, its corrected biases among it."""

from __future__ import annotations

import torch
from torch import nn

from corank.codecs import StatsQ
from corank.training.recipe import Recipe
from corank.training.weights import StraightThrough
from corank.verbs.train import train


def test_the_start_has_the_biases_that_quantize_corrects() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 5))
    images = torch.rand(256, 3, 4, 4) + 0.5
    way = StraightThrough(StatsQ(2))
    start = train(model.eval(), images, Recipe(weights=way, edge=way, iterations=0))
    with torch.no_grad():
        given, expected = start(images), model(images)
    off = (given - expected).mean(0).abs().max()
    assert float(off) < 0.02 * float(expected.std())
