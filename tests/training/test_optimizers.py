"""Optimizers by name; what AdamP and SGDP owe by their paper."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from training.stepping import state_of

from corank.codecs import StatsQ, Uniform
from corank.errors import ConfigError
from corank.training.optimizers import build, groups_of
from corank.training.recipe import Optimizer, Recipe
from corank.training.weights import LearnedStep, StraightThrough

TIMM = ("adamp", "lion", "sgdp")
TORCH = ("adam", "adamw", "nadam", "radam", "rmsprop", "sgd")


def built(how: Optimizer, *parameters: nn.Parameter, **own: Any) -> torch.optim.Optimizer:
    if how.name in TIMM:
        pytest.importorskip("timm", reason="needs the extra `vision`")
    return build(how, [{"params": list(parameters), **own}])


def gradients(shape: tuple[int, ...], steps: int) -> list[Tensor]:
    return [torch.randn(shape) for _ in range(steps)]


def course(optimizer: torch.optim.Optimizer, weight: nn.Parameter, given: list[Tensor]) -> list[Tensor]:
    found = []
    for gradient in given:
        weight.grad = gradient.clone()
        optimizer.step()
        found.append(weight.detach().clone())
    return found


def scale_invariant(weight: Tensor) -> Tensor:
    """The gradient of a loss that knows only the directions of the channels, as before a norm."""
    weight = weight.detach().requires_grad_()
    rows = weight.flatten(1)
    target = torch.randn(rows.shape, generator=torch.Generator().manual_seed(3))
    loss = (rows / rows.norm(dim=1, keepdim=True) * target).sum()
    return torch.autograd.grad(loss, weight)[0]


@pytest.mark.parametrize("name", ["adamp", "sgdp"])
def test_a_projected_update_is_orthogonal_to_each_channel(name: str) -> None:
    weight = nn.Parameter(torch.randn(8, 4, 3, 3, dtype=torch.float64))
    optimizer = built(Optimizer(name, rate=0.05), weight)
    for _ in range(5):
        before = weight.detach().clone()
        weight.grad = scale_invariant(weight).double()
        optimizer.step()
        step = (weight.detach() - before).flatten(1)
        rows = before.flatten(1)
        along = (step * rows).sum(1).abs() / (step.norm(dim=1) * rows.norm(dim=1))
        assert along.max() < 1e-7
        squares = rows.square().sum(1) + step.square().sum(1)
        torch.testing.assert_close(weight.detach().flatten(1).square().sum(1), squares, rtol=1e-7, atol=0)


def test_where_channels_are_not_invariant_the_whole_weight_may_be() -> None:
    weight = nn.Parameter(torch.randn(4, 16, dtype=torch.float64))
    before = weight.detach().clone()
    gradient = torch.randn_like(before)
    gradient -= before * (gradient * before).sum() / before.square().sum()
    weight.grad = gradient
    built(Optimizer("sgdp", rate=0.1, momentum=0.0), weight).step()
    step = weight.detach() - before
    assert abs(float((step * before).sum())) < 1e-7
    assert (step * before).sum(1).abs().max() > 1e-2


def test_a_gradient_along_the_weight_is_left_alone() -> None:
    weight = nn.Parameter(torch.randn(4, 16))
    before = weight.detach().clone()
    weight.grad = before.clone()
    built(Optimizer("sgdp", rate=0.1, momentum=0.0), weight).step()
    torch.testing.assert_close(weight.detach(), 0.9 * before)


@pytest.mark.parametrize("name", ["adamp", "sgdp"])
def test_vectors_are_never_projected(name: str) -> None:
    """As with a threshold of zero, although the gradient is orthogonal."""
    start = torch.randn(64)
    courses = []
    for own in ({}, {"delta": 0.0}):
        weight = nn.Parameter(start.clone())
        optimizer = built(Optimizer(name, rate=0.1, decay=0.01), weight, **own)
        found = []
        for step in range(5):
            gradient = torch.randn(64, generator=torch.Generator().manual_seed(step))
            found += course(optimizer, weight, [gradient - weight.detach() * (gradient @ weight.detach())])
        courses.append(found)
    assert all(torch.equal(one, other) for one, other in zip(*courses, strict=True))


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("adamp", lambda w: torch.optim.AdamW([w], lr=0.01, weight_decay=0.1, eps=1e-8)),
        ("sgdp", lambda w: torch.optim.SGD([w], lr=0.01, momentum=0.9)),
    ],
)
def test_a_threshold_of_zero_gives_torchs_own(name: str, other: Callable[[nn.Parameter], Any]) -> None:
    start, given = torch.randn(8, 12, dtype=torch.float64), [one.double() for one in gradients((8, 12), 20)]
    ours, torchs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    decay = 0.1 if name == "adamp" else 0.0
    optimizer = built(Optimizer(name, rate=0.01, decay=decay), ours, delta=0.0)
    for one, two in zip(course(optimizer, ours, given), course(other(torchs), torchs, given), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-12)


def test_decay_is_a_tenth_where_the_update_is_projected() -> None:
    weight = nn.Parameter(torch.randn(8, 36, dtype=torch.float64))
    before = weight.detach().clone()
    weight.grad = torch.zeros_like(before)
    built(Optimizer("adamp", rate=0.1, decay=0.5), weight).step()
    torch.testing.assert_close(weight.detach(), before * (1 - 0.1 * 0.5 * 0.1))


def test_norms_of_scale_invariant_weights_grow_less_under_adamp() -> None:
    grown = {}
    for name in ("adamw", "adamp"):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 4))
        convolution = model[0]
        assert isinstance(convolution, nn.Conv2d)
        optimizer = built(Optimizer(name, rate=0.02), *model.parameters())
        start = float(convolution.weight.detach().norm())
        for step in range(60):
            generator = torch.Generator().manual_seed(step)
            images, labels = torch.randn(16, 3, 8, 8, generator=generator), torch.arange(16) % 4
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
        grown[name] = float(convolution.weight.detach().norm()) / start
    assert 1 < grown["adamp"] < grown["adamw"]


def test_timms_classes_keep_their_papers_numbers() -> None:
    optimizer = built(Optimizer("adamp", rate=0.1, decay=0.2), nn.Parameter(torch.zeros(2, 2)))
    (group,) = optimizer.param_groups
    told = {name: group[name] for name in ("lr", "weight_decay", "delta", "wd_ratio", "nesterov", "betas", "eps")}
    assert told == {
        "lr": 0.1, "weight_decay": 0.2, "delta": 0.1, "wd_ratio": 0.1, "nesterov": False, "betas": (0.9, 0.999),
        "eps": 1e-8,
    }  # fmt: skip


@pytest.mark.parametrize("name", [*TIMM, *TORCH])
def test_what_it_remembers_of_a_parameter_is_all_it_remembers(name: str) -> None:
    """A checkpoint holds no more."""
    start, given = torch.randn(6, 20), gradients((6, 20), 12)
    whole = nn.Parameter(start.clone())
    optimizer = built(Optimizer(name, rate=0.01, decay=0.01), whole)
    expected = course(optimizer, whole, given)
    first = nn.Parameter(start.clone())
    before = built(Optimizer(name, rate=0.01, decay=0.01), first)
    course(before, first, given[:5])
    second = nn.Parameter(first.detach().clone())
    after = built(Optimizer(name, rate=0.01, decay=0.01), second)
    after.load_state_dict({**after.state_dict(), "state": before.state_dict()["state"]})
    assert torch.equal(course(after, second, given[5:])[-1], expected[-1])


@pytest.mark.parametrize("name", [*TIMM, *TORCH])
def test_groups_have_their_own_rates_and_decays(name: str) -> None:
    if name in TIMM:
        pytest.importorskip("timm", reason="needs the extra `vision`")
    how = Optimizer(name, rate=0.01, decay=0.1, momentum=0.7, step_rate=2.0)
    optimizer = build(how, groups_of(state_of(Recipe(weights=LearnedStep(Uniform(4)), optimizer=how))))
    assert [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups] == [
        (0.01, 0.1), (0.01, 0.0), (0.02, 0.0),
    ]  # fmt: skip
    assert all(group.get("momentum", 0.7) == 0.7 for group in optimizer.param_groups)


def test_steps_are_not_projected() -> None:
    pytest.importorskip("timm", reason="needs the extra `vision`")
    how = Optimizer("adamp")
    groups = build(how, groups_of(state_of(Recipe(weights=LearnedStep(Uniform(4)), optimizer=how)))).param_groups
    assert [group["delta"] for group in groups] == [0.1, 0.1, 0.0]


def test_an_unknown_name_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'adamw'"):
        build(Optimizer("adamw2"), groups_of(state_of(Recipe(weights=StraightThrough(StatsQ(2))))))


def test_what_to_install_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm.optim", None)
    with pytest.raises(ConfigError, match=r"'adamp' is timm's: pip install 'corank\[vision\]'"):
        build(Optimizer("adamp"), [{"params": [nn.Parameter(torch.zeros(2))]}])


def test_nothing_to_train_is_said() -> None:
    with pytest.raises(ConfigError, match="nothing trains"):
        build(Optimizer(), [])
