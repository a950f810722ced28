"""The loss and the recipe of weight aligning."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from corank.errors import ConfigError, DataError
from corank.identity import function_identity
from corank.training.objective import Objective
from corank.training.recipe import Recipe
from corank.training.recipes import chosen_recipe
from corank.training.recipes.incremental import KnownClasses, incremental
from corank.training.state import TrainingState

LOGITS = torch.randn(6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
OLD = torch.randn(6, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
LABELS = torch.tensor([0, 1, 2, 3, 4, 3])


@pytest.mark.parametrize("t", [1.0, 2.0])
def test_the_loss_is_the_specifications(t: float) -> None:
    distilled = 0.0
    for given, old in zip(LOGITS, OLD, strict=True):
        expected, found = (old / t).softmax(0), (given[:3] / t).softmax(0)
        distilled -= float((expected * found.log()).sum()) / 6
    expected = (1 - 3 / 5) * float(F.cross_entropy(LOGITS, LABELS)) + 3 / 5 * distilled
    assert float(KnownClasses(3, t)(LOGITS, OLD, LABELS)) == pytest.approx(expected, rel=1e-12)


def test_known_classes_pull_to_the_old_network_and_no_further() -> None:
    logits = torch.cat([OLD, torch.full((6, 2), -20.0, dtype=torch.float64)], 1).requires_grad_()
    share = KnownClasses(3)(logits, OLD, OLD.argmax(1))
    labels = (1 - 3 / 5) * F.cross_entropy(logits, OLD.argmax(1))
    (gradient,) = torch.autograd.grad(share - labels, logits)
    assert float(gradient.abs().amax()) < 1e-12  # at the old network's own logits there is nothing left to learn of it


def test_a_loss_of_ones_own_beside_both_reads_both() -> None:
    state = TrainingState(Recipe(), torch.nn.Linear(2, 2), None, {})
    state.output, state.reference, state.labels, state.batch = LOGITS, OLD, LABELS, LOGITS
    for kind, count in (("distil", 2), ("labels", 2), ("both", 3)):
        seen: list[tuple[torch.Tensor, ...]] = []

        def loss(*given: torch.Tensor, seen: list[tuple[torch.Tensor, ...]] = seen) -> torch.Tensor:
            seen.append(given)
            return given[0].sum()

        objective = Objective(kind, 1.0, loss, False)
        objective(state)
        assert len(seen[0]) == count and objective.is_own
        assert torch.equal(seen[0][1], LABELS if kind == "labels" else OLD.float())
        assert count == 2 or torch.equal(seen[0][2], LABELS)


def test_recipes() -> None:
    assert chosen_recipe("weight-aligning").ends_in_float
    for name in ("weight-aligning-4bit", "weight-aligning-w4a4", "weight-aligning-1bit"):
        recipe = chosen_recipe(name)
        assert recipe.loss == "both" and recipe.start == "codes" and Recipe.from_json(recipe.to_json()) == recipe
    with pytest.raises(ConfigError, match="w4a4"):
        incremental(32, 4)


def test_settings() -> None:
    for given in ({"known": 0}, {"known": 2, "temperature": 0.0}):
        with pytest.raises(ConfigError, match=r"known|positive"):
            KnownClasses(**given)
    with pytest.raises(DataError, match="logits"):
        KnownClasses(2)(torch.zeros(3), OLD, LABELS)
    assert (
        function_identity(KnownClasses(2)) != function_identity(KnownClasses(3)) == function_identity(KnownClasses(3))
    )
