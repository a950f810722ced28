"""The gradient's l1 norm as a penalty: exact where it can be, and off where it is off."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from training.tiny_state import images, small_network, state_of, train

from corank.codecs import Uniform
from corank.errors import ConfigError
from corank.training.described import described, read
from corank.training.penalties import GradientL1, Penalty
from corank.training.penalties.gradient_l1 import gradient_l1
from corank.training.recipe import Recipe
from corank.training.state import TrainingState
from corank.training.weights import DirectLevels, StraightThrough


def recipe(*penalties: Penalty) -> Recipe:
    return Recipe(weights=None, edge=None, edge_inputs=None, penalties=penalties, start="float", iterations=10)


def test_a_linear_function_attains_the_bound() -> None:
    a, w, delta = torch.randn(20, dtype=torch.float64), torch.randn(20, dtype=torch.float64).requires_grad_(), 0.1
    loss = (a * w).sum()
    bound = gradient_l1(loss, ([w], delta))
    assert torch.allclose(bound, delta * a.abs().sum())
    with torch.no_grad():
        assert torch.allclose((a * (w + delta * a.sign())).sum() - loss, bound)
        for _ in range(20):
            noise = delta * (2 * torch.rand(20, dtype=torch.float64) - 1)
            assert (a * (w + noise)).sum() - loss <= bound


def test_zero_is_the_run_without_it_bit_for_bit() -> None:
    plain, zero = small_network(), small_network()
    zero.load_state_dict(plain.state_dict())
    losses = train(state_of(plain, recipe()), range(5))
    assert train(state_of(zero, recipe(GradientL1(0.0, 0.0))), range(5)) == losses
    for one, other in zip(plain.state_dict().values(), zero.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_before_its_share_of_the_steps_it_is_off() -> None:
    plain, late = small_network(True), small_network(True)
    late.load_state_dict(plain.state_dict())
    losses = train(state_of(plain, recipe()), range(10))
    found = train(state_of(late, recipe(GradientL1(0.5, 0.5, from_step=0.5))), range(10))
    assert found[:6] == losses[:6] and found[6:] != losses[6:]


def smooth() -> tuple[nn.Sequential, Tensor, Tensor]:
    model = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    return model, torch.randn(7, 5, dtype=torch.float64), torch.arange(7) % 3


def penalty_of(model: nn.Module, how: GradientL1, inputs: Tensor, labels: Tensor) -> Tensor:
    state = state_of(model, recipe(how))
    how.start(state)
    with state.closing:
        return how(state, F.cross_entropy(model(inputs), labels))


@pytest.mark.parametrize("how", [GradientL1(0.3, 0.0), GradientL1(0.0, 0.3), GradientL1(0.2, 0.5)], ids=str)
def test_the_penaltys_gradient_matches_finite_differences(how: GradientL1) -> None:
    model, inputs, labels = smooth()
    for parameter in model.parameters():
        (found,) = torch.autograd.grad(penalty_of(model, how, inputs, labels), parameter)
        step = 1e-6
        for place in range(0, parameter.numel(), 3):
            values = []
            for side in (step, -2 * step):
                with torch.no_grad():
                    parameter.view(-1)[place] += side
                values.append(float(penalty_of(model, how, inputs, labels).detach()))
            with torch.no_grad():
                parameter.view(-1)[place] += step
            assert abs((values[0] - values[1]) / (2 * step) - float(found.view(-1)[place])) < 1e-6


def test_it_is_the_sum_over_weights_and_outputs() -> None:
    model, inputs, labels = smooth()
    hidden = model[0](inputs)
    logits = model[2](torch.tanh(hidden))
    loss = F.cross_entropy(logits, labels)
    tensors = [model[0].weight, model[2].weight, hidden, logits]
    sums = [float(one.abs().sum()) for one in torch.autograd.grad(loss, tensors)]
    found = penalty_of(model, GradientL1(0.2, 0.5), inputs, labels)
    assert abs(float(found.detach()) - 0.2 * sum(sums[:2]) - 0.5 * sum(sums[2:])) < 1e-12


def test_twice_the_batch_of_the_same_samples_is_the_same_penalty() -> None:
    model, inputs, labels = smooth()
    once = penalty_of(model, GradientL1(0.0, 1.0), inputs, labels)
    twice = penalty_of(model, GradientL1(0.0, 1.0), inputs.repeat(2, 1), labels.repeat(2))
    assert torch.allclose(once, twice)


def test_in_place_activations_change_nothing() -> None:
    inputs, labels = images()
    found, gradients = [], []
    plain = small_network(inplace=False).eval()
    inplace = small_network(inplace=True).eval()
    inplace.load_state_dict(plain.state_dict())
    for model in (plain, inplace):
        penalty = penalty_of(model, GradientL1(0.1, 0.1), inputs, labels)
        found.append(float(penalty.detach()))
        gradients.append(torch.autograd.grad(penalty, model[0].weight)[0])
    assert found[0] == found[1] and torch.equal(*gradients)


def test_nothing_is_left_of_it() -> None:
    model = small_network(True)
    how = GradientL1()
    state = state_of(model, recipe(how))
    how.start(state)
    inputs, labels = images()
    with torch.no_grad():
        model(inputs)
    assert not state.outputs
    copy.deepcopy(model)(inputs)  # a copy has the hooks, too
    assert not state.outputs
    loss = F.cross_entropy(model(inputs), labels)
    assert len(state.outputs) == 3
    how(state, loss)
    assert not state.outputs and all(one.grad is None for one in model.parameters())
    state.closing.close()
    model(inputs)
    assert not state.outputs


@pytest.mark.parametrize("weights", [StraightThrough(Uniform(4)), DirectLevels(2)], ids=str)
def test_beside_low_bit_weights(weights: Any) -> None:
    how = GradientL1(0.1, 0.1)
    state = state_of(small_network(), Recipe(weights=weights, penalties=(how,), start="float", iterations=30))
    before = _norm(state)
    losses = train(state, range(30), rate=0.02)
    state.closing.close()
    assert losses[-1] < losses[0] and _norm(state) < before


def _norm(state: TrainingState) -> float:
    inputs, labels = images(64)
    loss = F.cross_entropy(state.model(inputs), labels)
    trained = [one for one in state.model.parameters() if one.requires_grad and one.dim() > 1]
    return sum(float(one.abs().sum()) for one in torch.autograd.grad(loss, trained))


def test_the_loss_grows_less_under_rounding() -> None:
    """Equal steps with and without; then every weight and output moves by noise of at most 0.1."""
    grown = []
    for penalties in ((), (GradientL1(0.02, 0.02),)):
        torch.manual_seed(1)
        model = small_network()
        state = state_of(model, recipe(*penalties))
        train(state, range(60), rate=0.05)
        state.closing.close()
        inputs, labels = images(256)
        model.eval()
        with torch.no_grad():
            before = F.cross_entropy(model(inputs), labels)
            moved = []
            for seed in range(10):
                torch.manual_seed(seed)
                noisy = copy.deepcopy(model)
                for one in noisy.parameters():
                    one += 0.1 * (2 * torch.rand_like(one) - 1)
                moved.append(float(F.cross_entropy(noisy(inputs), labels) - before))
        grown.append(sum(moved) / len(moved))
    assert grown[1] < grown[0]


def test_settings() -> None:
    how = GradientL1(0.05, 0.0, 0.5)
    assert read(described(how), Penalty) == how and how.differentiates_twice()
    bad: list[dict[str, Any]] = [{"weights": -1.0}, {"outputs": float("nan")}, {"from_step": 1.5}, {"weights": "1"}]
    for fields in bad:
        with pytest.raises(ConfigError):
            GradientL1(**fields)
