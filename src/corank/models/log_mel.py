"""Waveforms to log-mel pictures inside of a network, so that whoever has the network has its front end, too.

Shapes: N recordings of T samples, L frames of 25 ms every 10 ms, F frequencies, M mels.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from corank.errors import ConfigError

__all__ = ["LogMel"]

LOWEST_HERTZ = 40.0
RANGE = 1e-8  # of a recording's largest power, 80 dB: what is fainter counts as this
FAINTEST = 1e-12
MELS = (8, 128)


class LogMel(nn.Module):
    """Log-mels of each recording, its mean and deviation taken out; what is padded stays zero and counts nowhere.

    Zeros at a recording's end are padding: frames that reach into them are masked. So a recording gives the same
    numbers however many zeros follow it, and however loud it is (but for what is under 1e-12 of full power).

    It holds no weights: its tables are computed anew where it is built, and are in no file.

    Args:
        rate: samples a second.
        mels: bands, 8 to 128, equally spaced in mels (``2595 log10(1 + f / 700)``) from 40 Hz to half the rate.

    Attributes:
        window, hop: samples of a frame, and from one frame to the next.

    Raises:
        ConfigError: another number of bands.
    """

    waves: Tensor
    filters: Tensor

    def __init__(self, rate: int, mels: int = 40) -> None:
        super().__init__()
        if not MELS[0] <= mels <= MELS[1]:
            raise ConfigError(f"mels is {mels}; give {MELS[0]} to {MELS[1]}, such as 40")
        self.window, self.hop = round(rate * 0.025), round(rate * 0.010)
        ends = _ends(rate, mels)
        # The narrowest band must hold a frequency of the transform.
        size = 1 << math.ceil(math.log2(max(self.window, rate / float(ends[1] - ends[0]))))
        self.register_buffer("waves", _waves(self.window, size), persistent=False)
        self.register_buffer("filters", _filters(ends, rate, size), persistent=False)

    def forward(self, sound: Tensor) -> tuple[Tensor, Tensor]:
        """Recordings ``(N, T)`` to log-mels ``(N, 1, M, L)`` and a mask ``(N, 1, 1, L)``, 1 where a frame is sound."""
        # Powers span eight decades: in float32, whatever the network around is in.
        with torch.autocast(sound.device.type, enabled=False):
            sound = sound.float()
            spectrum = F.conv1d(sound[:, None], self.waves.float(), stride=self.hop).square()
            half = spectrum.shape[1] // 2
            mask = self._mask(sound, spectrum.shape[2])
            power = (self.filters.float() @ (spectrum[:, :half] + spectrum[:, half:])) * mask
            largest = power.amax((1, 2), keepdim=True)
            logs = torch.maximum(power, largest * RANGE).clamp(min=FAINTEST).log()
            count = mask.sum((1, 2), keepdim=True) * power.shape[1]
            mean = (logs * mask).sum((1, 2), keepdim=True) / count
            deviation = (((logs - mean) * mask).square().sum((1, 2), keepdim=True) / count).sqrt()
            found = (logs - mean) / (deviation + 1e-3) * mask
        return found[:, None].to(self.waves.dtype), mask[:, None].to(self.waves.dtype)

    def _mask(self, sound: Tensor, frames: int) -> Tensor:
        """``(N, 1, L)``: frames that end where the recording does, or before; at least the first."""
        places = torch.arange(1, sound.shape[1] + 1, device=sound.device, dtype=torch.int32)
        lengths = ((sound != 0) * places).amax(1, keepdim=True)
        ends = torch.arange(frames, device=sound.device, dtype=torch.int32) * self.hop + self.window
        return (ends <= lengths.clamp(min=self.window)).float()[:, None]


def _mel(hertz: float) -> float:
    return 2595 * math.log10(1 + hertz / 700)


def _ends(rate: int, mels: int) -> Tensor:
    """``(M + 2,)`` in Hz: a band reaches from one to the next but one."""
    ends = torch.linspace(_mel(LOWEST_HERTZ), _mel(rate / 2), mels + 2, dtype=torch.float64)
    return 700 * (10 ** (ends / 2595) - 1)


def _filters(ends: Tensor, rate: int, size: int) -> Tensor:
    """``(M, F)``: triangles."""
    bins = torch.linspace(0, rate / 2, size // 2 + 1, dtype=torch.float64)
    low, middle, high = ends[:-2, None], ends[1:-1, None], ends[2:, None]
    up, down = (bins - low) / (middle - low), (high - bins) / (high - middle)
    return torch.minimum(up, down).clamp(min=0).float()


def _waves(window: int, size: int) -> Tensor:
    """``(2 F, 1, window)``: cosines, then sines, under a Hann window: a transform of ``size`` as a convolution, which
    every runtime has."""
    times = torch.arange(window, dtype=torch.float64)
    phases = 2 * math.pi / size * torch.arange(size // 2 + 1, dtype=torch.float64)[:, None] * times
    hann = torch.hann_window(window, dtype=torch.float64)
    return (torch.cat([phases.cos(), phases.sin()]) * hann).float()[:, None]
