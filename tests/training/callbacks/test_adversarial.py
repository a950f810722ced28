"""Adversarial training: what the network sees in a step, and that nothing else of the step is touched."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from training.tiny_state import labelled_images, small_network

import corank
from corank.attacks import Attack
from corank.errors import ConfigError, DataError
from corank.training.callbacks import Adversarial, Callback
from corank.training.described import described, read
from corank.training.penalties import GradientL1
from corank.training.recipe import Recipe
from corank.training.state import TrainingState

FLOAT = Recipe(weights=None, edge=None, edge_inputs=None, start="float", loss="labels", iterations=3, batch_size=8)


def state_of(model: nn.Module) -> TrainingState:
    return TrainingState(FLOAT, model, None, {})


def loss_of(state: TrainingState):
    def found(inputs: Any) -> Tensor:
        assert not state.model.training
        return F.cross_entropy(state.model(inputs), state.labels)

    return found


def test_a_step_sees_what_the_attack_gives_and_the_network_is_as_it_was() -> None:
    torch.manual_seed(0)
    state = state_of(small_network().train())
    clean = next(labelled_images(8).batches(8))[0]
    state.batch, state.labels = clean, torch.arange(8) % 4
    buffers = [one.clone() for one in state.model.buffers()]
    how = Adversarial("pgd:8/255,2", mean=(0.0,) * 3, std=(1.0,) * 3)
    how.start(state)
    how.inputs_ready(state, loss_of(state))
    assert state.model.training and all(part.training for part in state.model.modules())
    assert all(torch.equal(one, other) for one, other in zip(buffers, state.model.buffers(), strict=True))
    assert all(one.grad is None for one in state.model.parameters())
    low, high = how.parsed.bounds(clean)
    assert not torch.equal(state.batch, clean) and bool(((state.batch >= low) & (state.batch <= high)).all())


def test_the_data_says_how_its_pixels_are_normalised() -> None:
    torch.manual_seed(0)
    seen: list[Tensor] = []

    class Look(Callback):
        def inputs_ready(self, state: TrainingState, loss_of: Any) -> None:
            seen.append(state.batch)

    recipe = Recipe(
        iterations=2, batch_size=8, loss="labels", augment="none", start="float", callbacks=(Adversarial(),)
    )
    small = corank.train(small_network().eval(), labelled_images(), recipe, callbacks=[Look()])
    (stored,) = corank.Recipe.from_json(small.corank_run.recipe).callbacks
    assert stored == Adversarial(mean=(0.0,) * 3, std=(1.0,) * 3)
    pixels = seen[0] * 255
    assert float((pixels - pixels.round()).abs().amax()) < 1e-3  # 8-bit pixels moved by whole steps of 2, or to an end
    assert len(seen) == 2 and seen[0].shape == (8, 3, 8, 8)


def test_tensors_need_a_mean_and_std() -> None:
    data = (torch.rand(16, 3, 8, 8), torch.arange(16) % 4)
    recipe = FLOAT.replaced(callbacks=(Adversarial(),))
    with pytest.raises(ConfigError, match=r"Adversarial\('fgsm:2/255', mean"):
        corank.train(small_network().eval(), data, recipe)
    told = FLOAT.replaced(callbacks=(Adversarial(mean=(0.0,) * 3, std=(1.0,) * 3),))
    assert isinstance(corank.train(small_network().eval(), data, told), nn.Module)


def test_what_is_distilled_is_of_the_images_as_they_were() -> None:
    torch.manual_seed(0)
    losses = []
    for attack in ("fgsm:0/255", "fgsm:8/255"):
        recipe = Recipe(iterations=1, batch_size=32, augment="none", callbacks=(Adversarial(attack),), norms="frozen",
                        start="float", precision="float32")  # fmt: skip
        small = corank.train(small_network().eval(), labelled_images(), recipe, seed=1)
        losses.append(small.corank_run.history[0]["loss"])
    assert losses[1] > 2 * losses[0]


def test_penalties_that_watch_outputs_see_the_step_alone() -> None:
    torch.manual_seed(0)
    recipe = FLOAT.replaced(penalties=(GradientL1(0.0, 0.01),), callbacks=(Adversarial("fgsm:0/255"),))
    model = small_network().eval()
    with_attack, without = (
        corank.train(model, labelled_images(), one, seed=2) for one in (recipe, recipe.replaced(callbacks=()))
    )
    same = zip(with_attack.state_dict().values(), without.state_dict().values(), strict=True)
    assert all(torch.equal(one, other) for one, other in same)  # an attack of no size changes nothing at all


def test_mappings_are_refused() -> None:
    state = state_of(small_network())
    state.batch = {"image": torch.zeros(2, 3, 8, 8)}
    with pytest.raises(DataError, match="mappings"):
        Adversarial(mean=(0.5,), std=(0.5,)).inputs_ready(state, lambda inputs: inputs)


def test_settings() -> None:
    how = Adversarial("pgd:4/255,3", (0.5, 0.4, 0.3), (0.2, 0.2, 0.2))
    assert read(described(how), Callback) == how and how.parsed == Attack.of("pgd:4/255,3").seen_by(how.mean, how.std)
    with pytest.raises(ConfigError, match="cannot be read"):
        Adversarial("fgsm")
    with pytest.raises(ConfigError, match="one per channel"):
        Adversarial(mean=(0.5,))
