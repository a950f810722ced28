"""Second moments: summed block by block, equal to the plain sum of outer products."""

from __future__ import annotations

import pytest
import torch

from corank.statistics import CrossMoments, Gram


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


def far_rows(groups: int, count: int, columns: int) -> torch.Tensor:
    """Rows of which every other column varies little around a large mean."""
    offset = torch.where(torch.arange(columns) % 2 == 0, 1000.0, 0.5)
    return offset + 0.3 * torch.randn(groups, count, columns)


def test_little_variance_around_a_large_mean_is_not_lost() -> None:
    torch.manual_seed(0)
    gram, rows = Gram(2, 12), far_rows(2, 500, 12)
    for part in rows.split(100, 1):
        gram.update(part, 100)
    exact = rows.double()
    centred = exact - exact.mean(1, keepdim=True)
    torch.testing.assert_close(gram.matrix, (exact.transpose(1, 2) @ exact / 500).float())
    torch.testing.assert_close(gram.mean, exact.mean(1).float())
    covariance = (centred.transpose(1, 2) @ centred / 500).float()
    torch.testing.assert_close(gram.covariance, covariance, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(gram.centred().matrix, covariance, rtol=1e-3, atol=1e-5)
    assert gram.shift is not None and not gram.shift[:, 1::2].any()
    constant = Gram(1, 3)
    constant.update(torch.full((1, 50, 3), 1000.1), 50)
    assert not constant.centred().matrix.any()


def test_ordinary_rows_are_summed_as_they_are() -> None:
    gram = Gram(1, 6)
    gram.update(torch.rand(1, 64, 6), 64)
    gram.update(torch.zeros(1, 64, 6), 64)
    assert gram.shift is None


@pytest.mark.parametrize("where", [0.0, 900.0, 1100.0])
def test_sums_about_another_shift_are_of_the_same_rows(monkeypatch: pytest.MonkeyPatch, where: float) -> None:
    torch.manual_seed(0)
    ideal, real = far_rows(1, 200, 8), far_rows(1, 200, 8)
    drift, moved = CrossMoments(1, 8), CrossMoments(1, 8)
    for one in (drift, moved):
        one.update_pair(ideal, real, 200)

    def to_common_shift(tensors: list[torch.Tensor]) -> None:
        if tensors[0].shape == (1, 8) and len(tensors) == 2 and tensors[1].dim() == 0:  # shifts and their count
            tensors[0].copy_(torch.tensor([where, 0.0] * 4) * tensors[1])

    for module in ("moments", "cross_moments"):
        monkeypatch.setattr(f"corank.statistics.{module}.all_reduce", to_common_shift)
        monkeypatch.setattr(f"corank.statistics.{module}.number_of_processes", lambda: 2)
    moved.reduce()
    expected = None if where == 0 else torch.tensor([[where, 0.0] * 4])
    assert moved.gram.shift is None if expected is None else torch.equal(moved.gram.shift, expected)  # pyright: ignore
    for name in ("matrix", "mean"):
        torch.testing.assert_close(getattr(moved.gram, name), getattr(drift.gram, name))
    torch.testing.assert_close(moved.cross, drift.cross)
    torch.testing.assert_close(moved.float_mean, drift.float_mean)
