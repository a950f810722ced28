"""Layers become low-bit one after the other."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from training.tiny_state import images, small_network, state_of, train

from corank.codecs import Binary, Uniform
from corank.errors import ConfigError
from corank.training.callbacks import Callback, LayerByLayer
from corank.training.described import described, read
from corank.training.penalties import Importance
from corank.training.penalties.importance import input_moments, weighted_error
from corank.training.recipe import Recipe
from corank.training.state import TrainingState
from corank.training.weights import LearnedStep, StraightThrough, WeightTraining

BINARY = StraightThrough(Binary())


def started(how: LayerByLayer, weights: WeightTraining = BINARY, **fields: Any) -> TrainingState:
    recipe = Recipe(weights=weights, callbacks=(how,), start="float", iterations=12, **fields)
    return state_of(small_network(), recipe)


def rounded(state: TrainingState) -> list[bool]:
    return [weight.rounds for _, _, weight in state.weights()]


def test_from_the_input_on() -> None:
    state, seen = started(LayerByLayer(0.5)), []
    LayerByLayer(0.5).start(state)
    assert rounded(state) == [True, False, False]
    train(state, range(12), watch=lambda: seen.append(sum(rounded(state))))
    # reached once 0, 1/6 and 1/3 of 12 steps are done
    assert seen == [1, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3, 3]


def test_layers_not_reached_compute_with_their_float_weight() -> None:
    state = started(LayerByLayer())
    floats = {name: layer.latent.detach().clone() for name, layer in state.layers.items()}
    LayerByLayer().start(state)
    for name in ("3", "6"):
        assert torch.equal(state.layers[name].module.weight, floats[name])
        assert torch.equal(state.layers[name].computed(), state.layers[name].matrix)
    assert len(state.layers["0"].module.weight[0].unique()) == 2


@pytest.mark.parametrize("until", [0.0, 1.0])
def test_at_the_end_all_are_low_bit(until: float) -> None:
    state = started(LayerByLayer(until))
    train(state, range(12))
    assert rounded(state) == [True, True, True]
    assert all(
        torch.equal(weight(layer.matrix), weight.coded(layer.matrix).decode()) for _, layer, weight in state.weights()
    )


@pytest.mark.parametrize("weights", [StraightThrough(Binary()), LearnedStep(Uniform(2))], ids=str)
def test_a_layer_is_reached_with_codes_for_its_inputs(weights: WeightTraining) -> None:
    """The error of its outputs, for inputs from the quantized layers before it, is below that of the nearest codes."""
    errors = []
    for rounds in (0, 4):
        torch.manual_seed(0)
        how = LayerByLayer(1.0, rounds)
        state = started(how, weights)
        how.start(state)
        state.batch, state.labels = images()
        layer = state.layers["3"]
        given = layer.matrix.detach().clone()
        for state.step in range(4):
            how.step_done(state)
        assert rounded(state) == [True, True, False]
        moment = input_moments(state, {"3": layer})["3"]
        errors.append(float(weighted_error(given - layer.computed().detach(), moment)))
    assert errors[1] < 0.97 * errors[0]


def test_a_killed_run_goes_on_alike() -> None:
    how, penalties = LayerByLayer(0.5), (Importance(0.1, every=5),)
    whole, first = started(how, penalties=penalties), started(how, penalties=penalties)
    first.model.load_state_dict(whole.model.state_dict())
    losses = train(whole, range(12))
    begun = train(first, range(3))
    kept = {name: tensor.clone() for name, tensor in first.kept.items()}
    kept["layer-by-layer:reached"] = torch.tensor(2)  # as it was before the run of three steps was finished
    again = started(how, penalties=penalties)
    again.model.load_state_dict(first.model.state_dict())
    again.kept.update(kept)
    assert begun + train(again, range(3, 12)) == losses
    assert all(torch.equal(one, again.model.state_dict()[name]) for name, one in whole.model.state_dict().items())


def test_settings() -> None:
    assert read(described(LayerByLayer(0.3, 2)), Callback) == LayerByLayer(0.3, 2)
    bad: list[dict[str, Any]] = [{"until": 1.5}, {"until": "1"}, {"rounds": -1}, {"rounds": 1.0}]
    for fields in bad:
        with pytest.raises(ConfigError):
            LayerByLayer(**fields)
