"""Layers of which parts are taken, beside torch's own of the same numbers."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from corank.errors import ConfigError
from corank.training.elastic import ConvNorm, ConvShape, ElasticConv, ElasticNorm, Steps
from corank.training.shared_step import SharedStepInputs, SharedStepWeight


def layer(kernels: tuple[int, ...] = (3, 5, 7)) -> ElasticConv:
    torch.manual_seed(0)
    found = ElasticConv(ConvShape(6, 6, kernels[-1], depthwise=True), kernels)
    assert found.norm is not None
    torch.nn.init.uniform_(found.norm.weight, 0.5, 2.0)
    torch.nn.init.uniform_(found.norm.bias, -1.0, 1.0)
    torch.nn.init.uniform_(found.norm.running_mean, -1.0, 1.0)
    torch.nn.init.uniform_(found.norm.running_var, 0.5, 2.0)
    return found.eval()


def quantized(bits: int = 3) -> ElasticConv:
    found = layer()
    found.steps["shared"] = Steps(
        SharedStepWeight.started(found.weight, bits), SharedStepInputs(bits, torch.tensor(0.3))
    )
    return found


def test_smaller_kernels_begin_as_the_centre() -> None:
    found = layer()
    found.take(6, 6, 3)
    assert torch.equal(found.taken(), found.weight[..., 2:5, 2:5])


def test_smaller_kernels_go_through_every_matrix_above_them() -> None:
    found = layer()
    with torch.no_grad():
        for one in found.crops.values():
            one.copy_(torch.randn_like(one))
    found.take(4, 4, 3)
    five = (found.weight[:4, :, 1:6, 1:6].reshape(4, 1, 25) @ found.crops["5"]).reshape(4, 1, 5, 5)
    three = (five[..., 1:4, 1:4].reshape(4, 1, 9) @ found.crops["3"]).reshape(4, 1, 3, 3)
    assert torch.equal(found.taken(), three)


@pytest.mark.parametrize("kernel", [3, 7])
@pytest.mark.parametrize("training", [False, True])
def test_a_float_part_is_the_plain_layer(kernel: int, training: bool) -> None:
    found, images = layer(), torch.randn(2, 4, 8, 8)
    found.take(4, 4, kernel)
    plain = ConvNorm(found.now)
    plain.load_state_dict(found.float_state())
    found.train(training)
    plain.train(training)
    assert torch.equal(found(images), plain(images))
    assert found.norm is not None and isinstance(plain.norm, torch.nn.BatchNorm2d)
    assert torch.equal(found.norm.running_mean[:4], plain.norm.running_mean)  # pyright: ignore[reportOptionalSubscript, reportArgumentType]


def test_a_norm_averages_all_batches_alike_where_it_is_told_to() -> None:
    norm, plain = ElasticNorm(6, momentum=None), torch.nn.BatchNorm2d(4, momentum=None)
    for _ in range(3):
        images = torch.randn(5, 4, 3, 3)
        assert torch.equal(norm(images), plain(images))
    assert norm.running_var is not None and torch.equal(norm.running_var[:4], plain.running_var)  # pyright: ignore[reportArgumentType]
    assert torch.equal(norm.running_var[4:], torch.ones(2))


def test_what_ships_is_close_to_what_trains_and_is_what_evaluation_computes() -> None:
    found, images = quantized(), torch.rand(2, 4, 8, 8)
    found.take(4, 4, 5)
    assert found.norm is not None and found.rounding is not None and found.rounding.inputs is not None
    weight = found.rounding.weight(found.taken().flatten(1)).view(4, 1, 5, 5)
    apart = F.relu(found.norm(F.conv2d(found.rounding.inputs.quantizer()(images), weight, None, 1, 2, 1, 4)))
    assert torch.allclose(found(images), apart, atol=5e-3, rtol=2e-3)
    result = found.result()
    book = result.code.weight.codebook
    assert torch.equal(book.scale, book.scale.half().float()) and book.scale.shape == (4, 1)  # pyright: ignore[reportAttributeAccessIssue]


def test_a_part_may_have_steps_of_its_own() -> None:
    found = quantized()
    shared = found.rounding
    found.take(4, 4, 5)
    assert found.rounding is shared
    own = Steps(SharedStepWeight(3, torch.tensor(0.5)), None)
    found.steps["4-4-5"] = own
    assert found.rounding is own
    found.take(6, 6, 5)
    assert found.rounding is shared


def test_gains_turn_positive_and_no_output_changes() -> None:
    found, images = layer(), torch.randn(2, 6, 8, 8)
    with torch.no_grad():
        assert found.norm is not None
        found.norm.weight[::2] *= -1

    def outputs() -> list[Tensor]:
        seen = []
        for kernel in found.kernels:
            found.take(6, 6, kernel)
            seen.append(found(images))
        return seen

    before = outputs()
    found.turn()
    assert bool((found.norm.weight > 0).all())
    assert all(torch.allclose(one, other, atol=1e-5) for one, other in zip(before, outputs(), strict=True))


@pytest.mark.parametrize("kernels", [(5, 3), (3, 4, 5), (3, 3, 5), (3, 7)])
def test_kernels_that_cannot_be(kernels: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="odd ones, ascending"):
        ElasticConv(ConvShape(2, 2, 5), kernels)
