"""Upper bounds of whole networks: above every Jacobian, equal to what is known, and never silently wrong."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from corank.analysis.bounds import NetworkBound, network_bound
from corank.analysis.jacobian import jacobian_norms
from corank.layers import prepare
from corank.matrix import SUPPORTED, Geometry
from corank.models.residual import ResidualBlock
from corank.operators import norm_bound


class Of(nn.Module):
    """A function as a network."""

    def __init__(self, function: Callable[..., Tensor], *parts: nn.Module) -> None:
        super().__init__()
        self.function, self.parts = function, nn.ModuleList(parts)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.function(inputs, *self.parts)


def bound_of(model: nn.Module, inputs: Tensor) -> NetworkBound:
    model.eval()
    sizes: dict[str, tuple[int, ...]] = {}
    layers = {name: module for name, module in model.named_modules() if isinstance(module, SUPPORTED)}
    handles = [
        module.register_forward_pre_hook(
            lambda module, args, name=name: sizes.update(
                {name: tuple(args[0].shape[-len(Geometry.of(module).kernel) - 1 :])}
            )
        )
        for name, module in layers.items()
    ]
    with torch.no_grad():
        model(inputs)
    for handle in handles:
        handle.remove()
    bounds = {
        name: norm_bound(Geometry.of(layers[name]), layers[name].get_parameter("weight"), size)
        for name, size in sizes.items()
    }
    return network_bound(model, lambda one: one(inputs[:1]), inputs[:1], bounds)


def jacobian(model: nn.Module, inputs: Tensor) -> float:
    found = torch.autograd.functional.jacobian(lambda one: model(one[None])[0].flatten(), inputs[0])
    return float(torch.linalg.matrix_norm(found.flatten(1), 2))


def convolution(inputs: int = 3, outputs: int = 4) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "chain": lambda: nn.Sequential(
        convolution(), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 3)
    ),
    "residual": lambda: nn.Sequential(ResidualBlock(3, 6, 2), ResidualBlock(6, 6, 1), nn.AdaptiveAvgPool2d(1)),
    "in place": lambda: nn.Sequential(convolution(), nn.ReLU(True), convolution(4, 4), nn.LeakyReLU(0.1, True)),
    "joined": lambda: Of(lambda x, a, b: torch.cat([a(x), b(x).tanh()], 1).mean((2, 3)), convolution(), convolution()),
    "pools": lambda: nn.Sequential(
        nn.MaxPool2d(3, 1, 1), nn.AvgPool2d(3, 2), nn.AdaptiveAvgPool2d(2), nn.GELU(), nn.SiLU()
    ),
    "constants": lambda: Of(
        lambda x: 3 * x[:, 1:] - x[:, :2] / 2 + 5 + x[:, :1] * torch.tensor([2.0, -4.0]).reshape(2, 1, 1)
    ),
    "kernel of its own": lambda: Of(lambda x, a: F.conv2d(x, a.weight, None, 2, 1), convolution()),
    "matrix of its own": lambda: Of(lambda x, a: x.flatten(1) @ a.weight.T, nn.Linear(108, 4)),
    "shifted": lambda: Of(lambda x: F.pad(x[:, :, ::2], (1, 0, 0, 1)).flip(1).transpose(2, 3).sum(1)),
    "group norm": lambda: nn.Sequential(convolution(), nn.GroupNorm(2, 4)),
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_no_jacobian_is_above_the_bound(name: str) -> None:
    model, inputs = NETWORKS[name]().eval(), torch.randn(6, 3, 6, 6)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.uniform_(0.3, 2)  # pyright: ignore[reportOptionalMemberAccess]
            nn.init.normal_(module.weight)
    found = bound_of(model, inputs)
    norms = jacobian_norms(model, inputs, 200)
    assert not found.reasons and 0 < float(norms.max()) <= found.value * (1 + 1e-5) < math.inf
    dense = torch.tensor([jacobian(model, one[None]) for one in inputs])
    assert bool((norms <= dense * (1 + 1e-4)).all())
    assert torch.allclose(norms, dense, rtol=0.02)


def test_the_bound_is_the_product_along_a_chain_and_the_sum_of_branches() -> None:
    one, two = nn.Linear(6, 6), nn.Linear(6, 6)
    norms = [float(torch.linalg.matrix_norm(layer.weight.detach(), 2)) for layer in (one, two)]
    inputs = torch.randn(2, 6)
    assert bound_of(nn.Sequential(one, nn.ReLU(), two), inputs).value == pytest.approx(norms[0] * norms[1], rel=1e-5)
    assert bound_of(Of(lambda x, a, b: b(a(x) + x), one, two), inputs).value == pytest.approx(
        (norms[0] + 1) * norms[1], rel=1e-5
    )
    assert bound_of(Of(lambda x, a, b: torch.cat([a(x), b(x)], 1), one, two), inputs).value == pytest.approx(
        math.hypot(*norms), rel=1e-5
    )


def test_folded_norms_have_the_tighter_bound() -> None:
    model, inputs = NETWORKS["residual"]().eval(), torch.randn(2, 3, 6, 6)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.1, 2)
    folded = prepare(model, lambda one: one(inputs)).model
    assert jacobian(folded, inputs) <= bound_of(folded, inputs).value <= bound_of(model, inputs).value


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (Of(lambda x: x.flatten(1) * x.flatten(1)), "both hang on the input"),
        (Of(lambda x: x / (1 + x.abs())), "divides by what hangs"),
        (Of(lambda x: x.flatten(2) @ x.flatten(2).transpose(1, 2)), "as attention does"),
        (Of(lambda x: x.exp()), "no bound is known here of exp"),
        (nn.MultiheadAttention(12, 2, batch_first=True), "bound"),
    ],
)  # fmt: skip
def test_what_has_no_bound_is_said(model: nn.Module, reason: str) -> None:
    inputs = torch.randn(2, 3, 12)
    if isinstance(model, nn.MultiheadAttention):
        attention = model
        model = Of(lambda x, a: a(x, x, x)[0], attention)
    found = network_bound(model.eval(), lambda one: one(inputs[:1]), inputs[:1], {})
    assert found.value == math.inf
    assert any(reason in said for said in found.reasons.values())


def test_a_dead_output_stretches_nothing() -> None:
    assert jacobian_norms(lambda x: (x * 0).sum(1, keepdim=True), torch.randn(3, 4)).tolist() == [0, 0, 0]
