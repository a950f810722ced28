"""Samples read once and outputs computed once give the scores that reading and computing them each time gives."""

from __future__ import annotations

import torch
from torch import nn

import corank
from corank.data import TokenSet, load
from corank.evaluation import Recorder, Replay, kept_samples
from corank.models import resolve


def test_scores_are_the_same() -> None:
    model, images = resolve("digits").model, load("digits:test")
    small = corank.quantize(model, load("digits:train"), bits=2, preset="nearest", samples=32)
    kept, recorder = kept_samples(images), Recorder(model)
    assert isinstance(kept, list) and sum(len(batch) for batch, _ in kept) == len(images)
    assert corank.evaluate(recorder, kept) == corank.evaluate(model, images)
    assert recorder.outputs is not None and len(recorder.outputs) == len(kept)
    expected = corank.evaluate(small, images, model)
    for _ in range(2):
        assert corank.evaluate(small, kept, Replay(recorder.outputs)) == expected


def test_what_is_too_large_is_not_kept() -> None:
    images = load("digits:test")
    assert kept_samples(images, most_bytes=1000) is images
    recorder = Recorder(nn.Identity(), most_bytes=100)
    for _ in range(3):
        assert torch.equal(recorder(torch.ones(5, 4)), torch.ones(5, 4))
    assert recorder.outputs is None
    tokens = TokenSet(torch.zeros(2, 4, dtype=torch.int64))
    assert kept_samples(tokens) is tokens
    assert kept_samples(batch for batch in [torch.ones(1)]) == [torch.ones(1)]
