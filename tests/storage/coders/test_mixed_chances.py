"""Chances: the same whole numbers on every machine, near the shares that occur, and never certain."""

from __future__ import annotations

import math

import numpy as np
import pytest

from corank.storage.coders.mixed_chances import WHOLE, MixedChances, classes


def test_no_entry_of_the_tables_is_near_a_half() -> None:
    """Another library's logarithm, off by some units in the last place, rounds to the same numbers."""
    logarithms = [256 * math.log(x) for x in range(1, (1 << 16) + 2)]
    chances = [WHOLE / (1 + math.exp(-x / 256)) for x in range(-3071, 3072)]
    for value in logarithms + chances:
        assert abs(value - math.floor(value) - 0.5) > 1e-9


def test_chances_come_to_the_shares_of_each_context() -> None:
    draw, model = np.random.default_rng(0), MixedChances((3,))
    shares = np.array([0.01, 0.4, 0.95])
    for _ in range(300):
        contexts = draw.integers(0, 3, 100)
        assert len(model.chances([contexts])) == 100
        model.learn(draw.random(100) < shares[contexts])
    found = model.chances([np.arange(3)]) / WHOLE
    assert found == pytest.approx(shares, abs=0.02)


def test_weights_go_to_the_context_that_tells_more() -> None:
    draw, model, bits = np.random.default_rng(1), MixedChances((4, 4)), []
    for _ in range(200):
        good, bad = draw.integers(0, 4, (2, 64))
        answers = draw.random(64) < np.array([0.02, 0.1, 0.9, 0.98])[good]
        chances = model.chances([good, bad]) / WHOLE
        bits.append(-np.log2(np.where(answers, chances, 1 - chances)).mean())
        model.learn(answers)
    assert np.mean(bits[-50:]) < 0.32 < np.mean(bits[:5])  # the entropy is 0.305


def test_one_answer_for_ever_is_not_certain_and_counts_stay_small() -> None:
    model = MixedChances((1, 2))
    for _ in range(40):
        assert int(model.chances([np.zeros(3000, np.int64)] * 2).min()) > 0
        model.learn(np.ones(3000, bool))
    last = int(model.chances([np.zeros(1, np.int64)] * 2)[0])
    assert 0.999 * WHOLE < last < WHOLE
    model.learn(np.zeros(1, bool))
    for _ in range(40):
        model.chances([np.zeros(3000, np.int64)] * 2)
        model.learn(np.zeros(3000, bool))
    assert 0 < int(model.chances([np.zeros(1, np.int64)] * 2)[0]) < 0.01 * WHOLE


def test_classes_are_of_the_share_alone_however_large_counts_are() -> None:
    assert classes(np.array([0, 25, 100, 400, 4000]), 100).tolist() == [0, 0, 3, 6, 7]
    assert classes(np.array([100, 400]) << 40, 100 << 40).tolist() == [3, 6]
    assert classes(np.zeros(3, np.int64), 0).tolist() == [3, 3, 3]
