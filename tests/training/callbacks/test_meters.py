"""Meters: counted by hand, and the same for a run that goes on."""

from __future__ import annotations

import pytest
import torch
from training.stepping import state_of, stepped

from corank.codecs import Binary, ICQuant, StatsQ
from corank.errors import ConfigError
from corank.training.callbacks import Callback, Confidence, Meters
from corank.training.described import described, read
from corank.training.recipe import Recipe
from corank.training.state import TrainingState
from corank.training.weights import LearnedStep, StraightThrough


def placed(state: TrainingState, values: list[float]) -> None:
    with torch.no_grad():
        state.layers["head"].latent[0, : len(values)] = torch.tensor(values)


def moved_to(state: TrainingState, values: list[float]) -> dict[str, float]:
    """One step after which the first row of the head begins with these values."""
    state.measured = {}
    placed(state, values)
    state.recipe.callbacks[0].step_done(state)
    state.step += 1
    return state.measured


def test_oscillations_are_moves_against_the_last_move() -> None:
    state = state_of(Recipe(weights=StraightThrough(Binary()), callbacks=(Meters(every=1),)))
    placed(state, [1.0, 1.0, 1.0])
    state.recipe.callbacks[0].start(state)
    total = sum(layer.latent.numel() for layer in state.layers.values())
    found = [
        moved_to(state, values)
        for values in ([1.0, 1.0, 1.0], [-1.0, 1.0, 1.0], [-1.0, -1.0, 1.0], [1.0, -1.0, 1.0], [-1.0, 1.0, -1.0])
    ]
    assert [one["oscillations"] for one in found] == [0, 0, 0, 1, 2]
    assert [round(one["moved"] * total) for one in found] == [0, 1, 1, 1, 3]


def test_a_move_on_in_the_same_direction_is_no_oscillation() -> None:
    state = state_of(Recipe(weights=StraightThrough(StatsQ(2), refit=0), callbacks=(Meters(every=1),)))
    scale = float(StatsQ(2).fit(state.layers["head"].matrix).scale[0])
    placed(state, [-0.7 * scale])
    state.recipe.callbacks[0].start(state)
    found = [moved_to(state, [share * scale]) for share in (-0.3, 0.3, 0.7, 0.3)]
    assert [one["oscillations"] for one in found] == [0, 0, 0, 1]


def test_the_norm_is_the_mean_over_the_layers() -> None:
    state = state_of(Recipe(weights=None, edge=None, callbacks=(Meters(every=1),)))
    state.recipe.callbacks[0].start(state)
    state.recipe.callbacks[0].step_done(state)
    assert set(state.measured) == {"norm"}
    norms = [float(layer.latent.detach().norm()) for layer in state.layers.values()]
    assert state.measured["norm"] == pytest.approx(sum(norms) / len(norms))


def test_it_looks_at_every_nth_step_and_remembers_two_bytes_a_weight() -> None:
    state = state_of(Recipe(weights=StraightThrough(StatsQ(2)), callbacks=(Meters(every=3),)))
    optimizer = torch.optim.AdamW(state.model.parameters(), lr=0.05)
    looked = []
    for _ in range(9):
        stepped(state, optimizer)
        looked.append("moved" in state.measured)
    assert looked == [False, False, True] * 3
    assert 0 < state.measured["moved"] < 1
    weights = sum(layer.latent.numel() for layer in state.layers.values())
    assert sum(one.numel() * one.element_size() for one in state.kept.values()) == 2 * weights
    assert {one.dtype for one in state.kept.values()} == {torch.uint8, torch.int8}


@pytest.mark.parametrize("way", [StraightThrough(StatsQ(2)), LearnedStep(), StraightThrough(ICQuant(3), refit=1)])
def test_a_run_that_goes_on_counts_on(way: StraightThrough | LearnedStep) -> None:
    numbers = []
    for pause in (False, True):
        state = state_of(Recipe(weights=way, callbacks=(Meters(every=2),)))
        optimizer = torch.optim.AdamW(state.model.parameters(), lr=0.05)
        stepped(state, optimizer, 5)
        if pause:
            state.kept = {name: one.clone() for name, one in state.kept.items()}
        stepped(state, optimizer, 5)
        numbers.append(dict(state.measured))
    assert numbers[0] == numbers[1] and numbers[0]["oscillations"] > 0


def test_annealing_leaves_fewer_oscillations() -> None:
    counts = []
    for callbacks in ((Meters(every=1),), (Confidence(0.005, from_share=0.0), Meters(every=1))):
        state = state_of(Recipe(weights=StraightThrough(StatsQ(2)), callbacks=callbacks))
        optimizer = torch.optim.AdamW(state.model.parameters(), lr=0.02)
        total = 0.0
        for _ in range(20):
            stepped(state, optimizer)
            total += state.measured["oscillations"]
        counts.append(total)
    assert counts[1] < counts[0] / 4


def test_settings() -> None:
    assert read(described(Meters(every=5)), Callback) == Meters(every=5)
    with pytest.raises(ConfigError, match=r"Meters\(every=10\)"):
        Meters(every=0)
