"""The loop by itself: what trains is what the state says, and what is drawn hangs on seed, step and place alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from corank.calibration import Batches, Context, Samples
from corank.errors import TrainingError
from corank.layers import PreparedModel
from corank.training.feed import Feed
from corank.training.loop import train_steps
from corank.training.penalties import GradientL1
from corank.training.recipe import Optimizer, Recipe, Schedule
from corank.training.state import TrainingState

DATA = torch.randn(24, 4, generator=torch.Generator().manual_seed(0))
RECIPE = Recipe(
    weights=None, inputs=None, edge=None, edge_inputs=None, iterations=4, batch_size=8, augment="none",
    optimizer=Optimizer("sgd", rate=0.1, momentum=0.0), schedule=Schedule("constant", warm=0.0), precision="float32",
)  # fmt: skip


class Doubled:
    """Stands for a float network."""

    kept = None

    def outputs(self, step: int, batch: Any, start: int = 0) -> Any:
        return 2 * batch


def squared(state: TrainingState) -> Tensor:
    return (state.output - state.reference).square().mean()


def trained(model: nn.Module, recipe: Recipe = RECIPE, size: int = 0, groups: Any = ()) -> TrainingState:
    state = TrainingState(recipe, model, None, {}, groups=list(groups))
    feed = Feed(Batches.of(DATA, batch_size=8), Doubled(), squared, size=size)
    train_steps(state, [], feed, Context(PreparedModel(model), Samples.of(DATA, 24)))
    return state


def linear() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(4, 4)


def test_the_states_own_groups_train_at_their_own_rates() -> None:
    model, before = linear(), linear()
    trained(model, groups=[{"params": [model.bias], "lr": 0.05}])
    assert torch.equal(model.weight, before.weight) and not torch.equal(model.bias, before.bias)
    plain = linear()
    trained(plain)
    assert not torch.equal(plain.weight, before.weight)


def test_parts_give_the_steps_of_the_whole_batch() -> None:
    whole, parts = linear(), linear()
    histories = [trained(whole).history, trained(parts, size=3).history]
    torch.testing.assert_close(parts.weight, whole.weight)
    for one, other in zip(*histories, strict=True):
        assert one == pytest.approx(other, rel=1e-5) and set(one) == {"iteration", "loss"}


def test_the_loss_of_the_task_stands_beside_one_with_penalties() -> None:
    history = trained(linear(), RECIPE.replaced(penalties=(GradientL1(weights=0.5, outputs=0.0),))).history
    assert all(set(entry) == {"iteration", "loss", "task"} for entry in history)
    assert history[0]["task"] == pytest.approx(trained(linear()).history[0]["loss"])


def test_what_a_part_draws_hangs_on_its_step_and_place() -> None:
    seen: list[tuple[int, Tensor]] = []

    class Draws(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            seen.append((len(input), torch.rand(2)))
            return super().forward(input)

    for size in (4, 4, 2):
        trained(Draws(4, 4), RECIPE.replaced(iterations=2), size)
    first, again, halves = seen[:4], seen[4:8], seen[8:]
    assert all(torch.equal(one, other) for (_, one), (_, other) in zip(first, again, strict=True))
    assert len({tuple(draw.tolist()) for _, draw in first}) == 4  # another for each part of each step
    assert all(torch.equal(one, other) for (_, one), (_, other) in zip(first, halves[::2], strict=True))
    model, before = Draws(4, 4), torch.random.get_rng_state()
    trained(model)
    assert torch.equal(torch.random.get_rng_state(), before)  # the caller's draws go on as if nothing was drawn


@pytest.mark.parametrize("views", [False, True])
def test_images_keep_their_layout_where_the_network_needs_it(views: bool) -> None:
    """In bfloat16 channels stand last, unless the network looks at what a convolution gave through ``view()``."""
    layouts: list[bool] = []

    class Looks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4 * 16, 3)

        def forward(self, images: Tensor) -> Tensor:
            found = self.body(images)
            layouts.append(images.is_contiguous())
            return self.head(found.view(len(found), -1) if views else found.flatten(1))

    class Zeros:
        kept = None

        def outputs(self, step: int, batch: Any, start: int = 0) -> Any:
            return torch.zeros(len(batch), 3, dtype=torch.float32)

    images, model = torch.randn(24, 3, 6, 6), Looks()
    state = TrainingState(RECIPE.replaced(precision="bfloat16", iterations=2), model, None, {})
    feed = Feed(Batches.of(images, batch_size=8), Zeros(), squared)
    train_steps(state, [], feed, Context(PreparedModel(model), Samples.of(images, 24)))
    assert len(state.history) == 2 and layouts[-2:] == [views, views]


def test_a_loss_that_is_not_finite_leaves_the_history_so_far() -> None:
    model = linear()
    state = TrainingState(RECIPE.replaced(iterations=9), model, None, {})

    def breaks(now: TrainingState) -> Tensor:
        return squared(now) * (float("inf") if now.step == 3 else 1.0)

    with pytest.raises(TrainingError, match="loss of step 4 is not finite"):
        train_steps(
            state, [], Feed(Batches.of(DATA, batch_size=8), Doubled(), breaks),
            Context(PreparedModel(model), Samples.of(DATA, 24)),
        )  # fmt: skip
    assert [entry["iteration"] for entry in state.history] == [1, 2, 3] and state.step == 3
