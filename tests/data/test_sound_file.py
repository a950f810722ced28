"""One sound file's bytes to samples: every width exact, every damage one sentence."""

from __future__ import annotations

import random
import struct
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from fuzzing.mutations import DAMAGES
from fuzzing.sounds import tone, wav

from corank.data.sampling import Sampling
from corank.data.sound_file import hear
from corank.errors import ConfigError, DataError

HEARS = Sampling(8000, 0.25)


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_every_width_is_exact(width: int) -> None:
    low = -(2 ** (8 * width - 1))
    whole = np.array([low, -1, 0, 1, -low - 1], np.float64) / -low
    heard = hear(wav(whole, width=width), "a.wav", HEARS)
    assert heard.samples.dtype == np.float32 and heard.samples.shape == (2000,)
    assert np.array_equal(heard.samples[:5], whole.astype(np.float32)) and not heard.samples[5:].any()


def test_channels_are_averaged_and_the_middle_of_long_ones_is_taken() -> None:
    left = np.arange(4000) / 8192
    heard = hear(wav(np.stack([left, np.zeros(4000)], 1)), "a.wav", HEARS)
    assert np.allclose(heard.samples, left[1000:3000] / 2, atol=1e-4)
    assert list(heard.remarks) == ["length"] and "0.50 s" in heard.remarks["length"]


@pytest.mark.parametrize("rate", [4000, 11025, 16000, 44100])
def test_another_rate_is_resampled(rate: int) -> None:
    heard = hear(wav(tone(300, 0.25, rate), rate), "a.wav", HEARS)
    assert np.abs(heard.samples - tone(300, 0.25))[200:-200].max() < 2e-3  # but for the ends, where it is cut off
    assert "resampled" in heard.remarks["rate"] and str(rate) in heard.remarks["rate"]


def test_what_the_lower_rate_cannot_hold_is_gone() -> None:
    heard = hear(wav(tone(6000, 0.25, 44100), 44100), "a.wav", HEARS)
    assert np.abs(heard.samples[200:-200]).max() < 2e-3


def test_clipped_and_silent_recordings_are_told() -> None:
    assert "clipped" in hear(wav(tone(300, gain=3)), "loud.wav", HEARS).remarks["clipped"]
    assert "clipped" not in hear(wav(tone(300, gain=0.99)), "well.wav", HEARS).remarks
    assert "silent" in hear(wav(np.zeros(99)), "no.wav", HEARS).remarks["silent"]


def patched(data: bytes, place: int, form: str, value: int) -> bytes:
    return data[:place] + struct.pack(form, value) + data[place + struct.calcsize(form) :]


GOOD = wav(tone(300))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "empty"),
        (wav(np.zeros(0)), "no sample"),
        (b"a list of words\nzero\n", "is text"),
        (GOOD[:1000], "cut short"),
        (patched(GOOD, 24, "<I", 4_000_000_000), "samples a second"),
        (patched(patched(GOOD, 22, "<H", 60_000), 32, "<H", 54_464), "channels"),
        (patched(GOOD, 20, "<H", 3), r"corank\[audio\]"),  # float samples
        (b"fLaC" + bytes(99), r"corank\[audio\]"),
        (GOOD[:30], "damaged"),
    ],
)
def test_what_is_wrong_is_one_sentence_with_its_name(data: bytes, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(DataError, match=said) as caught:
        hear(data, "x/3.wav", HEARS)
    assert str(caught.value).startswith("recording x/3.wav") and "\n" not in str(caught.value)


def test_a_length_that_the_writer_did_not_know_is_that_of_the_file() -> None:
    streamed = patched(patched(GOOD, 4, "<I", 0xFFFF_FFFF), 40, "<I", 0xFFFF_FFFF - 36)
    assert np.array_equal(hear(streamed, "a.wav", HEARS).samples, hear(GOOD, "a.wav", HEARS).samples)


def test_other_formats_go_through_soundfile_a_piece_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package's own reader is not asked for more than what is heard."""
    asked: list[tuple[str, int]] = []

    class Reader:
        samplerate, frames, channels = 8000, 10**12, 1

        def __init__(self, stream: object) -> None:
            pass

        def __enter__(self) -> Reader:
            return self

        def __exit__(self, *error: object) -> None:
            pass

        def seek(self, frame: int) -> None:
            asked.append(("seek", frame))

        def read(self, count: int, dtype: str, always_2d: bool) -> np.ndarray:
            asked.append(("read", count))
            return np.full((count, 1), 0.5, np.float32)

    monkeypatch.setitem(sys.modules, "soundfile", SimpleNamespace(SoundFile=Reader))
    heard = hear(b"fLaC" + bytes(99), "a.flac", HEARS)
    assert asked == [("seek", (10**12 - 2000) // 2), ("read", 2000)] and (heard.samples == 0.5).all()


def test_damaged_files_are_refused_or_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "soundfile", None)
    refused = 0
    for number in range(200):
        draw = random.Random(number)
        try:
            hear(DAMAGES[draw.choice(sorted(DAMAGES))](GOOD, draw, [GOOD]), "a.wav", HEARS)
        except DataError:
            refused += 1
    assert refused > 40


@pytest.mark.parametrize(
    ("rate", "seconds"), [(10, 1.0), (8000.0, 1.0), (8000, 0.0), (8000, 1e9), (8000, float("nan"))]
)
def test_a_sampling_that_cannot_be_is_refused(rate: int, seconds: float) -> None:
    with pytest.raises(ConfigError):
        Sampling(rate, seconds)
