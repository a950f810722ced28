"""The schedule of PARQ: the inverse slope falls from 1 to 0 along a mirrored sigmoid."""

from __future__ import annotations

import itertools
import math

import pytest
from torch import nn

from corank.codecs import Binary
from corank.errors import ConfigError
from corank.matrix import Geometry
from corank.training.callbacks import Callback, Steepen
from corank.training.described import described, read
from corank.training.recipe import Recipe
from corank.training.state import TrainedLayer, TrainingState, parametrized
from corank.training.weights import Parq, StraightThrough, WeightStart, WeightTraining
from corank.training.weights.parq import ParqWeight


def state_of(how: WeightTraining, iterations: int = 20) -> tuple[TrainingState, nn.Linear]:
    layer = nn.Linear(6, 3)
    running, _ = how.start(WeightStart(layer.weight.detach()))
    trained = TrainedLayer(layer, Geometry.of(layer), running)
    parametrized(trained)
    return TrainingState(Recipe(iterations=iterations), nn.Sequential(layer), None, {"0": trained}), layer


def inverse(state: TrainingState) -> float:
    (running,) = (weight for _, _, weight in state.weights())
    assert isinstance(running, ParqWeight)
    return float(running.get_buffer("inverse"))


def test_it_falls_from_one_to_zero_and_is_a_half_midway() -> None:
    steepen = Steepen(0.2, 0.8)
    found = [steepen.inverse(place / 100) for place in range(101)]
    assert found[:21] == [1.0] * 21 and found[80:] == [0.0] * 21
    assert found[50] == pytest.approx(0.5)
    assert all(one >= other for one, other in itertools.pairwise(found))


def test_it_is_the_normalized_sigmoid() -> None:
    def sigmoid(way: float) -> float:
        return 1 / (1 + math.exp(7 * (way - 0.5)))

    expected = (sigmoid(0.3) - sigmoid(1.0)) / (sigmoid(0.0) - sigmoid(1.0))
    assert Steepen(0.0, 1.0, 7.0).inverse(0.3) == pytest.approx(expected)


def test_below_one_it_is_close_to_a_straight_line() -> None:
    assert Steepen(0.0, 1.0, 0.1).inverse(0.25) == pytest.approx(0.75, abs=1e-3)


def test_every_step_has_the_slope_of_its_place() -> None:
    state, _ = state_of(Parq())
    steepen = Steepen()
    steepen.start(state)
    for step in range(20):
        assert inverse(state) == pytest.approx(steepen.inverse(step / 20))
        state.step = step
        steepen.step_done(state)
    assert inverse(state) == 0.0


def test_a_run_that_goes_on_has_the_slope_it_had() -> None:
    steepen, (state, _), (other, _) = Steepen(), state_of(Parq(), 7), state_of(Parq(), 7)
    steepen.start(state)
    for step in range(3):
        state.step = step
        steepen.step_done(state)
    other.kept.update(state.kept)
    steepen.start(other)
    assert inverse(other) == inverse(state) != 1.0


def test_the_weights_relax_where_the_network_trains_in_evaluation_mode() -> None:
    state, layer = state_of(Parq())
    state.model.eval()
    for _, _, weight in state.weights():
        weight.train()  # as the loop does
    Steepen().start(state)
    assert layer.weight.detach().unique().numel() > 6


def test_after_the_last_step_only_codes_are_left() -> None:
    state, layer = state_of(Parq())
    Steepen(until=1.0).start(state)
    Steepen(until=1.0).finished(state)
    assert layer.weight[0].detach().unique().numel() == 2


def test_without_such_a_weight_it_says_so() -> None:
    state, _ = state_of(StraightThrough(Binary()))
    with pytest.raises(ConfigError, match="no weight trains by Parq"):
        Steepen().start(state)


@pytest.mark.parametrize("fields", [(0.5, 0.5, 10.0), (-0.1, 0.5, 10.0), (0.0, 1.2, 10.0), (0.0, 1.0, 0.0)])
def test_unsound_fields_are_refused(fields: tuple[float, float, float]) -> None:
    with pytest.raises(ConfigError, match="Steepen"):
        Steepen(*fields)


def test_json_both_ways() -> None:
    assert read(described(Steepen(0.1, 0.5, 3.0)), Callback) == Steepen(0.1, 0.5, 3.0)
