from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import corank
from corank.quantization.float_parts import float_parts, format_size
from corank.storage import entropy_coding

FLOAT = {"table": "float"}


class Reader(nn.Module):
    """A table that is far larger than all that is coded, where it is left in float."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.a, self.head = nn.Embedding(500, 32), nn.Linear(32, 32), nn.Linear(32, 8)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(torch.relu(self.a(self.table(ids).mean(1))))


@pytest.mark.parametrize("options", [{}, {"bits": 4}, {"rate": "auto"}])
def test_a_size_that_cannot_be_names_what_is_in_float(options: dict[str, object]) -> None:
    ids = torch.randint(500, (32, 8))
    with pytest.raises(
        corank.BudgetError, match=r"of it 64\.1 KB stay in float: table\.weight 64\.0 KB, a\.bias 64 bytes"
    ):
        corank.quantize(Reader(), ids, size="5KB", preset="fast", layers=FLOAT, **options)  # pyright: ignore[reportArgumentType]


def test_the_lowest_rate_names_them_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A size that what has no rate leaves room in, but not for codes at the lowest rate."""
    monkeypatch.setattr(entropy_coding, "with_coded_numbers", lambda _, contents: contents)  # else there is room
    ids = torch.randint(500, (32, 8))
    with pytest.raises(corank.BudgetError, match="what has no rate") as caught:
        corank.quantize(Reader(), ids, size="5KB", rate="auto", layers=FLOAT)
    least = int(str(caught.value).partition("takes ")[2].split()[0])
    with pytest.raises(corank.BudgetError, match=r"lowest rate.*; of it 64\.1 KB stay in float: table\.weight"):
        corank.quantize(Reader(), ids, size=least + 10, rate="auto", layers=FLOAT)


def test_little_is_not_named() -> None:
    model = nn.Sequential(nn.Linear(200, 200, bias=False), nn.Linear(200, 200, bias=False))
    assert float_parts(model, {"0": (1, 200, 200), "1": (1, 200, 200)}) == ""
    assert "1.weight 160.0 KB" in float_parts(model, {"0": (200, 200)})


def test_sizes_for_a_person() -> None:
    assert [format_size(size) for size in (12, 83_100, 1_200_000, 2_000_000_000)] == [
        "12 bytes", "83.1 KB", "1.2 MB", "2.0 GB",
    ]  # fmt: skip
