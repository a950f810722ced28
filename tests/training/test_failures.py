"""A step that fails is explained, and undone: what a checkpoint keeps is the state before it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from training.test_resume import STEPS, network, samples, trained

import corank
from corank.errors import ConfigError, TrainingError
from corank.training import loop
from corank.training.callbacks import Callback
from corank.training.failures import all_finite
from corank.training.recipe import Optimizer
from corank.training.state import TrainingState

RECIPE = corank.Recipe(optimizer=Optimizer(rate=0.002), iterations=STEPS, batch_size=12)


@dataclass(frozen=True)
class Spoils(Callback):
    """Makes a number of one step infinite, while ``on``."""

    step: int = 4
    part: str = "loss"
    on: bool = True

    def _now(self, state: TrainingState) -> bool:
        return self.on and state.step == self.step

    def loss_ready(self, state: TrainingState, loss: Tensor) -> Tensor:
        if not self._now(state) or self.part == "result":
            return loss
        if self.part == "loss":
            return loss * float("nan")
        weight = list(state.layers.values())[1].latent
        return loss + (weight.flatten()[0] - weight.flatten()[0].detach()).sqrt()  # infinite slope, finite value

    def step_done(self, state: TrainingState) -> None:
        if self._now(state) and self.part == "result":
            next(iter(state.layers.values())).latent.fill_(float("inf"))


@pytest.mark.parametrize("part", ["loss", "gradient", "result"])
def test_a_step_that_is_not_finite_stops_before_it_spoils_anything(
    part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "_KEPT_EVERY", 5)
    model = network()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(TrainingError, match=f"the {part} of step 5 is not finite at a learning rate of 0.00") as caught:
        corank.train(model, samples(), RECIPE, callbacks=[Spoils(part=part)], checkpoint=tmp_path)
    assert "Optimizer(rate=0.0005)" in str(caught.value) and "another run" in str(caught.value)
    layer = {"gradient": "the gradient of '3' is not", "result": "'0' holds numbers that are not"}
    assert layer.get(part, "") in str(caught.value)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    # the same run without what spoiled it goes on from the state before, to the same end
    seen: list[int] = []

    def progress(what: str, done: int, _total: int) -> None:
        seen.extend([done] if what.startswith("training") else [])

    asked: dict[str, Any] = {"callbacks": [Spoils(part=part, on=False)]}
    assert trained(RECIPE, tmp_path, progress=progress, **asked) == trained(RECIPE, None, **asked)
    assert seen == (list(range(1, 9)) if part == "result" else [5, 6, 7, 8])
    with pytest.raises(ConfigError, match="another run \\(recipe differs\\)"):
        trained(RECIPE.replaced(optimizer=Optimizer(rate=0.0005)), tmp_path)


def test_a_layer_whose_outputs_are_not_finite_is_named() -> None:
    model = network()
    model[10] = Explodes()
    with pytest.raises(TrainingError, match=r"the loss of step 3 is not finite .* the outputs of '10' are not"):
        corank.train(model, samples(), RECIPE, callbacks=[Lights()])


class Explodes(nn.Flatten):
    """Divides by zero once it is lit."""

    lit = False

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) / (0.0 if self.lit else 1.0)


@dataclass(frozen=True)
class Lights(Callback):
    """Lights it after the second step."""

    def step_done(self, state: TrainingState) -> None:
        for module in state.model.modules():
            if isinstance(module, Explodes):
                module.lit = state.step == 1


class Greedy(nn.Identity):
    """Runs out of memory where more than ``most`` samples pass it, once it is lit."""

    most, lit = 6, False

    def forward(self, input: Tensor) -> Tensor:
        if self.lit and len(input) > self.most:
            raise OUT_OF_MEMORY[0]
        return input


@dataclass(frozen=True)
class Fills(Callback):
    """Lights it for the steps from the third on."""

    def step_done(self, state: TrainingState) -> None:
        Greedy.lit = state.step >= 1

    def finished(self, state: TrainingState) -> None:
        Greedy.lit = False


OUT_OF_MEMORY = [torch.OutOfMemoryError("CUDA out of memory.")]
ON_CPU = RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: 8 bytes")


@pytest.mark.parametrize("error", [OUT_OF_MEMORY[0], ON_CPU])
def test_too_little_memory_says_what_fits_and_goes_on_with_it(
    error: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "OUT_OF_MEMORY", [error])
    monkeypatch.setattr(Greedy, "lit", False)
    model = network()
    model[9] = nn.Sequential(Greedy(), model[9])
    asked: dict[str, Any] = {"checkpoint": tmp_path, "recipe": RECIPE, "callbacks": [Fills()]}
    with pytest.raises(TrainingError, match=r"step 3 ran out of memory with 12 samples at once; .*parts=6.* goes on"):
        corank.train(model, samples(), **asked)
    Greedy.lit = False
    seen: list[int] = []

    def progress(what: str, done: int, _total: int) -> None:
        seen.extend([done] if what.startswith("training") else [])

    corank.train(model, samples(), parts=6, progress=progress, **asked)
    assert seen == [3, 4, 5, 6, 7, 8]
    monkeypatch.setattr(Greedy, "most", 0)
    with pytest.raises(
        TrainingError, match=r"with one sample at once; recompute=True holds less, and smaller samples take less$"
    ):
        corank.train(model, samples(), RECIPE, parts=1, callbacks=[Fills()])


def test_what_is_finite() -> None:
    fine = [torch.ones(2, 3), torch.zeros(0), torch.tensor(1e30)]
    assert all_finite(fine) and all_finite([])
    for bad in ("nan", "inf", "-inf"):
        assert not all_finite([*fine, torch.tensor([1.0, float(bad), 2.0])])
