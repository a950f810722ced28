"""Calibration, selection and final samples share nothing, and are drawn by the seed alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from corank.calibration import Samples
from corank.data import TokenSet
from corank.data.arrays import TensorSource
from corank.data.images import ImageSet
from corank.data.preprocessing import Preprocessing
from corank.errors import DataError
from corank.verbs.tuning_data import read_parts

NUMBERED = torch.arange(40.0).view(40, 1, 1, 1).expand(40, 1, 2, 2).contiguous()
LABELS = np.arange(40) % 7


def ids(samples: Samples) -> list[int]:
    return [int(row.flatten()[0]) for batch in samples.batches for row in batch]


@pytest.mark.parametrize(
    "data",
    [
        NUMBERED, list(NUMBERED.split(8)), (NUMBERED, torch.from_numpy(LABELS)),
        TokenSet(torch.arange(40)[:, None].repeat(1, 3)),
        ImageSet(TensorSource(NUMBERED), Preprocessing(), LABELS),
    ],
    ids=["tensor", "batches", "pair", "tokens", "images"],
)  # fmt: skip
def test_the_parts_of_one_set_are_disjoint(data: Any) -> None:
    parts = read_parts(data, None, (10, 12), 0)
    found = [ids(parts.calibration), ids(parts.selection[0]), ids(parts.final[0])]
    assert [len(one) for one in found] == [10, 12, 12]
    assert len({one for part in found for one in part}) == 34
    assert parts.selection[1] is None and parts.final[1] is None, "no label of the data is read"
    assert found[0] == np.random.RandomState(0).permutation(40)[:10].tolist(), "as quantize draws them"
    assert ids(read_parts(data, None, (10, 12), 0).selection[0]) == found[1]
    assert ids(read_parts(data, None, (10, 12), 1).selection[0]) != found[1]


def test_labels_go_with_the_samples_of_an_evaluation() -> None:
    scored = ImageSet(TensorSource(NUMBERED), Preprocessing(), LABELS)
    parts = read_parts(NUMBERED, scored, (1000, 1000), 0)
    assert len(parts.calibration) == 40
    for samples, labels in (parts.selection, parts.final):
        assert labels is not None and len(samples) == 20
        assert labels.tolist() == [one % 7 for one in ids(samples)]
    assert not set(ids(parts.selection[0])) & set(ids(parts.final[0]))


def test_little_data_is_parted_evenly_and_too_little_refused() -> None:
    parts = read_parts(NUMBERED[:8], None, (1000, 1000), 0)
    assert [len(parts.calibration), len(parts.selection[0]), len(parts.final[0])] == [4, 2, 2]
    with pytest.raises(DataError, match="cannot be parted"):
        read_parts(NUMBERED[:2], None, (1, 1), 0)
    with pytest.raises(DataError, match="final number"):
        read_parts(NUMBERED, NUMBERED[:1], (10, 10), 0)
