"""The schedule of BinaryRelax: eta grows by one factor over the relaxed share of the steps, then codes alone."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from corank.codecs import Binary
from corank.errors import ConfigError
from corank.matrix import Geometry
from corank.training.callbacks import Callback, Relax
from corank.training.described import described, read
from corank.training.recipe import Recipe
from corank.training.state import TrainedLayer, TrainingState, parametrized
from corank.training.weights import Relaxed, StraightThrough, WeightStart, WeightTraining
from corank.training.weights.relaxed import RelaxedWeight


def state_of(how: WeightTraining, iterations: int = 20) -> tuple[TrainingState, nn.Linear]:
    layer = nn.Linear(6, 3)
    running, _ = how.start(WeightStart(layer.weight.detach()))
    trained = TrainedLayer(layer, Geometry.of(layer), running)
    parametrized(trained)
    return TrainingState(Recipe(iterations=iterations), nn.Sequential(layer), None, {"0": trained}), layer


def share(state: TrainingState) -> float:
    (running,) = (weight for _, _, weight in state.weights())
    assert isinstance(running, RelaxedWeight)
    return float(running.get_buffer("share"))


def test_eta_grows_as_the_authors_has_grown_after_as_many_epochs() -> None:
    relax = Relax()
    for epoch in (0, 1, 75, 149):
        assert relax.eta(epoch / 200) == pytest.approx(1.04**epoch, rel=2e-3)
    assert math.isinf(relax.eta(150 / 200)) and math.isinf(relax.eta(1.0))


def test_every_step_has_the_eta_of_its_place() -> None:
    state, _ = state_of(Relaxed())
    relax = Relax(first=0.5, growth=8.0, until=0.5)
    relax.start(state)
    for step in range(20):
        eta = relax.eta(step / 20)
        expected = 1.0 if step >= 10 else eta / (1 + eta)
        assert share(state) == pytest.approx(expected)
        state.step = step
        relax.step_done(state)
        assert state.measured["share of codes"] == pytest.approx(expected)
    assert share(state) == 1.0


def test_a_run_that_goes_on_has_the_share_it_had() -> None:
    relax, (state, _), (other, _) = Relax(), state_of(Relaxed(), 7), state_of(Relaxed(), 7)
    relax.start(state)
    for step in range(3):
        state.step = step
        relax.step_done(state)
    other.kept.update(state.kept)
    relax.start(other)
    assert share(other) == share(state) != 0.5


def test_the_weights_relax_where_the_network_trains_in_evaluation_mode() -> None:
    state, layer = state_of(Relaxed())
    state.model.eval()
    for _, _, weight in state.weights():
        weight.train()  # as the loop does
    Relax(first=0.0).start(state)
    assert torch.equal(layer.weight, state.layers["0"].latent)


def test_after_the_last_step_only_codes_are_left() -> None:
    state, layer = state_of(Relaxed())
    relax = Relax(until=1.0)
    relax.start(state)
    relax.finished(state)
    assert layer.weight[0].detach().unique().numel() == 2


def test_without_a_relaxed_weight_it_says_so() -> None:
    state, _ = state_of(StraightThrough(Binary()))
    with pytest.raises(ConfigError, match="no weight trains by Relaxed"):
        Relax().start(state)


@pytest.mark.parametrize("fields", [{"first": -1.0}, {"growth": 0.5}, {"until": 0.0}, {"until": 1.5}])
def test_unsound_fields_are_refused(fields: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(fields))):
        Relax(**fields)


def test_json_both_ways() -> None:
    assert read(described(Relax(growth=10.0)), Callback) == Relax(growth=10.0)
