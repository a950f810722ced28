"""Errors weighed by the inputs' second moment."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from training.tiny_state import images, small_network, state_of, train

from corank.codecs import Binary
from corank.errors import ConfigError
from corank.training.described import described, read
from corank.training.penalties import Importance, Penalty
from corank.training.penalties.importance import input_moments, weighted_error
from corank.training.recipe import Recipe
from corank.training.state import TrainingState
from corank.training.weights import StraightThrough


def started(*penalties: Penalty) -> TrainingState:
    recipe = Recipe(weights=StraightThrough(Binary()), penalties=penalties, start="float", iterations=20)
    state = state_of(small_network(), recipe)
    state.batch, state.labels = images()
    return state


def test_the_transformed_loss_is_the_loss() -> None:
    inputs = torch.randn(2, 100, 6, dtype=torch.float64)
    moment = inputs.transpose(1, 2) @ inputs / 100
    error = torch.randn(8, 6, dtype=torch.float64)
    energy, transform = torch.linalg.eigh(moment)
    eye = torch.eye(6, dtype=torch.float64).expand(2, 6, 6)
    assert torch.allclose(transform.transpose(1, 2) @ transform, eye, atol=1e-12)
    turned = energy.clamp(min=0).sqrt()[:, :, None] * (transform.transpose(1, 2) @ error.view(2, 4, 6).transpose(1, 2))
    assert torch.allclose(turned.square().sum(), weighted_error(error, moment))
    outputs = inputs @ error.view(2, 4, 6).transpose(1, 2)
    assert torch.allclose(outputs.square().sum() / 100, weighted_error(error, moment))


def test_moments_are_those_of_the_layers_inputs() -> None:
    state = started()
    moments = input_moments(state, state.layers)
    state.model.eval()
    with torch.no_grad():
        inputs = state.model[:-1](state.batch)
    wanted = inputs.T @ inputs / len(inputs)
    off_diagonal = ~torch.eye(128, dtype=torch.bool)
    assert torch.allclose(moments["6"][0][off_diagonal], wanted[off_diagonal], atol=1e-5)
    assert bool((moments["6"][0].diagonal() > wanted.diagonal()).all())
    assert moments["3"].shape == (2, 27, 27)
    bool((torch.linalg.eigvalsh(moments["6"]) > 0).all())


def test_looking_at_the_inputs_changes_nothing() -> None:
    state = started()
    before = {name: tensor.clone() for name, tensor in state.model.state_dict().items()}
    drawn = torch.get_rng_state()
    input_moments(state, state.layers)
    assert state.model.training and torch.equal(torch.get_rng_state(), drawn)
    assert all(torch.equal(tensor, state.model.state_dict()[name]) for name, tensor in before.items())


def test_it_draws_weights_to_their_codes_by_their_inputs() -> None:
    how = Importance(1.0)
    state = started(how)
    penalty = how(state, torch.zeros(()))
    penalty.backward()
    layer, moment = state.layers["6"], state.kept["importance:6"]
    error = (layer.matrix - layer.computed()).detach()
    energy = weighted_error(layer.matrix.detach(), moment)
    assert torch.allclose(layer.latent.grad, 2 * error @ moment[0] / energy, rtol=1e-4, atol=1e-7)


def test_layers_that_are_not_rounded_are_left_out_and_zero_is_nothing() -> None:
    how = Importance(1.0)
    state = started(how)
    whole = float(how(state, torch.zeros(())).detach())
    for _, _, weight in state.weights():
        weight.rounds = False
    assert float(how(state, torch.zeros(())).detach()) == 0 < whole
    assert float(Importance(0.0)(started(), torch.zeros(())).detach()) == 0


def test_moments_are_taken_anew_every_so_many_steps_and_a_run_goes_on_alike() -> None:
    how = Importance(0.1, every=4)
    seen: list[Tensor] = []
    state = started(how)
    train(state, range(10), watch=lambda: seen.append(state.kept["importance:3"]))
    changed = [number for number in range(1, 10) if not torch.equal(seen[number], seen[number - 1])]
    assert changed == [4, 8]
    other = started(how)
    other.model.load_state_dict(state.model.state_dict())
    other.kept.update(state.kept)
    assert train(other, range(10, 14)) == train(state, range(10, 14))
    assert all(torch.equal(tensor, other.kept[name]) for name, tensor in state.kept.items())


def test_the_relative_error_of_outputs_falls() -> None:
    found = []
    for penalties in ((), (Importance(0.3, every=5),)):
        torch.manual_seed(3)
        state = started(*penalties)
        train(state, range(40), rate=0.05)
        layer = state.layers["6"]
        moment = input_moments(state, {"6": layer})["6"]
        matrix = layer.matrix.detach()
        found.append(float(weighted_error(matrix - layer.computed().detach(), moment) / weighted_error(matrix, moment)))
        assert bool(torch.isfinite(F.cross_entropy(state.model(state.batch), state.labels)))
    assert found[1] < 0.9 * found[0]


def test_settings() -> None:
    assert read(described(Importance(0.1, 3)), Penalty) == Importance(0.1, 3)
    bad: list[dict[str, Any]] = [{"weight": -1.0}, {"every": 0}, {"every": 1.5}]
    for fields in bad:
        with pytest.raises(ConfigError):
            Importance(**fields)
