"""Passes that pause at every layer."""

from __future__ import annotations

import threading

import pytest
import torch
from reference.networks import Branching, Keeping, keeping_batches, targets_of
from torch import Tensor, nn

import corank
from corank.calibration import LayerwisePasses
from corank.errors import DataError
from corank.notes import collected_notes


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
