"""Rounders that correct the layers before by themselves get the float weight and what both networks saw."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from corank.codecs import Codebook, Uniform
from corank.coding.layer import code_layer
from corank.plan import LayerPlan
from corank.rounding import Gpfq, Gptq, Nearest, Qronos, Rounder
from corank.statistics import CrossMoments, Gram, LayerStatistics


def problem() -> tuple[Tensor, Tensor, Tensor, Tensor, LayerStatistics]:
    """Weight, bias, inputs of the float and of the quantized network, and their statistics."""
    inputs = torch.randn(1, 600, 12) @ torch.randn(1, 12, 12) + 1.0
    seen = 0.95 * inputs + 0.2 * torch.randn_like(inputs) + 0.3
    gram, drift = Gram(1, 12), CrossMoments(1, 12)
    gram.update(inputs, 1)
    drift.update_pair(inputs, seen, 1)
    return torch.randn(1, 8, 12), torch.randn(8), inputs[0], seen[0], {Gram: gram, CrossMoments: drift}


class Recorder(Rounder):
    """Rounds to nearest and keeps what it was given."""

    def __init__(self) -> None:
        self.given: list[tuple[Tensor, LayerStatistics]] = []

    def __call__(self, weight: Tensor, codebook: Codebook, statistics: LayerStatistics) -> Tensor:
        self.given.append((weight, statistics))
        return codebook.nearest(weight)


class CorrectingRecorder(Recorder):
    corrects_input_error = True


@pytest.mark.parametrize("bias_correction", [False, True])
def test_what_a_rounder_is_given(bias_correction: bool) -> None:
    weight, bias, inputs, seen, statistics = problem()
    plain, correcting = Recorder(), CorrectingRecorder()
    for rounder in (plain, correcting):
        code_layer(weight, bias, LayerPlan(Uniform(3), rounder, bias_correction=bias_correction), statistics)
    assert torch.equal(correcting.given[0][0], weight[0])
    assert not torch.allclose(plain.given[0][0], weight[0], atol=1e-2)
    if bias_correction:
        inputs, seen = inputs - inputs.mean(0), seen - seen.mean(0)
    drift = correcting.given[0][1][CrossMoments]
    assert isinstance(drift, CrossMoments)
    assert torch.allclose(drift.cross[0], inputs.T @ seen / len(seen), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("rounder", [Qronos(), Gpfq(), Gptq()])
@pytest.mark.parametrize("rank", [0, 2])
def test_the_float_outputs_are_met_from_quantized_inputs(rounder: Rounder, rank: int) -> None:
    weight, bias, inputs, seen, statistics = problem()
    wanted = inputs @ weight[0].T + bias
    errors = []
    for each in (rounder, Nearest()):
        plan = LayerPlan(Uniform(3, range="mse"), each, rank, fit="output", rounds=3, bias_correction=True)
        layer = code_layer(weight, bias, plan, statistics)
        assert layer.bias is not None
        errors.append(float((seen @ layer.code.compose().T + layer.bias - wanted).square().mean()))
    assert errors[0] < errors[1]
