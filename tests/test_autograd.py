"""A caller's no_grad or inference_mode, frozen weights, and tensors made in inference mode change nothing."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import corank
from corank.autograd import recording
from corank.refine import reestimate_norms

MODES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "set_grad_enabled": lambda: torch.set_grad_enabled(False),
}
CALLS: dict[str, dict[str, Any]] = {
    "default": {"bits": 3, "search": corank.CoRa(iterations=5)},
    "best": {"preset": "best", "refinement": corank.Refinement(iterations=3, code_rate=0.1)},
    "paper": {"preset": "paper", "search": corank.CoRa(iterations=3, start=0.9)},
    "size": {"size": 2500, "search": corank.CoRa(iterations=5)},
    "rate": {"rate": 2.0},
    "blocks": {"bits": 3, "budget": 0.0, "refinement": corank.BlockReconstruction(iterations=3)},
    "activations": {"activations": 4, "search": "greedy"},
    "joint": {"search": "joint"},
}


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 16),
        nn.ReLU(),
        nn.Linear(16, 5),
    ).eval()


def images() -> Tensor:
    return torch.randn(48, 3, 6, 6, generator=torch.Generator().manual_seed(1))


def same(one: nn.Module, other: nn.Module) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def ordinary(model: nn.Module) -> bool:
    return not any(tensor.is_inference() for tensor in [*model.parameters(), *model.buffers()])


def test_recording_leaves_the_callers_mode_as_it_was() -> None:
    with torch.inference_mode():
        with recording():
            assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
        assert torch.is_inference_mode_enabled()
    with torch.no_grad():
        with recording():
            assert torch.is_grad_enabled()
        assert not torch.is_grad_enabled()
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("call", CALLS)
def test_the_callers_mode_changes_nothing(call: str, mode: str) -> None:
    model = network()
    expected = corank.quantize(model, images(), **CALLS[call])
    with MODES[mode]():
        given = corank.quantize(model, images(), **CALLS[call])
    assert same(given, expected) and ordinary(given)
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("call", CALLS)
def test_frozen_weights_and_tensors_of_inference_mode_are_taken(call: str) -> None:
    expected = corank.quantize(network(), images(), **CALLS[call])
    frozen = network().requires_grad_(False)
    assert same(corank.quantize(frozen, images(), **CALLS[call]), expected)
    assert not any(parameter.requires_grad for parameter in frozen.parameters())
    with torch.inference_mode():
        made, given = network(), images().clone()
    found = corank.quantize(made, [given[:32], given[32:]], **CALLS[call])
    assert same(found, expected) and ordinary(found)


@pytest.mark.parametrize("mode", MODES)
def test_so_do_the_other_calls(mode: str, tmp_path: Path) -> None:
    model, labels = network(), torch.arange(48) % 5
    small = corank.quantize(model, images(), bits=4, search="greedy")
    norms = copy.deepcopy(model)
    with MODES[mode]():
        found = corank.quantize_smallest(model, images(), 100.0, [(images(), labels)], search="greedy")
        compared = corank.compare(model, images(), [(images(), labels)], [], samples=8)
        scored = corank.evaluate(small, [(images(), labels)], model)
        corank.save(small, tmp_path / "small.safetensors")
        loaded = corank.load(tmp_path / "small.safetensors", network())
        plain = corank.to_float(loaded)
        reestimate_norms(norms, images())
    assert ordinary(found.model) and ordinary(loaded) and ordinary(plain)
    assert compared.float_scores["top1"] == corank.evaluate(model, [(images(), labels)]).top1
    assert scored == corank.evaluate(small, [(images(), labels)], model)
    assert same(loaded, small)


@pytest.mark.parametrize("mode", [nullcontext, torch.no_grad, torch.inference_mode])
def test_so_do_exports(mode: Callable[[], AbstractContextManager[Any]], tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    from corank.export import export_onnx

    small = corank.quantize(network(), images(), bits=4, search="greedy")
    with mode():
        exported = export_onnx(small, tmp_path / "small.onnx", images()[:2])
    assert exported.relative_difference < 1e-4
