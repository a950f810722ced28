"""Greedy path following from moments against the same with the samples at hand."""

from __future__ import annotations

import pytest
import torch
from reference.gpfq import gpfq
from reference.moments import column_rounding, inputs_of, statistics_of
from torch import Tensor

from corank.codecs import Codebook, Uniform
from corank.rounding import ROUNDERS, Gpfq
from corank.statistics import Gram
from corank.testing import check_rounder


def by_reference(weight: Tensor, inputs: Tensor, seen: Tensor, codebook: Codebook) -> Tensor:
    return gpfq(weight, inputs, seen, column_rounding(codebook)).float()


@pytest.mark.parametrize("block", [1, 5, 64])
def test_conformance(block: int) -> None:
    check_rounder(Gpfq(block=block))


def test_registered() -> None:
    assert ROUNDERS["gpfq"] is Gpfq
    assert Gpfq.needs == (Gram,)
    assert Gpfq.corrects_input_error


@pytest.mark.parametrize("codec", [Uniform(3), Uniform(2, True), Uniform(4, group=6), Uniform(1, True)])
@pytest.mark.parametrize("dead", [False, True])
def test_equals_the_textbook(codec: Uniform, dead: bool) -> None:
    inputs, seen = inputs_of(1, 200, 17)
    if dead:
        inputs[:, :, 3] = seen[:, :, 3] = 0  # in both networks
        seen[:, :, 11] = 0  # in the quantized one alone
    weight = torch.randn(5, 17)
    codebook = codec.fit(weight)
    alone = codebook.values(Gpfq()(weight, codebook, statistics_of(inputs)))
    beside = codebook.values(Gpfq()(weight, codebook, statistics_of(inputs, seen)))
    assert torch.allclose(alone, by_reference(weight, inputs[0], inputs[0], codebook))
    assert torch.allclose(beside, by_reference(weight, inputs[0], seen[0], codebook))
    assert not torch.equal(alone, beside)
