"""Hooks that never stay, and evaluation mode that several threads may ask for."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import corank
from corank.errors import ModelError
from corank.watching import evaluating, input_of, watched, with_input


def hooks_of(model: nn.Module) -> int:
    return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in model.modules())


def test_hooks_see_every_call_by_name_and_are_gone_afterwards() -> None:
    model, seen = nn.Sequential(nn.Linear(3, 3), nn.ReLU()), []

    def hook(name: str):
        return lambda module, args, named, output: seen.append((name, type(module), args[0].shape, output.shape))

    with watched(dict(model.named_children()), hook):
        model(torch.zeros(2, 3))
    model(torch.zeros(2, 3))
    assert seen == [("0", nn.Linear, (2, 3), (2, 3)), ("1", nn.ReLU, (2, 3), (2, 3))]
    assert not hooks_of(model)


def test_hooks_may_change_inputs_and_outputs() -> None:
    model = nn.Linear(2, 2, bias=False)
    inputs = torch.randn(1, 2)
    with watched({0: model}, lambda _: lambda module, args, named: with_input(args, named, 2 * args[0]), before=True):
        assert torch.equal(model(inputs), model.forward(2 * inputs))
    with watched({0: model}, lambda _: lambda module, args, named, output: output + 1):
        assert torch.equal(model(inputs), model.forward(inputs) + 1)


@pytest.mark.parametrize("before", [True, False])
def test_hooks_are_removed_after_errors_and_when_one_cannot_be_made(before: bool) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))

    def refuse(name: str):
        if name == "1":
            raise RuntimeError("no hook")
        return lambda *_: None

    with pytest.raises(RuntimeError, match="no hook"), watched(dict(model.named_children()), refuse, before=before):
        pass
    assert not hooks_of(model)
    with (
        pytest.raises(ValueError, match="inside"),
        watched(dict(model.named_children()), lambda _: lambda *_: None, before=before),
    ):
        raise ValueError("inside")
    assert not hooks_of(model)


def test_the_inputs_of_a_layer_by_place_and_by_name() -> None:
    one = torch.ones(2)
    assert input_of((one, 3), {}) is one and input_of((), {"input": one}) is one and input_of((), {"x": one}) is one
    assert with_input((one, 3), {"a": 1}, one + 1)[0][1] == 3
    assert torch.equal(with_input((), {"x": one}, one + 1)[1]["x"], one + 1)
    for args, named in (((), {}), ((None,), {}), ((), {"input": [one]})):
        with pytest.raises(ModelError, match="inputs, a tensor"):
            input_of(args, named)


class Keyword(nn.Linear):
    """Takes its inputs under another name."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)


class Named(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = Keyword(6, 6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(input=self.first(x).relu())


def test_layers_that_are_called_by_name_are_quantized() -> None:
    small = corank.quantize(Named(), torch.randn(32, 6), bits=3, budget=0)
    assert set(small.corank_run.layers) == {"first", "second"}


def test_a_model_leaves_evaluation_mode_with_the_last_that_asked_for_it() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
    model[0].eval()
    first, second = evaluating(model), evaluating(model, model[1])
    first.__enter__()
    second.__enter__()
    assert not any(part.training for part in model.modules())
    first.__exit__(None, None, None)
    assert not any(part.training for part in model.modules())  # the second is at work still
    second.__exit__(None, None, None)
    assert [part.training for part in model.modules()] == [True, False, True]


class Slow(nn.Module):
    """Notes its mode after others had time to come and go."""

    def __init__(self) -> None:
        super().__init__()
        self.modes: list[bool] = []
        self.inside, self.leave = threading.Event(), threading.Event()

    def forward(self, inputs: Tensor) -> Tensor:
        if threading.current_thread() is not threading.main_thread():
            self.inside.set()
            assert self.leave.wait(10)
        self.modes.append(self.training)
        return inputs


def test_scoring_a_shared_reference_in_threads_stays_in_evaluation_mode() -> None:
    shared, data = Slow(), [(torch.eye(4), torch.arange(4))]
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(corank.evaluate(nn.Identity(), data, shared)))
    held = evaluating(shared)  # as another evaluation, begun before and ended within
    held.__enter__()
    thread.start()
    assert shared.inside.wait(10)
    held.__exit__(None, None, None)
    shared.leave.set()
    thread.join()
    assert shared.modes == [False] and shared.training and results[0].agreement == 100.0
