from __future__ import annotations

import numpy as np
import pytest
from fuzzing.sounds import tone

from corank.data.resample import resampled


@pytest.mark.parametrize(("rate", "wanted"), [(8000, 16000), (44100, 16000), (44099, 8000), (8000, 8000)])
def test_a_tone_is_the_tone(rate: int, wanted: int) -> None:
    found = resampled(tone(440, 0.5, rate).astype(np.float32), rate, wanted)
    assert found.dtype == np.float32 and len(found) == wanted // 2
    edge = wanted // 20
    assert np.abs(found - tone(440, 0.5, wanted))[edge:-edge].max() < 1e-3


def test_it_is_linear_and_keeps_length() -> None:
    draw = np.random.default_rng(0)
    first, second = draw.normal(size=(2, 500)).astype(np.float32)
    whole = resampled(first + 2 * second, 11025, 8000)
    assert np.allclose(whole, resampled(first, 11025, 8000) + 2 * resampled(second, 11025, 8000), atol=1e-5)
    assert len(whole) == round(500 * 8000 / 11025)
    assert len(resampled(first[:1], 48000, 8000)) == 1
