"""The scalar codebook that every scalar codec shares, on levels that are not uniform."""

from __future__ import annotations

import pytest
import torch

from corank.codecs import ScalarCodebook
from corank.codecs.base import check_weight
from corank.errors import ConfigError

LEVELS = torch.tensor([-4.0, -1.0, -0.5, 0.0, 0.5, 2.0])


def book(columns_per_group: int = 3, groups: int = 3) -> ScalarCodebook:
    scale = torch.rand(4, groups) + 0.25
    offset = torch.randint(-2, 3, (4, groups)).float()
    return ScalarCodebook(LEVELS, scale, offset, columns_per_group, offset_bits=3)


def table(codebook: ScalarCodebook, rows: int, columns: int) -> torch.Tensor:
    """Every value of every weight, ``(R, C, L)``, one at a time."""
    result = torch.empty(rows, columns, len(LEVELS))
    for row in range(rows):
        for column in range(columns):
            group = column // codebook.group_size
            for place, level in enumerate(LEVELS.tolist()):
                result[row, column, place] = float(codebook.scale[row, group]) * (
                    level - float(codebook.offset[row, group])
                )
    return result


def test_values_by_loops_with_a_ragged_last_group() -> None:
    codebook = book()
    expected = table(codebook, 4, 8)
    for code in range(len(LEVELS)):
        given = codebook.values(torch.full((4, 8), code, dtype=torch.uint8))
        assert torch.allclose(given, expected[:, :, code])


def test_nearest_is_the_closest_of_all_values() -> None:
    codebook, weight = book(), torch.randn(4, 8) * 3
    expected = (table(codebook, 4, 8) - weight[:, :, None]).abs().argmin(2)
    assert torch.equal(codebook.nearest(weight).long(), expected)


def test_neighbours_bracket() -> None:
    codebook, weight = book(), torch.randn(4, 8) * 3
    below, above = codebook.neighbours(weight)
    every = table(codebook, 4, 8)
    inside = (weight >= every[:, :, 0]) & (weight <= every[:, :, -1])
    assert bool(inside.any()) and not bool(inside.all())
    assert bool((codebook.values(below)[inside] <= weight[inside]).all())
    assert bool((codebook.values(above)[inside] >= weight[inside]).all())
    assert bool((above.int() - below.int())[inside].eq(1).all())
    low, high = weight < every[:, :, 0], weight > every[:, :, -1]
    assert bool((below[low] == 0).all() and (above[low] == 0).all())
    assert bool((below[high] == 5).all() and (above[high] == 5).all())


def test_columns_agree_with_the_whole() -> None:
    codebook, weight = book(), torch.randn(4, 8)
    codes = codebook.nearest(weight)
    for index in (torch.tensor([7, 0, 3]), torch.tensor([2]), torch.arange(8)):
        part = codebook.columns(index)
        assert torch.equal(part.nearest(weight[:, index]), codes[:, index])
        assert torch.equal(part.values(codes[:, index]), codebook.values(codes)[:, index])


def test_values_are_differentiable_in_scale_and_offset() -> None:
    scale = torch.rand(2, 2).add(0.5).requires_grad_()
    offset = torch.zeros(2, 2, requires_grad=True)
    codebook = ScalarCodebook(LEVELS, scale, offset, 2)
    codes = torch.randint(0, 6, (2, 3)).to(torch.uint8)
    codebook.values(codes).sum().backward()
    assert scale.grad is not None and offset.grad is not None
    assert float(scale.grad[0, 0]) == pytest.approx(float(LEVELS[codes[0, :2].long()].sum()))
    assert float(offset.grad[1, 1]) == pytest.approx(-float(scale.detach()[1, 1]))


def test_sizes() -> None:
    codebook = book()
    assert codebook.code_bits == 3
    assert codebook.size_bits == 12 * (16 + 3)
    plain = ScalarCodebook(LEVELS, codebook.scale, torch.zeros(4, 3), 3)
    assert plain.size_bits == 12 * 16
    assert set(plain.tensors()) == {"scale"} and set(codebook.tensors()) == {"scale", "offset"}


@pytest.mark.parametrize(
    ("weight", "said"),
    [
        (torch.ones(3), r"\(R, C\).*reshape"),
        (torch.ones(2, 0), "non-empty"),
        (torch.ones(2, 2, dtype=torch.int64), "float matrix"),
        (torch.tensor([[1.0, float("nan")]]), "NaN"),
        (torch.tensor([[1.0, float("-inf")]]), "infinite"),
    ],
)
def test_bad_weights(weight: torch.Tensor, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        check_weight(weight)
