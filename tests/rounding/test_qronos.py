"""Qronos from moments against explicit least squares over the samples."""

from __future__ import annotations

import pytest
import torch
from reference.moments import column_rounding, inputs_of, statistics_of
from reference.qronos import qronos
from torch import Tensor

from corank.codecs import Codebook, Uniform
from corank.errors import ConfigError
from corank.rounding import ROUNDERS, Gptq, Qronos
from corank.statistics import Gram
from corank.testing import check_rounder


def by_reference(weight: Tensor, inputs: Tensor, seen: Tensor, damping: float, codebook: Codebook) -> Tensor:
    return qronos(weight, inputs, seen, damping, column_rounding(codebook)).float()


@pytest.mark.parametrize("block", [1, 5, 64])
def test_conformance(block: int) -> None:
    check_rounder(Qronos(block=block))


def test_registered() -> None:
    assert ROUNDERS["qronos"] is Qronos
    assert Qronos.needs == (Gram,)
    assert Qronos.corrects_input_error


@pytest.mark.parametrize("codec", [Uniform(3), Uniform(2, True), Uniform(4, group=6), Uniform(1, True)])
@pytest.mark.parametrize("damping", [0.01, 0.5])
@pytest.mark.parametrize("dead", [False, True])
def test_equals_explicit_least_squares(codec: Uniform, damping: float, dead: bool) -> None:
    inputs, seen = inputs_of(1, 200, 17)
    if dead:
        inputs[:, :, 3] = seen[:, :, 3] = 0  # in both networks
        seen[:, :, 11] = 0  # in the quantized one alone
    weight = torch.randn(5, 17)
    codebook, rounder = codec.fit(weight), Qronos(damping)
    alone = codebook.values(rounder(weight, codebook, statistics_of(inputs)))
    beside = codebook.values(rounder(weight, codebook, statistics_of(inputs, seen)))
    assert torch.allclose(alone, by_reference(weight, inputs[0], inputs[0], damping, codebook))
    assert torch.allclose(beside, by_reference(weight, inputs[0], seen[0], damping, codebook))
    if codec.bits > 1:
        assert not torch.equal(alone, beside)


def test_without_drift_it_is_gptq() -> None:
    inputs, _ = inputs_of(2, 200, 17)
    weight = torch.randn(8, 17)
    codebook = Uniform(2).fit(weight)
    given = [rounder(weight, codebook, statistics_of(inputs)) for rounder in (Qronos(0.05), Gptq(0.05))]
    assert torch.equal(given[0], given[1])


def test_first_column_answers_to_the_uncorrected_rest() -> None:
    """It is picked before the other weights are corrected: GPTQ on the corrected weight may pick another code."""
    inputs, seen = torch.randn(300, 2), torch.empty(300, 2)
    seen[:, 0] = 4 * inputs[:, 0]
    seen[:, 1] = 0.5 * inputs[:, 1] + 0.3 * seen[:, 0]
    weight = torch.tensor([[1.0, 1.0]])
    codebook = Uniform(8).fit(torch.tensor([[-1.0, 1.0]]))
    codes = Qronos(1e-6)(weight, codebook, statistics_of(inputs[None], seen[None]))
    wanted, first = inputs @ weight[0], seen[:, 0]
    best = (wanted - seen[:, 1]) @ first / first.square().sum()
    assert codebook.values(codes)[0, 0] == pytest.approx(float(best), abs=0.01)
    corrected = torch.linalg.lstsq(seen, wanted[:, None]).solution[0]
    assert abs(float(corrected) - float(best)) > 0.1


def test_damping_is_positive() -> None:
    with pytest.raises(ConfigError, match="positive"):
        Qronos(damping=0)
