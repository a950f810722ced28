"""Rows of the last layer that stay at or above zero, in float and as codes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import corank
from corank.errors import ConfigError
from corank.training.callbacks import PositiveRows
from corank.training.recipes import chosen_recipe


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)).eval()


def samples() -> tuple[torch.Tensor, torch.Tensor]:
    images = torch.randn(32, 6, generator=torch.Generator().manual_seed(1))
    return images, images[:, :3].argmax(1)


def weight(model: nn.Module, name: str) -> torch.Tensor:
    found = model.get_submodule(name).weight
    assert isinstance(found, torch.Tensor)
    return found.detach()


@pytest.mark.parametrize("recipe", ["weight-aligning", "weight-aligning-4bit"])
def test_the_rows_of_that_layer_alone_stay_positive(recipe: str) -> None:
    how = chosen_recipe(recipe).replaced(loss="labels", iterations=4, batch_size=16)
    found, free = (corank.train(network(), samples(), how, callbacks=own) for own in ([PositiveRows("4")], []))
    rows, other, inner = (weight(model, name) for model, name in ((found, "4"), (free, "4"), (found, "2")))
    assert float(rows.min()) >= 0 and float(rows.max()) > 0
    assert float(other.min()) < 0 and float(inner.min()) < 0


def test_layers_that_cannot() -> None:
    how = chosen_recipe("weight-aligning-4bit").replaced(loss="labels", iterations=2, batch_size=16)
    with pytest.raises(ConfigError, match="no layer that trains has that name"):
        corank.train(network(), samples(), how, callbacks=[PositiveRows("fc")])
    with pytest.raises(ConfigError, match="the name of a layer"):
        PositiveRows(4)  # pyright: ignore[reportArgumentType]
