"""Sound files from strangers, as samples: bounded in size, each error naming its file.

PCM in WAV of 8, 16, 24 and 32 bits is read by Python itself; everything else needs the package soundfile.
"""

from __future__ import annotations

import importlib
import io
import wave
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corank.data.resample import resampled
from corank.data.sampling import HIGHEST_RATE, LOWEST_RATE, Sampling
from corank.errors import DataError

__all__ = ["SOUND_EXTENSIONS", "Heard", "hear"]

SOUND_EXTENSIONS = (".wav", ".wave", ".flac", ".ogg", ".oga", ".aiff", ".aif", ".mp3", ".opus")
MOST_CHANNELS = 64
CLIPPED_SHARE = 0.01  # of the samples that stand at the largest number of the file's format
STREAMED = 0x7FFF_F000  # bytes that a writer promises who does not know yet how many they will be


@dataclass(frozen=True, eq=False)
class Heard:
    """A recording as a network takes it.

    Attributes:
        samples: float32 (T,), T of the sampling.
        remarks: what is worth saying, by kind: "rate", "length", "clipped", "silent".
    """

    samples: NDArray[np.float32]
    remarks: dict[str, str]


@dataclass(frozen=True, eq=False)
class _Piece:
    """Frames of a file: float32 (n, channels), of how many, and from which size on a sample is at its limit."""

    frames: NDArray[np.float32]
    rate: int
    total: int
    limit: float


def hear(data: bytes, name: str, sampling: Sampling) -> Heard:
    """Decode one sound file's bytes.

    Args:
        data: the whole file.
        name: what an error calls it.
        sampling: rate and length of what is returned; channels are averaged.

    Raises:
        DataError: not a sound recording, an empty one, or a format whose package is missing.
    """
    try:
        piece = _read(data, sampling)
    except DataError as error:
        raise DataError(f"recording {name}: {error}") from error
    except Exception as error:  # decoders raise a dozen types on hostile bytes
        reason = f"{error}" or type(error).__name__
        raise DataError(f"recording {name} cannot be read: {reason}; repair or remove the file") from error
    mono = piece.frames.mean(axis=1, dtype=np.float32)
    if not np.isfinite(mono).all():
        raise DataError(f"recording {name} holds NaN or infinite samples; record it again or remove it")
    found = np.zeros(sampling.samples, np.float32)
    samples = resampled(mono, piece.rate, sampling.rate)[: sampling.samples]
    found[: len(samples)] = samples
    return Heard(found, _remarks(piece, name, sampling))


def _remarks(piece: _Piece, name: str, sampling: Sampling) -> dict[str, str]:
    found: dict[str, str] = {}
    seconds = piece.total / piece.rate
    if piece.rate != sampling.rate:
        found["rate"] = (
            f"recording {name} has {piece.rate} samples a second and the network hears {sampling.rate}: it, and any "
            "other of another rate, is resampled"
        )
    if len(piece.frames) < piece.total:
        found["length"] = (
            f"recording {name} lasts {seconds:.2f} s and the network hears {sampling.seconds:g} s: of it, and any "
            "other that is longer, the middle is taken"
        )
    share = float((np.abs(piece.frames) >= piece.limit).mean())
    if share > CLIPPED_SHARE:
        found["clipped"] = (
            f"recording {name} is clipped ({share:.0%} of its samples are at the limit), and others may be: record "
            "such with less gain or leave them out, or classes may be mistaken"
        )
    if not piece.frames.any():
        found["silent"] = f"recording {name} is silent, every sample is 0, and others may be: leave such out"
    return found


def _read(data: bytes, sampling: Sampling) -> _Piece:
    is_wave = data[:4] in (b"RIFF", b"RIFX") and data[8:12] == b"WAVE"
    if is_wave and data[:4] == b"RIFF":
        try:
            with wave.open(io.BytesIO(data)) as sound:
                return _pcm(sound, sampling)
        except (wave.Error, EOFError) as error:
            if "unknown format" not in str(error):
                raise DataError(
                    f"it is a damaged WAV file ({error or 'it ends too soon'}); repair or remove it"
                ) from None
    if not data:
        raise DataError("the file is empty; remove it")
    if not is_wave and _is_text(data):
        raise DataError("it is text and no sound; remove it, or give it another ending")
    return _by_soundfile(data, sampling)


def _pcm(sound: wave.Wave_read, sampling: Sampling) -> _Piece:
    channels, width, rate, total = sound.getparams()[:4]
    _check(channels, rate, total)
    if width not in (1, 2, 3, 4):
        raise DataError(f"its samples have {8 * width} bits; 8, 16, 24 and 32 are read")
    raw = sound.readframes(total)  # of what is there: no more than the bytes at hand
    frame = channels * width
    there = len(raw) // frame
    if there < total and total * frame < STREAMED:
        raise DataError(f"it says that it holds {total} samples and holds {there}: it was cut short; copy it again")
    first, count = _middle(there, rate, sampling)
    if count == 0:
        raise DataError("it holds no sample; record it again or remove it")
    bytes_of = np.frombuffer(raw, np.uint8)[first * frame : (first + count) * frame]
    values = _integers(bytes_of, width).astype(np.float32) / np.float32(2 ** (8 * width - 1))
    return _Piece(values.reshape(count, channels), rate, there, 1 - 2.0 ** (1 - min(8 * width, 24)))


def _integers(raw: NDArray[np.uint8], width: int) -> NDArray[np.int32]:
    """Signed samples of ``width`` bytes each; those of one byte are stored with 128 added."""
    if width == 1:
        return raw.astype(np.int32) - 128
    if width == 3:
        filled = np.zeros((len(raw) // 3, 4), np.uint8)
        filled[:, 1:] = raw.reshape(-1, 3)
        return filled.view("<i4")[:, 0] >> 8
    return raw.view(f"<i{width}").astype(np.int32)


def _by_soundfile(data: bytes, sampling: Sampling) -> _Piece:
    try:
        soundfile: Any = importlib.import_module("soundfile")
    except (ImportError, OSError):  # OSError: the package without its library
        raise DataError(
            "Python itself reads WAV files of whole numbers alone; for FLAC, OGG and WAV of floats "
            "pip install 'corank[audio]', or convert it to 16-bit WAV"
        ) from None
    with soundfile.SoundFile(io.BytesIO(data)) as sound:
        rate, total, channels = int(sound.samplerate), int(sound.frames), int(sound.channels)
        _check(channels, rate, total)
        first, count = _middle(total, rate, sampling)
        sound.seek(first)
        frames = np.asarray(sound.read(count, dtype="float32", always_2d=True), np.float32)
    if len(frames) == 0:
        raise DataError("it holds no sample; record it again or remove it")
    return _Piece(frames, rate, total if len(frames) == count else len(frames), 1 - 2.0**-15)


def _check(channels: int, rate: int, total: int) -> None:
    """Before anything is read or allocated."""
    if not 1 <= channels <= MOST_CHANNELS:
        raise DataError(f"it says that it has {channels} channels; 1 to {MOST_CHANNELS} are read")
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise DataError(f"it says {rate} samples a second; {LOWEST_RATE} to {HIGHEST_RATE} are read")
    if total < 1:
        raise DataError("it holds no sample; record it again or remove it")


def _middle(total: int, rate: int, sampling: Sampling) -> tuple[int, int]:
    """The first frame, and how many, of what the network hears."""
    wanted = -(-sampling.samples * rate // sampling.rate)
    return max(0, total - wanted) // 2, min(total, wanted)


def _is_text(data: bytes) -> bool:
    """Whether the first bytes are letters and what stands between them; a letter cut at the end is one still."""
    head = data[:512]
    if any(byte < 32 and byte not in b"\t\n\r\f" for byte in head):
        return False
    try:
        head.decode()
    except UnicodeDecodeError as error:
        return error.start >= len(head) - 3
    return True
