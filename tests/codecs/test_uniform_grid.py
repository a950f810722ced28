"""UQ as a codec: multiples of one step, no more than there are codes."""

from __future__ import annotations

import pytest
import torch
from reference.clusters import grid

from corank.codecs import UniformGrid
from corank.errors import ConfigError
from corank.testing import check_codec


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize(("per", "scaled"), [("layer", True), ("layer", False)])
def test_conformance(bits: int, per: str, scaled: bool) -> None:
    check_codec(UniformGrid(bits, per, scaled))


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_equals_loops(bits: int) -> None:
    weight = torch.randn(3, 30)
    book = UniformGrid(bits, "row", False).fit(weight)
    for row in range(3):
        expected = torch.tensor(grid(weight[row].double().tolist(), 2**bits)).half().float()
        assert torch.allclose(book.tensors()["levels"][row].float().unique(), expected, rtol=1e-3, atol=1e-6)


def test_levels_that_no_weight_is_near_take_no_code() -> None:
    weight = torch.tensor([[-1.0, -0.95, 0.0, 0.05, 1.0, 0.9]])
    book = UniformGrid(3, scaled=False).fit(weight)
    assert len(set(book.nearest(weight).flatten().tolist())) == 6


def test_one_bit_is_refused() -> None:
    with pytest.raises(ConfigError, match="2 to 8"):
        UniformGrid(1)
