"""Training that ends in a file of a size, or at a rate."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import corank
from corank.data import TokenSet
from corank.errors import BudgetError, ConfigError
from corank.training.callbacks import Callback
from corank.training.penalties import Rate
from corank.training.recipe import Optimizer
from corank.training.recipes.rate import rate as RECIPE
from corank.training.state import TrainingState
from corank.verbs import training_size


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 24, 3, padding=1, bias=False), nn.BatchNorm2d(24), nn.ReLU()]
    layers += [nn.Conv2d(24, 24, 3, padding=1, bias=False), nn.BatchNorm2d(24), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 4)).eval()


def images() -> torch.Tensor:
    return torch.randn(96, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("size", [2500, "1.9KB"])
def test_the_file_has_at_most_the_size(size: int | str, tmp_path: Path) -> None:
    model = corank.train(network(), images(), size=size, iterations=8, batch_size=32)
    stored = corank.save(model, tmp_path / "m.safetensors")
    wanted = 2500 if size == 2500 else 1900
    assert 0.93 * wanted < stored <= wanted
    recipe = corank.recipe_of(tmp_path / "m.safetensors")
    assert isinstance(recipe.penalties[0], Rate)
    loaded = corank.load(tmp_path / "m.safetensors", network())
    assert torch.equal(loaded(images()[:4]), model(images()[:4]))


def test_a_lower_rate_is_a_smaller_file(tmp_path: Path) -> None:
    sizes = []
    for rate in (2.5, 0.6):
        recipe = RECIPE(rate).replaced(optimizer=Optimizer(rate=2e-2))
        model = corank.train(network(), images(), recipe, iterations=30, batch_size=32)
        sizes.append(corank.save(model, tmp_path / "m.safetensors"))
    assert sizes[1] < 0.8 * sizes[0]


def test_what_cannot_be_is_said_before_the_first_step() -> None:
    with pytest.raises(BudgetError, match="not possible"):
        corank.train(network(), images(), size=400, iterations=4)
    with pytest.raises(ConfigError, match="choose one"):
        corank.train(network(), images(), size=4000, rate=1.0)
    with pytest.raises(ConfigError, match="rate="):
        corank.train(network(), images(), rate=9.0)
    with pytest.raises(ConfigError, match="needs what to reach"):
        corank.train(network(), images(), "rate")
    with pytest.raises(ConfigError, match="whole levels"):
        corank.train(network(), images(), "stats-2bit", size=4000, iterations=2)


@dataclass(frozen=True)
class _KeepsOutputs(Callback):
    kept: list[torch.Tensor] = field(default_factory=list)

    def loss_ready(self, state: TrainingState, loss: torch.Tensor) -> torch.Tensor:
        self.kept[:] = [state.output]  # with its graph, which nothing can copy
        return loss


def test_callbacks_of_one_s_own_may_hold_what_cannot_be_copied(tmp_path: Path) -> None:
    own = _KeepsOutputs()
    model = corank.train(network(), images(), size=2500, iterations=8, batch_size=32, callbacks=[own])
    assert corank.save(model, tmp_path / "m.safetensors") <= 2500 and own.kept[0].grad_fn is not None


def test_what_the_file_will_take_is_known_but_for_a_few_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors of layers are only known when all is done; the file has them, and is no larger for it."""
    expected: list[int] = []
    measured = training_size._bytes

    def watched(*given: Any) -> int:
        expected.append(measured(*given))
        return expected[-1]

    monkeypatch.setattr(training_size, "_bytes", watched)
    model = corank.train(network(), images(), size=2500, iterations=8, batch_size=32)
    stored = corank.save(model, tmp_path / "m.safetensors")
    assert stored <= expected[-1] <= stored + 8


def test_sequences_of_tokens_are_learned_in_their_own_way(tmp_path: Path) -> None:
    """Where the recipe is the library's; one that somebody wrote down is kept to."""
    tokens = torch.randint(50, (24, 12), generator=torch.Generator().manual_seed(0))
    words = nn.Sequential(
        nn.Embedding(50, 16), nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 32), nn.Linear(32, 50)
    ).eval()
    for recipe, temperature, rate in ((None, 1.0, 4e-3), (RECIPE(1.0), 4.0, RECIPE(1.0).optimizer.rate)):
        small = corank.train(words, TokenSet(tokens), recipe, rate=1.0, iterations=2, batch_size=8)
        corank.save(small, tmp_path / "w.safetensors")
        found = corank.recipe_of(tmp_path / "w.safetensors")
        assert (found.temperature, found.optimizer.rate) == (temperature, rate)


def test_too_few_steps_for_a_size_are_told() -> None:
    few = corank.train(network(), images(), size=1500, iterations=2, batch_size=32)
    enough = corank.train(network(), images(), size=2500, iterations=8, batch_size=32)
    assert any("train more steps" in note for note in few.__dict__["corank_run"].notes)
    assert not any("train more steps" in note for note in enough.__dict__["corank_run"].notes)
