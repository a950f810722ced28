from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from corank.errors import ConfigError
from corank.models.log_mel import LogMel


def noise(seconds: float, rate: int = 8000, count: int = 1) -> Tensor:
    return 0.1 * torch.randn(count, round(seconds * rate))


def test_it_is_the_transform_under_mel_filters() -> None:
    """Against torch's own short-time Fourier transform."""
    front, sound = LogMel(8000), noise(0.5)
    found, mask = front(sound)
    size = 2 * (front.filters.shape[1] - 1)
    window = torch.hann_window(200)
    frames = sound[0].unfold(0, 200, 80) * window
    power = torch.fft.rfft(frames, n=size).abs().square() @ front.filters.T
    logs = torch.maximum(power, power.max() * 1e-8).log().T
    expected = (logs - logs.mean()) / (logs.std(correction=0) + 1e-3)
    assert found.shape == (1, 1, 40, 48) and mask.shape == (1, 1, 1, 48) and bool(mask.all())
    assert torch.allclose(found[0, 0], expected, atol=1e-3)


@pytest.mark.parametrize(("rate", "mels"), [(8000, 40), (8000, 80), (16000, 40), (16000, 80), (44100, 128), (1000, 8)])
def test_every_band_holds_a_frequency(rate: int, mels: int) -> None:
    front = LogMel(rate, mels)
    assert front.filters.shape[0] == mels and bool((front.filters.sum(1) > 0).all())
    assert (front.window, front.hop) == (round(rate * 0.025), round(rate * 0.01))


def test_a_tone_stands_in_its_band() -> None:
    places = torch.arange(4000) / 8000
    rows = [int(LogMel(8000)(torch.sin(2 * math.pi * hertz * places)[None])[0][0, 0].mean(1).argmax())
            for hertz in (200, 500, 1000, 2000, 3500)]  # fmt: skip
    assert rows == sorted(set(rows))


def test_neither_zeros_behind_nor_loudness_change_it() -> None:
    front, sound = LogMel(8000), noise(0.31)
    alone, mask = front(sound)
    padded, wider = front(torch.nn.functional.pad(sound, (0, 5000)))
    frames = alone.shape[3]
    assert int(mask.sum()) == frames == int(wider.sum())
    assert torch.allclose(padded[..., :frames], alone, atol=1e-5) and not padded[..., frames:].any()
    assert torch.allclose(front(8 * sound)[0], alone, atol=1e-4)


def test_silence_is_zero_and_has_a_frame() -> None:
    found, mask = LogMel(8000)(torch.zeros(2, 2000))
    assert not found.any() and mask.sum((1, 2, 3)).tolist() == [1, 1]


def test_half_precision_keeps_its_range() -> None:
    front, sound = LogMel(8000), noise(0.5) * 1e-3
    half, mask = LogMel(8000).to(torch.bfloat16)(sound.to(torch.bfloat16))
    assert half.dtype == mask.dtype == torch.bfloat16
    assert (half.float() - front(sound)[0]).abs().mean() < 0.02


def test_it_is_in_no_file_and_refuses_what_cannot_be() -> None:
    assert not LogMel(8000).state_dict()
    with pytest.raises(ConfigError, match="mels"):
        LogMel(8000, 2)
