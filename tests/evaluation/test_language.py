"""Scores of language models: next-token cross-entropy against its definition, masks, labels, forms of output."""

from __future__ import annotations

import math
from collections import UserDict
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from corank.data import TokenSet
from corank.errors import DataError, ModelError
from corank.evaluation import evaluate


class Bigram(nn.Module):
    """Logits of the next token, from the token alone."""

    def __init__(self, seed: int, form: str = "mapping") -> None:
        super().__init__()
        self.table = nn.Embedding(6, 6)
        self.form = form
        with torch.no_grad():
            self.table.weight.copy_(torch.randn(6, 6, generator=torch.Generator().manual_seed(seed)))

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Any:
        logits = self.table(input_ids)
        return {"mapping": {"logits": logits, "cache": None}, "tensor": logits, "tuple": (logits, None)}[self.form]


IDS = torch.randint(6, (5, 7), generator=torch.Generator().manual_seed(1))


def slow_nats(model: Bigram, rows: list[list[int]]) -> float:
    chances = model.table.weight.detach().double().softmax(1)
    pairs = [(row[place], row[place + 1]) for row in rows for place in range(len(row) - 1)]
    return -sum(math.log(float(chances[one, next])) for one, next in pairs) / len(pairs)


@pytest.mark.parametrize("form", ["mapping", "tensor", "tuple"])
def test_nats_by_their_definition(form: str) -> None:
    model = Bigram(0, form)
    found = evaluate(model, IDS)
    assert found.nats == pytest.approx(slow_nats(model, IDS.tolist()), rel=1e-5)
    assert found.perplexity == pytest.approx(math.exp(slow_nats(model, IDS.tolist())), rel=1e-5)
    assert (found.samples, found.tokens, found.kl, found.agreement) == (5, 30, None, None)
    hits = (model.table.weight[IDS[:, :-1]].argmax(2) == IDS[:, 1:]).float().mean()
    assert found.top1 == pytest.approx(100 * float(hits), rel=1e-5)


def test_every_form_of_data_scores_alike() -> None:
    model, expected = Bigram(0), evaluate(Bigram(0), IDS)
    for data in (IDS.to(torch.int16), TokenSet(IDS), IDS.split(2), [{"input_ids": part} for part in IDS.split(3)]):
        found = evaluate(model, data)
        assert found.nats == pytest.approx(expected.nats, rel=1e-6) and found.tokens == expected.tokens


def test_a_mask_leaves_tokens_out() -> None:
    mask = torch.ones_like(IDS)
    mask[1, 4:] = 0
    mask[3, 2:] = 0
    rows = [row[: int(kept)] for row, kept in zip(IDS.tolist(), mask.sum(1), strict=True)]
    found = evaluate(Bigram(0), [{"input_ids": IDS, "attention_mask": mask}])
    assert found.nats == pytest.approx(slow_nats(Bigram(0), rows), rel=1e-5)
    assert found.tokens == 6 * 3 + 3 + 1


@pytest.mark.parametrize("side", ["right", "left", "both"])
@pytest.mark.parametrize("labelled", [False, True])
def test_masked_positions_neither_predict_nor_are_predicted(side: str, labelled: bool) -> None:
    lengths, starts = [7, 4, 2, 5, 3], [0, 2, 4, 1, 3]
    mask, ids, rows = torch.zeros_like(IDS), torch.full_like(IDS, 5), []
    for row, (length, start) in enumerate(zip(lengths, starts, strict=True)):
        start = {"right": 0, "left": 7 - length, "both": min(start, 7 - length)}[side]
        mask[row, start : start + length] = 1
        ids[row, start : start + length] = IDS[row, :length]
        rows.append(IDS[row, :length].tolist())
    batch: Any = {"input_ids": ids, "attention_mask": mask}
    if labelled:
        labels = torch.full_like(ids, -100)
        labels[:, :-1] = ids[:, 1:]
        batch = (batch, labels)
    found = evaluate(Bigram(0), [batch], Bigram(1))
    assert found.nats == pytest.approx(slow_nats(Bigram(0), rows), rel=1e-5)
    assert found.tokens == sum(lengths) - len(lengths)


def test_a_label_that_is_no_input_counts_before_padding() -> None:
    """What ends a sequence may be predicted although it is in no input; the padding that follows may not."""
    mask, labels = torch.ones_like(IDS), torch.full_like(IDS, -100)
    mask[0, 4:], mask[1, 4:] = 0, 0
    labels[0, 3], labels[1, 3] = (int(IDS[0, 4]) + 1) % 6, int(IDS[1, 4])
    labels[0, 5] = 2  # what padding predicts
    found = evaluate(Bigram(0), [({"input_ids": IDS, "attention_mask": mask}, labels)])
    chance = Bigram(0).table.weight[IDS[0, 3]].log_softmax(0)[labels[0, 3]]
    assert found.tokens == 1 and found.nats == pytest.approx(-float(chance.detach()), rel=1e-5)


def test_labels_say_what_each_position_predicts() -> None:
    labels = torch.full_like(IDS, -100)
    labels[:, :-1] = IDS[:, 1:]
    expected = evaluate(Bigram(0), IDS)
    found = evaluate(Bigram(0), [(IDS, labels)])
    assert found.nats == pytest.approx(expected.nats, rel=1e-6) and found.tokens == expected.tokens


def test_a_model_follows_itself() -> None:
    found = evaluate(Bigram(0), IDS, Bigram(0))
    assert found.agreement == 100.0 and found.kl == pytest.approx(0, abs=1e-6)
    other = evaluate(Bigram(1), IDS, Bigram(0))
    chances = [Bigram(seed).table.weight.detach().log_softmax(1)[IDS[:, :-1]] for seed in (0, 1)]
    expected = (chances[0].exp() * (chances[0] - chances[1])).sum(2).mean()
    assert other.kl == pytest.approx(float(expected), rel=1e-5)


def test_mode_and_progress() -> None:
    model, seen = Bigram(0).train(), []
    evaluate(model, TokenSet(IDS), progress=lambda what, done, total: seen.append((done, total)), batch_size=2)
    assert model.training and seen == [(2, 5), (4, 5), (5, 5)]


def test_classifiers_of_text_have_no_next_token() -> None:
    class Classifier(nn.Module):
        def forward(self, ids: Tensor) -> Tensor:
            return nn.functional.one_hot(ids[:, 0], 6).float()

    found = evaluate(Classifier(), [(IDS, IDS[:, 0])])
    assert found.top1 == 100.0 and found.nats is None and found.tokens is None and found.perplexity is None


def test_refusals() -> None:
    with pytest.raises(ModelError, match="vocabulary"):
        evaluate(nn.Embedding(6, 1), IDS)
    nothing = {"input_ids": IDS, "attention_mask": torch.zeros_like(IDS)}
    with pytest.raises(DataError, match="empty"):
        evaluate(Bigram(0), [nothing])
    mixed = evaluate(Bigram(0), [nothing, {"input_ids": IDS}], Bigram(1))
    assert mixed.kl == pytest.approx(evaluate(Bigram(0), IDS, Bigram(1)).kl)


@pytest.mark.parametrize("kind", [dict, UserDict])
def test_mappings_bring_their_labels(kind: Any) -> None:
    """What a tokenizer gives with labels beside it, whole or as batches of a loader."""
    model, expected = Bigram(0), evaluate(Bigram(0), IDS)
    given = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS), "labels": IDS}  # transformers': the tokens
    assert evaluate(model, kind(given)) == expected
    assert evaluate(model, [kind({name: part[:2] for name, part in given.items()})]).samples == 2
    assert evaluate(model, [kind(given)]).nats == expected.nats

    class Classifier(Bigram):
        def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
            return self.table(input_ids).sum(1)

    classes = Classifier(0)(IDS).argmax(1)
    classes[0] = (classes[0] + 1) % 6
    for name in ("labels", "label", "target"):
        assert evaluate(Classifier(0), kind({"input_ids": IDS, name: classes}), batch_size=2).top1 == 80.0
    with pytest.raises(DataError, match="mapping of tensors"):
        evaluate(model, kind({"input_ids": "text"}))
    with pytest.raises(DataError, match="no labels"):
        evaluate(Classifier(0), kind({"input_ids": IDS, "labels": classes.tolist()}))
