"""Second moments: summed block by block, equal to the plain sum of outer products."""

from __future__ import annotations

import pytest
import torch

from corank.statistics import Gram


@pytest.mark.parametrize(("groups", "columns"), [(1, 1), (1, 95), (2, 97), (3, 130), (1, 1000)])
def test_the_sum_over_blocks_is_the_sum_of_outer_products(groups: int, columns: int) -> None:
    gram = Gram(groups, columns)
    first, second = torch.randn(groups, 40, columns), torch.randn(groups, 7, columns)
    gram.update(first, 40)
    seen = gram.matrix  # asked for in between: what is added later is there as well
    gram.update(second, 7)
    rows = torch.cat([first, second], 1).double()
    torch.testing.assert_close(gram.matrix, (rows.transpose(1, 2) @ rows / 47).float())
    torch.testing.assert_close(seen, (first.double().transpose(1, 2) @ first.double() / 40).float())
    assert torch.equal(gram.matrix, gram.matrix.transpose(1, 2))
