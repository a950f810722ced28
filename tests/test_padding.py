"""What a batch's attention mask masks counts nowhere: not in what is collected, searched, refined or scored."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import corank
from corank.calibration import Samples, collect, collect_gradients
from corank.losses import distance, output_distance, sensitivity_target, token_distance
from corank.padding import masks_of, output_mask, real_outputs, real_positions, real_rows
from corank.statistics import Gram

VOCABULARY, LOUD = 11, 10  # the last token's embedding is a hundred times as large


class Words(nn.Module):
    """Logits ``(N, T, vocabulary)`` of each token by itself; layers see ``(N, T, width)`` or ``(N * T, width)``."""

    def __init__(self, flattens: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.flattens = nn.Embedding(VOCABULARY, 16), flattens
        self.first, self.second, self.head = nn.Linear(16, 24), nn.Linear(24, 16), nn.Linear(16, VOCABULARY)
        self.embedding.weight.data[LOUD] *= 100

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> dict[str, Tensor]:
        hidden = self.embedding(input_ids)
        inner = hidden.flatten(0, 1) if self.flattens else hidden
        hidden = hidden + self.second(self.first(inner).relu()).reshape(hidden.shape)
        return {"logits": self.head(hidden)}


def batches(pad: int, left: bool = False) -> list[dict[str, Tensor]]:
    """Sequences of 3 to 9 tokens, filled up with ``pad``; one batch of full ones."""
    generator, found = torch.Generator().manual_seed(1), []
    for number in range(4):
        ids = torch.randint(0, LOUD, (6, 9), generator=generator)
        lengths = torch.randint(3, 10, (6,), generator=generator) if number else torch.full((6,), 9)
        mask = torch.arange(9) < lengths[:, None]
        mask = mask.flip(1) if left else mask
        found.append({"input_ids": torch.where(mask, ids, pad), "attention_mask": mask.long()})
    return found


def unpadded() -> list[Tensor]:
    """The same sequences without padding, one a batch."""
    return [
        row[kept.bool()][None]
        for batch in batches(0)
        for row, kept in zip(batch["input_ids"], batch["attention_mask"], strict=True)
    ]


CALLS: dict[str, dict[str, Any]] = {
    "default": {"bits": 3, "search": corank.CoRa(iterations=4)},
    "best": {"preset": "best", "refinement": corank.Refinement(iterations=4, features=0.5)},
    "paper": {"preset": "paper", "search": corank.CoRa(iterations=4, start=0.9)},
    "rate": {"rate": 2.0},
    "activations": {"activations": 4, "search": "greedy"},
    "activations, one by one": {"preset": "nearest", "activations": 4},
    "joint": {"search": corank.Joint(sensitivity="measured")},
    "blocks": {"bits": 3, "budget": 0.0, "refinement": corank.BlockReconstruction(iterations=4, drop=0.5)},
}


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("flattens", [False, True])
@pytest.mark.parametrize("call", CALLS)
def test_what_stands_at_masked_positions_changes_nothing(call: str, flattens: bool, left: bool) -> None:
    expected = corank.quantize(Words(flattens), batches(0, left), **CALLS[call])
    given = corank.quantize(Words(flattens), batches(LOUD, left), **CALLS[call])
    one, other = expected.state_dict(), given.state_dict()
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    errors = [
        [layer.relative_output_error for layer in model.corank_run.layers.values()] for model in (expected, given)
    ]
    assert errors[0] == errors[1]


@pytest.mark.parametrize("flattens", [False, True])
def test_moments_and_gradients_are_those_of_the_sequences_without_padding(flattens: bool) -> None:
    model = Words(flattens)
    targets = {name: model.get_submodule(name) for name in ("first", "second", "head")}
    padded, plain = Samples.of(batches(LOUD), 100), Samples.of(unpadded(), 100)
    for name, found in collect(model, targets, padded).items():
        given, expected = found[Gram], collect(model, targets, plain)[name][Gram]
        assert isinstance(given, Gram) and isinstance(expected, Gram)
        assert given.count == expected.count == sum(len(row[0]) for row in unpadded())
        torch.testing.assert_close(given.matrix, expected.matrix)
        torch.testing.assert_close(given.mean, expected.mean)
    gradients, others = collect_gradients(model, targets, padded), collect_gradients(model, targets, plain)
    for name, gradient in gradients.items():
        assert gradient.count == others[name].count
        ratio = gradient.matrix.diagonal(dim1=1, dim2=2).sum() / others[name].matrix.diagonal(dim1=1, dim2=2).sum()
        assert 0.8 < float(ratio) < 1.25  # of labels drawn anew


def test_samples_of_padding_alone_are_left_out() -> None:
    batch = batches(0)[1]
    batch["attention_mask"][2:4] = 0
    samples = Samples.of([batch, batches(0)[2]], 100)
    assert [len(part["input_ids"]) for part in samples.batches] == [4, 6]
    assert torch.equal(samples.batches[0]["input_ids"], batch["input_ids"][[0, 1, 4, 5]])


def test_masks_of_a_batch() -> None:
    ones, some = torch.ones(2, 3), torch.tensor([[1, 1, 0], [1, 0, 0]])
    assert masks_of(torch.zeros(2, 3)) == () and masks_of({"input_ids": some, "attention_mask": ones}) == ()
    assert [mask.tolist() for mask in masks_of({"attention_mask": some.float()})] == [some.bool().tolist()]
    assert masks_of({"attention_mask": torch.tensor([[0.0, -1e9]])}) == ()  # added to scores, not a choice
    assert masks_of({"attention_mask": torch.ones(2, 1, 3, 3).tril()}) == ()
    both = {"attention_mask": some, "decoder_attention_mask": some.flip(1)}
    assert len(masks_of(both)) == 2
    mask = output_mask(both)
    assert mask is not None and torch.equal(mask, some.flip(1).bool())
    assert output_mask({"attention_mask": some, "decoder_input_ids": some}) is None


def test_rows_that_a_mask_fits() -> None:
    mask = torch.tensor([[True, True, False], [True, False, False]])
    vectors = torch.arange(24.0).reshape(2, 3, 4)
    assert torch.equal(real_rows([mask], vectors), vectors.flatten(0, 1)[[0, 1, 3]])
    assert torch.equal(real_rows([mask], vectors.flatten(0, 1)), vectors.flatten(0, 1)[[0, 1, 3]])
    for other in (vectors[:, :2], vectors.flatten(0, 1)[:5], torch.zeros(2, 4)):
        assert real_rows([mask], other) is other and real_positions([mask], other.shape) is None
    both = real_positions([mask, ~mask | (torch.arange(3) == 0)], vectors.shape)
    assert both is not None and both.tolist() == [[True, False, False], [True, False, False]]
    found = real_outputs(mask, {"logits": vectors, "scores": vectors[..., 0], "other": 3})
    assert torch.equal(found["logits"], vectors.flatten(0, 1)[[0, 1, 3]][None])
    assert found["scores"].shape == (2, 3) and found["other"] == 3


def test_losses_leave_padding_out() -> None:
    batch = batches(LOUD)[1]
    mask = batch["attention_mask"].bool()
    output, reference = torch.randn(6, 9, VOCABULARY), torch.randn(6, 9, VOCABULARY)
    chances, wanted = output[mask].log_softmax(1), reference[mask].log_softmax(1)
    by_hand = float((wanted.exp() * (wanted - chances)).sum(1).mean())
    found = distance(token_distance, {"logits": output}, {"logits": reference}, batch)
    assert float(found) == pytest.approx(by_hand, rel=1e-5)
    error = float((output[mask] - reference[mask]).square().sum() / reference[mask].square().sum())
    assert float(distance(output_distance, output, reference, batch)) == pytest.approx(error, rel=1e-5)
    whole = distance(lambda one, other: (one - other).square().mean(), output, reference, batch)
    assert float(whole) == pytest.approx(float((output - reference).square().mean()), rel=1e-6)
    logits = torch.randn(6, 9, VOCABULARY, requires_grad=True)
    sensitivity_target(logits, torch.Generator().manual_seed(0), tokens=True, mask=mask).backward()
    assert logits.grad is not None
    assert not bool(logits.grad[~mask].any()) and bool(logits.grad[mask].any())
