from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from corank.calibration import Samples
from corank.data import BatchSet
from corank.errors import DataError

IMAGES, MASKS, CLASSES = torch.arange(40.0).reshape(10, 4), torch.arange(20.0).reshape(10, 2), torch.arange(10)


def named(low: int, high: int) -> dict[str, Tensor]:
    return {"image": IMAGES[low:high], "mask": MASKS[low:high]}


def test_a_mapping_is_one_set_of_samples() -> None:
    found = BatchSet.of({**named(0, 10), "labels": CLASSES}, "f")
    assert len(found) == 10 and found.labels is not None and torch.equal(torch.cat(found.labels), CLASSES)
    ((inputs, labels),) = found
    assert set(inputs) == {"image", "mask"} and inputs["image"].equal(IMAGES) and labels.equal(CLASSES)
    assert found.first(1)["mask"].equal(MASKS[:1])  # pyright: ignore[reportCallIssue, reportArgumentType]


@pytest.mark.parametrize(
    "returned",
    [
        [named(0, 4), named(4, 10)],
        (named(at, at + 5) for at in (0, 5)),
        [(named(0, 4), CLASSES[:4]), (named(4, 10), CLASSES[4:].int())],
        [[IMAGES[:4], list(range(4))], [IMAGES[4:], list(range(4, 10))]],
        [IMAGES[:4], IMAGES[4:]],
        [{"image": IMAGES.numpy()}],
        torch.utils.data.DataLoader(torch.utils.data.TensorDataset(IMAGES, CLASSES), batch_size=4),
    ],
)
def test_batches(returned: Any) -> None:
    found = BatchSet.of(returned, "f")
    assert len(found) == 10 and len(Samples.of(found, 100)) == 10
    part = found.slice("[7:1:-2]")
    first = part.inputs[0]
    images = first if isinstance(first, Tensor) else first["image"]
    assert images.equal(IMAGES[[7, 5, 3]])
    if part.labels is not None:
        assert part.labels[0].dtype == torch.int64 and part.labels[0].tolist() == [7, 5, 3]
    order = np.random.RandomState(3).permutation(10)[:4]
    drawn = found.sample(4, 3).inputs[0]
    assert (drawn if isinstance(drawn, Tensor) else drawn["image"]).equal(IMAGES[order])


def test_samples_of_different_lengths_stay_apart() -> None:
    found = BatchSet.of([torch.ones(2, 5), torch.ones(3, 7)], "f")
    assert [tuple(batch.shape) for batch in found.slice("1:4").inputs] == [(1, 5), (2, 7)]  # pyright: ignore


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (3, "returned int"),
        ("ab", "returned str"),
        ([], "no batch"),
        ([{"image": "x"}], r"'image' in batch 0 of f is str"),
        ([{"image": IMAGES, "mask": MASKS[:3]}], r"tensors of \[10, 3\] samples"),
        ([(IMAGES, CLASSES[:3])], r"tensors of \[10, 3\] samples"),
        ([(IMAGES, IMAGES)], r"give whole numbers \(N,\)"),
        ([(IMAGES, CLASSES), IMAGES], "only 1 of the 2 batches of f have labels"),
        ([torch.tensor(3.0)], "batch 0 of f is Tensor"),
        ([{}], "samples"),
    ],
)
def test_what_is_refused(returned: Any, said: str) -> None:
    with pytest.raises(DataError, match=said):
        BatchSet.of(returned, "f")


def test_positions_that_are_not_there() -> None:
    found = BatchSet.of([IMAGES], "f")
    for wrong in ([], [10], [-1]):
        with pytest.raises(DataError, match="positions from 0 to 9"):
            found.select(wrong)
    with pytest.raises(DataError, match="at least 1"):
        found.sample(0, 0)
