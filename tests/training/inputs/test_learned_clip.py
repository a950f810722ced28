"""PACT's clip: values of the quantizer that ships, and both gradients by hand, of unsigned and signed inputs."""

from __future__ import annotations

import pytest
import torch

from corank.errors import ConfigError
from corank.layers import InputQuantizer
from corank.training.inputs import InputStart, LearnedClipInputs


def started(bits: int, step: float, offset: int) -> torch.nn.Module:
    return LearnedClipInputs(bits).start(InputStart(InputQuantizer(bits, torch.tensor(step), offset), 1.0))


def test_gradients_are_those_of_the_clip() -> None:
    clip = started(2, 0.5, 0)  # alpha = 1.5
    inputs = torch.tensor([-1.0, -0.0, 0.0, 0.3, 1.49, 1.5, 9.0], requires_grad=True)
    upstream = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0])
    value = clip(inputs)
    assert value.tolist() == [0, 0, 0, 0.5, 1.5, 1.5, 1.5]
    value.backward(upstream)
    assert inputs.grad.tolist() == [0, 2, 3, 4, 5, 0, 0]
    assert float(clip.growth.grad) == pytest.approx(1.5 * (6 + 7))  # d alpha / d growth = alpha


def test_each_end_of_signed_inputs_has_its_own_gradient() -> None:
    clip = started(3, 0.5, 3)  # -1.5 to 2
    inputs = torch.tensor([-2.0, -1.5, 0.2, 1.9, 2.0, 3.0], requires_grad=True)
    value = clip(inputs)
    assert value.tolist() == [-1.5, -1.5, 0, 2, 2, 2]
    value.backward(torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]))
    assert inputs.grad.tolist() == [0, 2, 3, 4, 0, 0]
    assert float(clip.growth.grad) == pytest.approx(-1.5 * 1 + 2 * (5 + 6))


def test_the_gradient_is_the_derivative_of_the_clip_without_rounding() -> None:
    clip, inputs, upstream = started(4, 0.1, 5), torch.randn(500), torch.randn(500)
    clip(inputs).backward(upstream)
    growth = torch.zeros((), dtype=torch.float64, requires_grad=True)
    step = 0.1 * growth.exp()
    plain = torch.minimum(torch.maximum(inputs.double(), -5 * step), 10 * step)
    plain.backward(upstream.double())
    assert float(clip.growth.grad) == pytest.approx(float(growth.grad), rel=1e-4)


@pytest.mark.parametrize("offset", [0, 6])
def test_what_ships_gives_the_same_values_and_alpha_stays_positive(offset: int) -> None:
    clip, inputs = started(4, 0.1, offset), torch.randn(300)
    optimizer = torch.optim.SGD(clip.parameters(), lr=0.5)
    for _ in range(50):
        optimizer.zero_grad()
        clip(inputs).abs().sum().backward()  # wants everything clipped to nothing
        torch.nn.utils.clip_grad_norm_(clip.parameters(), 1.0)
        optimizer.step()
    quantizer = clip.quantizer()
    assert 0 < float(quantizer.step) < 0.1 and not quantizer.step.requires_grad
    with torch.no_grad():
        assert torch.equal(clip(inputs), quantizer(inputs))
    assert torch.equal(clip(inputs).detach(), quantizer(inputs))


def test_bad_settings() -> None:
    for bits in (1, 9):
        with pytest.raises(ConfigError, match="2 to 8"):
            LearnedClipInputs(bits)
