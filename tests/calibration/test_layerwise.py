"""Passes that pause at every layer."""

from __future__ import annotations

import threading
from contextvars import ContextVar

import pytest
import torch
from torch import Tensor, nn

import corank
from corank.calibration import LayerwisePasses
from corank.calibration.interleaved import Interleaving, interleaving_of
from corank.errors import DataError
from corank.notes import collected_notes


class Branching(nn.Module):
    """Takes its second layer only where the batch's mean is positive; uses its first one twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.first(self.first(inputs)).relu()
        if float(inputs.mean()) > 0:
            hidden = self.second(hidden)
        return self.last(hidden)


def targets_of(model: nn.Module) -> dict[str, nn.Module]:
    return dict(model.named_children())


def test_every_layer_sees_what_a_plain_pass_gives_it() -> None:
    model, batches = Branching(), [torch.rand(3, 4), torch.rand(5, 4) + 1]
    seen: dict[tuple[int, str], Tensor] = {}
    with LayerwisePasses(model, targets_of(model), batches) as lockstep:
        for name in targets_of(model):
            for number in range(len(batches)):
                inputs = lockstep.inputs(number, name)
                assert inputs is not None
                seen[number, name] = inputs.clone()
    for number, batch in enumerate(batches):
        hidden = model.first(model.first(batch)).relu()
        assert torch.equal(seen[number, "first"], batch)
        assert torch.allclose(seen[number, "second"], hidden)
        assert torch.allclose(seen[number, "last"], model.second(hidden))


def test_a_weight_changed_at_a_layer_is_what_the_next_layers_see() -> None:
    model, batch = Branching(), torch.rand(3, 4) + 1
    with LayerwisePasses(model, targets_of(model), [batch]) as lockstep:
        assert lockstep.inputs(0, "first") is not None
        with torch.no_grad():
            model.first.weight.zero_()
            model.first.bias.fill_(2.0)
        inputs = lockstep.inputs(0, "second")
    assert inputs is not None and torch.equal(inputs, torch.full((3, 4), 2.0))


def test_a_batch_that_passes_a_layer_by_gives_none_and_goes_on() -> None:
    model = Branching()
    with LayerwisePasses(model, targets_of(model), [-torch.rand(3, 4)]) as lockstep:
        assert lockstep.inputs(0, "first") is not None
        assert lockstep.inputs(0, "second") is None
        assert lockstep.inputs(0, "last") is not None


def test_starting_ahead_changes_nothing() -> None:
    model, batches = Branching(), [torch.rand(3, 4) + 1, torch.rand(2, 4) + 1]
    with LayerwisePasses(model, targets_of(model), batches) as lockstep:
        lockstep.begin(0, "second")
        lockstep.begin(1, "second")
        lockstep.begin(1, "second")
        given = [lockstep.inputs(number, "second") for number in (0, 1)]
    for batch, inputs in zip(batches, given, strict=True):
        assert inputs is not None
        assert torch.allclose(inputs, model.first(model.first(batch)).relu())


def test_an_error_in_the_model_reaches_the_caller_and_no_thread_is_left() -> None:
    model, before = Branching(), threading.active_count()
    with (
        pytest.raises(DataError, match="could not run"),
        LayerwisePasses(model, targets_of(model), [torch.rand(3, 7)]) as one,
    ):
        one.inputs(0, "first")
        one.inputs(0, "second")
    assert threading.active_count() == before
    assert not model.first._forward_pre_hooks
    assert torch.equal(model(torch.zeros(1, 4)), model(torch.zeros(1, 4)))


def test_leaving_early_ends_all_passes_and_keeps_the_thread_count() -> None:
    model, before, threads = Branching(), threading.active_count(), torch.get_num_threads()
    with LayerwisePasses(model, targets_of(model), [torch.rand(3, 4)] * 4) as lockstep:
        lockstep.inputs(2, "first")
        lockstep.begin(3, "first")
    assert threading.active_count() == before
    assert torch.get_num_threads() == threads


class Keeping(nn.Module):
    """Divides by a scale in its first layer's place and multiplies by it again after its second."""

    def __init__(self, on_itself: bool = True, shown: bool = False) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.a, self.b, self.c = (nn.Linear(8, 8) for _ in range(3))
        self.head = nn.Linear(8, 4)
        self.on_itself, self.shown = on_itself, shown
        self.scale, self.last = torch.ones(()), {"features": [torch.ones(())]}

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.a(inputs).relu()
        scale = hidden.abs().amax() + 1
        if self.on_itself:
            self.scale = scale
        if self.shown:
            self.last["features"][0] = hidden
        hidden = self.b(hidden / scale).relu()
        hidden = self.c(hidden * (self.scale if self.on_itself else scale)).relu()
        return self.head(hidden)


def keeping_batches() -> list[Tensor]:
    return [torch.randn(4, 8) * size for size in (1, 10, 3, 30)]


def given_alone(model: nn.Module, batch: Tensor) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    handles = [
        layer.register_forward_pre_hook(lambda _m, args, name=name: found.__setitem__(name, args[0].clone()))
        for name, layer in targets_of(model).items()
    ]
    with torch.no_grad():
        model(batch)
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize("ahead", [False, True])
def test_what_a_module_keeps_between_layers_is_its_own_batchs(ahead: bool) -> None:
    model, batches = Keeping(), keeping_batches()
    with collected_notes() as notes, LayerwisePasses(model, targets_of(model), batches) as passes:
        for name in targets_of(model):
            for number, batch in enumerate(batches):
                if ahead:
                    for one in range(len(batches)):
                        passes.begin(one, name)
                inputs = passes.inputs(number, name)
                assert inputs is not None
                assert torch.allclose(inputs, given_alone(model, batch)[name], rtol=1e-5, atol=1e-6), (name, number)
    assert any("keeps something on itself" in text for text in notes.texts)
    assert not any(layer._forward_pre_hooks for layer in model.children())


def test_passes_that_begin_anew_see_changed_weights_and_inputs() -> None:
    model, batches = Keeping(), keeping_batches()
    with LayerwisePasses(model, targets_of(model), batches) as passes:
        assert passes.inputs(1, "a") is not None
        with torch.no_grad():
            model.a.weight.mul_(2)
        passes.change("b", torch.zeros_like)
        inputs = passes.inputs(1, "c")
        hidden = model.a(batches[1]).relu()
        scale = hidden.abs().amax() + 1
        assert inputs is not None and torch.allclose(inputs, model.b.bias.relu() * scale)


def test_two_networks_that_compute_the_same_get_the_same_codes() -> None:
    data = torch.cat(keeping_batches() * 4)
    models = [Keeping(on_itself) for on_itself in (False, True)]
    models[1].load_state_dict(models[0].state_dict())
    plain, kept = (corank.quantize(model, data, bits=3, budget=0, batch_size=8) for model in models)
    for name in ("a", "b", "c", "head"):
        assert torch.equal(plain.get_submodule(name).code().weight.codes, kept.get_submodule(name).code().weight.codes)
        errors = [model.corank_run.layers[name].relative_output_error for model in (plain, kept)]
        assert errors[0] == pytest.approx(errors[1], rel=1e-4)
    assert not plain.corank_run.notes
    assert [text for text in kept.corank_run.notes if "keeps something on itself" in text]
    assert corank.inspect(kept)["notes"] == list(kept.corank_run.notes) and corank.inspect(kept)["samples"] == 64


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (Branching(), Interleaving(sound=True, at_once=True)),
        (Keeping(False), Interleaving(sound=True, at_once=True)),
        (Keeping(True), Interleaving(sound=False, at_once=False)),
        (Keeping(False, shown=True), Interleaving(sound=True, at_once=False)),  # kept, and never read
    ],
)
def test_two_samples_show_what_may_run_side_by_side(model: nn.Module, expected: Interleaving) -> None:
    width = 4 if isinstance(model, Branching) else 8
    batches = [torch.randn(5, width) * size for size in (1, 7)]
    state = torch.get_rng_state()
    assert interleaving_of(model, targets_of(model), batches, torch.device("cpu")) == expected
    assert torch.equal(torch.get_rng_state(), state)
    assert interleaving_of(model, targets_of(model), batches[:1], torch.device("cpu")).sound


class Noisy(Branching):
    """No two passes are alike."""

    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs + torch.randn_like(inputs))


def test_a_network_that_draws_is_not_taken_for_one_that_keeps() -> None:
    batches = [torch.rand(3, 4) + 1, torch.rand(3, 4) + 2]
    assert interleaving_of(Noisy(), targets_of(Noisy()), batches, torch.device("cpu")).sound is True


class Crowded(nn.Module):
    """Counts how many threads are inside at the same time; keeps the count on itself."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
        self.inside, self.most = 0, 0

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.a(inputs)
        self.inside += 1
        self.most = max(self.most, self.inside)
        for _ in range(20):
            hidden = (hidden @ torch.eye(4)).relu()
        self.inside -= 1
        self.last = hidden
        return self.b(hidden)


def test_modules_that_set_something_run_one_batch_at_a_time() -> None:
    model, batches = Crowded(), [torch.rand(30000, 4) for _ in range(6)]
    with LayerwisePasses(model, targets_of(model), batches) as passes:
        for number in range(len(batches)):
            passes.inputs(number, "a")
        for number in range(len(batches)):
            passes.begin(number, "b")
        for number in range(len(batches)):
            assert passes.inputs(number, "b") is not None
    assert model.most == 1


def test_the_callers_autocast_and_context_reach_the_passes() -> None:
    asked: ContextVar[str] = ContextVar("asked", default="nobody")
    seen: list[tuple[str, bool, int]] = []

    class Asking(Branching):
        def forward(self, inputs: Tensor) -> Tensor:
            seen.append((asked.get(), torch.is_grad_enabled(), torch.get_num_threads()))
            return super().forward(inputs)

    model, batches = Asking(), [torch.rand(3, 4) + 1, torch.rand(3, 4) + 1]
    token = asked.set("me")
    torch.set_num_threads(3)
    other = threading.Thread(target=lambda: torch.set_num_threads(2))  # which new threads would begin with
    other.start()
    other.join()
    with torch.autocast("cpu", torch.bfloat16), LayerwisePasses(model, targets_of(model), batches) as passes:
        inputs = passes.inputs(0, "last")
    asked.reset(token)
    assert inputs is not None and inputs.dtype == torch.bfloat16
    torch.set_num_threads(1)
    assert set(seen) == {("me", False, 3)}
    with LayerwisePasses(model, targets_of(model), batches) as passes:
        inputs = passes.inputs(0, "last")
    assert inputs is not None and inputs.dtype == torch.float32


@pytest.mark.parametrize("refused", [0, 2])
def test_threads_that_cannot_be_had_leave_nothing_behind(refused: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model, threads, active = Branching(), torch.get_num_threads(), threading.active_count()
    batches, begun, start = [torch.rand(3, 4)] * 4, [], threading.Thread.start
    torch.set_num_threads(2)
    monkeypatch.setattr("corank.calibration.layerwise.interleaving_of", lambda *_: Interleaving(True, True))

    def limited(thread: threading.Thread) -> None:
        if len(begun) == refused:
            raise RuntimeError("can't start new thread")
        begun.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)
    try:
        with pytest.raises(RuntimeError, match="can't start new thread"):
            LayerwisePasses(model, targets_of(model), batches)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert threading.active_count() == active
    assert not any(layer._forward_pre_hooks for layer in model.children())
