"""BCGD's inputs: multiples of the resolution, its coarse gradients, and the quantizer that ships."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from corank.errors import ConfigError
from corank.layers import InputQuantizer
from corank.training.described import described, read
from corank.training.inputs import InputStart, InputTraining, ResolutionInputs, TrainableInputs


def started(bits: int, step: float, offset: int = 0) -> TrainableInputs:
    quantizer = InputQuantizer(bits, torch.tensor(step, dtype=torch.float32), offset)
    return ResolutionInputs(bits).start(InputStart(quantizer, 1.0))


def of_growth(inputs: TrainableInputs) -> Tensor:
    (growth,) = inputs.parameters()
    assert growth.grad is not None
    return growth.grad


@pytest.mark.parametrize(("bits", "offset"), [(2, 0), (4, 0), (8, 0), (4, 7)])
def test_values_are_the_multiples_that_ship(bits: int, offset: int) -> None:
    inputs, given = started(bits, 0.3, offset), 4 * torch.randn(500)
    trained = inputs(given.clone().requires_grad_()).detach()
    assert torch.equal(trained, inputs.quantizer()(given))
    with torch.no_grad():
        assert torch.equal(inputs(given), trained)
    codes = trained / inputs.quantizer().step + offset
    assert torch.allclose(codes, codes.round(), atol=1e-4)
    assert round(float(codes.min())) >= 0 and round(float(codes.max())) <= 2**bits - 1


def test_the_gradient_of_an_input_is_one_in_the_range_and_zero_outside() -> None:
    given = torch.tensor([-1.0, 0.0, 0.1, 1.0, 1.5, 1.6, 9.0], requires_grad=True)
    started(2, 0.5)(given).sum().backward()
    assert given.grad is not None and given.grad.tolist() == [0, 0, 1, 1, 1, 0, 0]


@pytest.mark.parametrize(
    ("given", "coarse"), [(-1.0, 0.0), (0.0, 0.0), (0.1, 8.0), (3.0, 8.0), (7.5, 8.0), (7.6, 15.0), (99.0, 15.0)]
)
def test_the_coarse_gradient_of_the_resolution(given: float, coarse: float) -> None:
    inputs = started(4, 0.5)
    inputs(torch.tensor([given])).sum().backward()
    # a hundredth of it, the authors' factor, and the step's own derivative in what trains, which is the step
    assert float(of_growth(inputs)) == pytest.approx(coarse * 0.01 * 0.5)


def test_its_sum_is_bounded_by_one() -> None:
    inputs = started(4, 0.5)
    inputs(torch.full((1000,), 99.0)).sum().backward()
    assert float(of_growth(inputs)) == pytest.approx(0.5)


@pytest.mark.parametrize(("given", "coarse"), [(-9.0, -7.0), (-1.0, -4.0), (0.0, 0.0), (1.0, 4.5), (9.0, 8.0)])
def test_signed_inputs_have_the_mean_code_of_their_side(given: float, coarse: float) -> None:
    inputs = started(4, 0.5, offset=7)
    inputs(torch.tensor([given])).sum().backward()
    assert float(of_growth(inputs)) == pytest.approx(coarse * 0.01 * 0.5)


def test_the_resolution_stays_positive() -> None:
    inputs = started(4, 0.5)
    (growth,) = inputs.parameters()
    optimizer = torch.optim.SGD([growth], 1.0)
    for _ in range(5):
        inputs(torch.ones(1000)).sum().backward()
        optimizer.step()
    assert 0 < float(inputs.quantizer().step) < 0.5
    assert not inputs.quantizer().step.requires_grad


def test_half_precision_inputs_stay_so() -> None:
    given = torch.randn(20).bfloat16().requires_grad_()
    found = started(4, 0.5)(given)
    found.sum().backward()
    assert found.dtype == torch.bfloat16 and given.grad is not None and given.grad.dtype == torch.bfloat16


@pytest.mark.parametrize("bits", [1, 9])
def test_widths_that_no_file_holds_are_refused(bits: int) -> None:
    with pytest.raises(ConfigError, match=f"bits={bits}"):
        ResolutionInputs(bits)


def test_json_both_ways() -> None:
    assert read(described(ResolutionInputs(3)), InputTraining) == ResolutionInputs(3)
