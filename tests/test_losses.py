"""Distances of outputs without labels."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from corank.errors import ModelError
from corank.losses import (
    kl_divergence,
    logits_of,
    output_distance,
    read_part,
    sensitivity_target,
    sequence_logits,
    token_distance,
)


def test_kl_by_its_formula() -> None:
    output, reference = torch.randn(5, 4), torch.randn(5, 4)
    expected = 0.0
    for given, wanted in zip(output.softmax(1).tolist(), reference.softmax(1).tolist(), strict=True):
        expected += sum(p * (torch.tensor(p) / q).log().item() for p, q in zip(wanted, given, strict=True))
    assert float(kl_divergence(output, reference)) == pytest.approx(expected / 5, rel=1e-5)
    assert float(kl_divergence(reference, reference)) == pytest.approx(0, abs=1e-6)
    assert float(kl_divergence(output, reference)) != pytest.approx(float(kl_divergence(reference, output)))


def test_kl_does_not_see_a_shift_of_all_logits() -> None:
    output, reference = torch.randn(5, 4), torch.randn(5, 4)
    shifted = kl_divergence(output + torch.randn(5, 1), reference)
    assert torch.allclose(shifted, kl_divergence(output, reference), atol=1e-5)


def test_logits_of() -> None:
    logits = torch.randn(3, 4)
    assert logits_of(logits) is logits
    assert logits_of({"logits": logits, "other": 1}) is logits
    assert logits_of((logits,)) is logits
    for other in (
        torch.randn(3, 4, 5),
        torch.randn(3, 1),
        torch.ones(3, 4).long(),
        (logits, logits),
        {"x": logits},
    ):
        assert logits_of(other) is None


def test_kl_of_what_is_not_logits() -> None:
    with pytest.raises(ModelError, match="loss=lambda"):
        kl_divergence(torch.randn(2, 3, 4), torch.randn(2, 3, 4))


def test_output_distance() -> None:
    logits, other = torch.randn(3, 4), torch.randn(3, 4)
    assert torch.equal(output_distance(logits, other), kl_divergence(logits, other))
    maps, wanted = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    relative = (maps - wanted).square().sum() / wanted.square().sum()
    assert torch.allclose(output_distance({"a": maps, "n": 3}, {"a": wanted, "n": 3}), relative)
    assert torch.allclose(output_distance([maps, maps], [wanted, wanted]), 2 * relative)
    with pytest.raises(ModelError, match="no floating tensor"):
        output_distance({"a": torch.ones(3).long()}, {"a": torch.ones(3).long()})


def test_sensitivity_of_logits_is_the_fisher_information() -> None:
    logits = torch.randn(1, 3).expand(4000, 3).clone().requires_grad_()
    sensitivity_target(logits, torch.Generator().manual_seed(0)).backward()
    assert logits.grad is not None
    chances = logits.detach()[0].softmax(0)
    fisher = chances.diag() - chances[:, None] * chances
    assert torch.allclose(logits.grad.T @ logits.grad / 4000, fisher, atol=0.02)


def test_sensitivity_is_drawn_by_the_generator() -> None:
    def gradient(seed: int) -> torch.Tensor:
        logits = torch.randn(20, 5, generator=torch.Generator().manual_seed(1)).requires_grad_()
        sensitivity_target(logits, torch.Generator().manual_seed(seed)).backward()
        assert logits.grad is not None
        return logits.grad

    assert torch.equal(gradient(0), gradient(0))
    assert not torch.equal(gradient(0), gradient(1))


def test_sensitivity_of_other_outputs() -> None:
    maps = torch.randn(2, 3, 4, requires_grad=True)
    sensitivity_target({"a": maps * 2, "n": 3}, torch.Generator()).backward()
    assert maps.grad is not None and float(maps.grad.abs().min()) > 0
    with pytest.raises(ModelError, match="depends"):
        sensitivity_target(torch.randn(2, 3, 4), torch.Generator())
    with pytest.raises(ModelError, match="depends"):
        sensitivity_target(F.one_hot(torch.tensor([1])), torch.Generator())


def test_sequence_logits() -> None:
    logits = torch.randn(2, 3, 4)
    for output in (logits, {"logits": logits, "cache": object()}, (logits, None), [logits]):
        assert sequence_logits(output) is logits
    for other in (
        torch.randn(2, 4),
        torch.randn(2, 3, 1),
        torch.ones(2, 3, 4).long(),
        {"x": logits},
        (None, logits),
        (),
    ):
        assert sequence_logits(other) is None


def test_token_distance_is_the_mean_over_positions() -> None:
    output, reference = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    each = [kl_divergence(output[n, t : t + 1], reference[n, t : t + 1]) for n in range(2) for t in range(3)]
    assert torch.allclose(token_distance({"logits": output}, {"logits": reference}), torch.stack(each).mean())
    pooled, wanted = torch.randn(2, 4), torch.randn(2, 4)
    assert torch.equal(token_distance(pooled, wanted), kl_divergence(pooled, wanted))


def test_losses_read_the_logits_alone() -> None:
    logits, pooled = torch.randn(2, 3, 4), torch.randn(2, 4)
    assert read_part({"logits": logits, "cache": object()}, token_distance) is logits
    assert read_part({"logits": pooled, "more": 1}, output_distance) is pooled
    whole = {"logits": logits, "more": 1}
    assert read_part(whole, output_distance) is whole
    assert read_part(whole, lambda output, reference: logits.sum()) is whole


def test_sensitivity_of_tokens_draws_at_every_position() -> None:
    logits = torch.randn(2, 3, 4, requires_grad=True)
    sensitivity_target({"logits": logits}, torch.Generator().manual_seed(0), tokens=True).backward()
    assert logits.grad is not None
    chances = logits.detach().softmax(2)
    labels = (logits.grad + chances).round()
    assert torch.allclose(logits.grad + chances, labels, atol=1e-6)
    assert torch.equal(labels.sum(2), torch.ones(2, 3))
