"""Scales by the output they give: exact for the codes, never worse, and BiTAT's binarization as the case of one bit."""

from __future__ import annotations

import itertools
from typing import cast

import pytest
import torch
from torch import Tensor

from corank.codecs import Binary, DenseShift, KMeans, PowerOfTwo, Quantiles, ScalarCodebook, Ternary, Uniform
from corank.coding.layer import code_layer
from corank.errors import ConfigError
from corank.plan import LayerPlan, Plan
from corank.rounding import Gptq, Nearest
from corank.rounding.pruned import Pruned, smallest
from corank.rounding.refit import alternate, refit_scales
from corank.statistics import Gram, LayerStatistics

CODECS = (
    Binary(),
    Ternary(),
    DenseShift(2),
    Uniform(2, range="mse", half=True),
    Uniform(3, group=5),
    Uniform(3, group=-1),
)


def problem(groups: int = 1, rows: int = 5, columns: int = 12) -> tuple[Tensor, Tensor]:
    inputs = torch.randn(groups, 300, columns) @ torch.randn(groups, columns, columns)
    return torch.randn(groups * rows, columns), inputs.transpose(1, 2) @ inputs / 300


def lost(error: Tensor, gram: Tensor) -> Tensor:
    stacked = error.reshape(len(gram), -1, error.shape[1])
    return ((stacked @ gram) * stacked).sum(2).flatten()


@pytest.mark.parametrize("codec", CODECS, ids=str)
@pytest.mark.parametrize("groups", [1, 3])
def test_scales_are_where_the_derivative_is_zero(codec: Uniform, groups: int) -> None:
    """Repeated until all groups of columns agree; scales of fp16 allow for their rounding."""
    weight, gram = problem(groups)
    codebook = codec.fit(weight)
    codes = codebook.nearest(weight)
    found = codebook
    for _ in range(60):
        found = cast(ScalarCodebook, refit_scales(found, codes, weight, gram))
    scale = found.scale.double().clone().requires_grad_()
    values = ScalarCodebook(found.levels.double(), scale, found.offset.double(), found.group_size).values(codes)
    lost(weight.double() - values, gram.double()).sum().backward()
    unit = values.detach() / found.spread(found.scale, 12)
    curvature = 2 * lost(unit, gram.double()).sum()
    assert scale.grad is not None
    assert bool((scale.grad.abs() <= curvature * found.scale * 2e-3).all())


@pytest.mark.parametrize("codec", CODECS, ids=str)
@pytest.mark.parametrize("groups", [1, 3])
def test_alternating_never_loses(codec: Uniform, groups: int) -> None:
    weight, gram = problem(groups)
    moment = gram + 1e-3 * gram.diagonal(dim1=1, dim2=2).mean(1)[:, None, None] * torch.eye(12)
    codebook = codec.fit(weight)
    errors = []
    for rounds in (0, 1, 2, 3, 8, 30):
        found, codes = alternate(codebook, weight, gram, rounds)
        errors.append(float(lost(weight - found.values(codes), moment).sum()))
    assert all(after <= before * (1 + 1e-4) for before, after in itertools.pairwise(errors))
    assert errors[-1] < 0.9 * errors[0]


def test_one_bit_of_white_inputs_is_the_sign_and_the_mean_magnitude() -> None:
    weight = torch.randn(6, 40)
    found, codes = alternate(Binary().fit(weight), weight, torch.eye(40)[None], 10)
    assert torch.equal(found.values(codes) > 0, weight >= 0)
    assert torch.allclose(found.values(codes).abs(), weight.abs().mean(1, keepdim=True).expand(6, 40), rtol=1e-3)


@pytest.mark.parametrize("columns", [4, 8, 12])
def test_one_bit_against_all_signs(columns: int) -> None:
    """Between the best of all sign vectors, each with its best scale, and signs with the mean magnitude, row by row."""
    weight, gram = problem(1, 12, columns)
    found, codes = alternate(Binary().fit(weight), weight, gram, 30)
    ours = lost(weight - found.values(codes), gram)
    signs = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=columns)))
    energy = ((signs @ gram[0]) * signs).sum(1)
    cross = weight @ gram[0] @ signs.T
    best = (lost(weight, gram)[:, None] - cross.clamp(min=0).square() / energy).amin(1)
    plain = lost(weight - weight.abs().mean(1, keepdim=True) * torch.where(weight < 0, -1.0, 1.0), gram)
    assert bool((ours >= best * (1 - 1e-4)).all())
    assert bool((ours <= plain * (1 + 1e-2)).all())
    gap = float((ours.sum() - best.sum()) / (plain.sum() - best.sum()))
    assert gap < 0.35, f"{gap:.2f} of what could be gained is left"


def test_the_transformed_loss_is_the_loss() -> None:
    """BiTAT weighs by an orthonormal transform V and importances s of the inputs; that is the same error."""
    weight, gram = problem()
    importance, transform = torch.linalg.eigh(gram[0])
    assert torch.allclose(transform.T @ transform, torch.eye(12), atol=1e-5)
    error = weight - Binary().fit(weight).values(torch.zeros_like(weight, dtype=torch.uint8))
    turned = ((error @ transform).square() * importance).sum(1)
    assert torch.allclose(turned, lost(error, gram), rtol=1e-3)


def test_what_has_no_scale_of_its_own_stays() -> None:
    weight, gram = problem()
    for codec in (PowerOfTwo(3, power_of_two_scale=True), KMeans(2, "row", False), Quantiles(2, scaled=False)):
        codebook = codec.fit(weight)
        assert alternate(codebook, weight, gram, 4)[0] is codebook
        assert refit_scales(codebook, codebook.nearest(weight), weight, gram) is codebook


def test_inputs_that_are_always_zero_do_no_harm() -> None:
    weight, gram = problem()
    gram[:, 3] = gram[:, :, 3] = 0
    for given in (gram, torch.zeros_like(gram)):
        found = cast(ScalarCodebook, alternate(Ternary().fit(weight), weight, given, 4)[0])
        assert bool(torch.isfinite(found.scale).all() and (found.scale > 0).all())


def test_pruned_weights_stay_zero() -> None:
    weight, gram = problem(1, 6, 20)
    mask = smallest(weight, 0.6)
    codebook = Ternary().fit(weight)
    found, _ = alternate(codebook, weight, gram, 4, lambda one: Pruned.of(one, mask))
    codes = Gptq(sweeps=3)(weight, Pruned.of(found, mask), _statistics(gram))
    assert not found.values(codes)[mask].any()


def _statistics(gram: Tensor) -> LayerStatistics:
    found = Gram(len(gram), gram.shape[1])
    factor = torch.linalg.cholesky(gram + 1e-6 * torch.eye(gram.shape[1]))
    found.update(factor.transpose(1, 2) * gram.shape[1] ** 0.5, gram.shape[1])
    return {Gram: found}


@pytest.mark.parametrize("codec", [Binary(), Ternary(), DenseShift(2)], ids=str)
@pytest.mark.parametrize("rounder", [Nearest(), Gptq(sweeps=3)], ids=str)
def test_a_layers_output_error_falls(codec: Binary, rounder: Nearest) -> None:
    weight, gram = problem(2, 8, 30)
    stacked, statistics = weight.reshape(2, 8, 30), _statistics(gram)
    errors = [
        code_layer(stacked, None, LayerPlan(codec, rounder, refits=refits), statistics).relative_output_error
        for refits in (0, 4)
    ]
    assert errors[1] < 0.97 * errors[0]


def test_in_a_plan_and_back() -> None:
    for layers in (
        {"a": LayerPlan(Binary(), refits=3)},
        {"a": LayerPlan(Binary(), refits=3), "b": LayerPlan(Binary())},
    ):
        assert Plan.from_json(Plan(layers).to_json()) == Plan(layers)
    assert "refits" not in str(Plan({"a": LayerPlan(Binary())}).to_json())
    for refits in (-1, 101, 1.0, True, "2"):
        with pytest.raises(ConfigError, match="refits"):
            LayerPlan(Binary(), refits=refits)  # pyright: ignore[reportArgumentType]
