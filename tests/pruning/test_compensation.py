"""Layers that read what goes are fitted to do without: the least squares, and nothing else."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import corank
from corank.calibration import Samples, streamed
from corank.pruning import compensation
from corank.pruning.compensation import compensate
from corank.pruning.coupling import Coupling, Side
from corank.pruning.removal import remove
from corank.pruning.request import METHODS


def channels(count: int) -> Tensor:
    return torch.arange(count)


def pair(reader: nn.Module, giver: nn.Module | None = None) -> tuple[nn.Sequential, Coupling]:
    """Something that gives eight channels, an activation, and what reads them."""
    torch.manual_seed(0)
    giver = nn.Conv2d(3, 8, 3, padding=1) if giver is None else giver
    model = nn.Sequential(giver, nn.ReLU(), reader).eval()
    model.requires_grad_(False)
    return model, Coupling(
        "0", 8, (Side("0", "out", channels(8), channels(8)), Side("2", "in", channels(8), channels(8)))
    )


def seen(*size: int) -> Samples:
    return Samples.of(torch.randn(64, *size, generator=torch.Generator().manual_seed(1)), 64)


GONE = torch.tensor([0, 1, 0, 0, 0, 1, 0, 1], dtype=torch.bool)
IN_GROUPS = torch.tensor([0, 1, 0, 0, 0, 1, 0, 0], dtype=torch.bool)  # at the same place of both groups


@pytest.mark.parametrize(
    ("reader", "gone"),
    [
        (nn.Conv2d(8, 5, 3, padding=1, bias=False), GONE),
        (nn.Conv2d(8, 5, 3, stride=2), GONE),
        (nn.Conv2d(8, 6, 3, padding=1, groups=2, bias=False), IN_GROUPS),
        (nn.ConvTranspose2d(8, 4, 2, stride=2), GONE),
    ],
)
def test_it_is_the_least_squares(reader: nn.Module, gone: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compensation, "_DAMPING", 1e-9)
    model, coupling = pair(reader)
    samples, whole = seen(3, 6, 6), copy.deepcopy(model)
    assert compensate(model, [coupling], {0: gone}, samples) == ("2",)
    remove(model, [coupling], {0: gone})
    inputs = torch.cat(samples.batches)
    fitted = copy.deepcopy(model).requires_grad_(False)
    weight = fitted[2].weight.requires_grad_(True)
    given = [weight] + ([] if fitted[2].bias is None else [fitted[2].bias.requires_grad_(True)])
    (whole(inputs).detach() - fitted(inputs)).square().mean().backward()
    for one in given:  # at the minimum nothing pulls
        assert float(one.grad.abs().max()) < 1e-5  # pyright: ignore[reportOptionalMemberAccess]


def test_what_others_give_as_well_is_given_back() -> None:
    model, coupling = pair(nn.Conv2d(8, 5, 3, padding=1))
    with torch.no_grad():
        for one, other in ((1, 0), (5, 4), (7, 6)):  # channels that go are those that stay, twice as large
            model[0].weight[one] = 2 * model[0].weight[other]
            model[0].bias[one] = 2 * model[0].bias[other]
    samples = seen(3, 6, 6)
    inputs, narrow = torch.cat(samples.batches), copy.deepcopy(model)
    expected = model(inputs)
    compensate(model, [coupling], {0: GONE}, samples)
    for one in (model, narrow):
        remove(one, [coupling], {0: GONE})
    lost = float((narrow(inputs) - expected).norm() / expected.norm())
    left = float((model(inputs) - expected).norm() / expected.norm())
    assert lost > 0.3 and left < 0.02  # damping of a hundredth


def test_a_bias_takes_what_the_means_differ_by() -> None:
    model, coupling = pair(nn.Linear(8, 4), nn.Linear(3, 8))
    with torch.no_grad():
        model[0].weight[GONE] = 0.0
        model[0].bias[GONE] = 3.0  # constants: nothing that stays tells them, and the bias can hold them
    samples = seen(3)
    inputs = torch.cat(samples.batches)
    expected = model(inputs)
    compensate(model, [coupling], {0: GONE}, samples)
    remove(model, [coupling], {0: GONE})
    torch.testing.assert_close(model(inputs), expected, rtol=1e-4, atol=1e-4)


def test_shared_weights_and_wide_layers_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    model, coupling = pair(nn.Linear(8, 4), nn.Linear(3, 8))
    samples, before = seen(3), copy.deepcopy(model.state_dict())
    model.add_module("other", nn.Linear(8, 4))
    model[3].weight = model[2].weight
    assert compensate(nn.Sequential(*model[:3], nn.Identity(), Held(model[2])), [coupling], {0: GONE}, samples) == ()
    monkeypatch.setattr(compensation, "_WIDEST", 7)
    assert compensate(model[:3], [coupling], {0: GONE}, samples) == ()
    for name, value in model[:3].state_dict().items():
        assert torch.equal(value, before[name])


class Held(nn.Module):
    """A module that holds another's weight beside its own work, which is none."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.weight = layer.weight

    def forward(self, x: Tensor) -> Tensor:
        return x


def test_parts_give_what_the_whole_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch_pruning")
    from pruning.networks import images, network

    first = corank.prune(network("residual"), images("residual"), 0.3, "magnitude", iterations=0)
    monkeypatch.setattr(streamed, "_HELD_BYTES", 1)
    second = corank.prune(network("residual"), images("residual"), 0.3, "magnitude", iterations=0)
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)  # the positions that are drawn are others


def test_a_pruned_network_is_nearer_and_the_method_says_whether() -> None:
    pytest.importorskip("torch_pruning")
    from pruning.networks import images, network

    given = torch.randn(256, *images("residual").shape[1:], generator=torch.Generator().manual_seed(3))
    model = network("residual")
    apart = {}
    for fitted in (False, True):
        method = replace(METHODS["magnitude"], compensate=fitted)
        small = corank.prune(model, given, 0.4, method, iterations=0)
        with torch.no_grad():
            apart[fitted] = float((small(given) - model(given)).square().mean())
    assert apart[True] < 0.5 * apart[False]
