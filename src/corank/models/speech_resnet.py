"""A thin residual network for spoken words, from the waveform to one logit a class.

After "Low-bit Shift Network for End-to-End Spoken Language Understanding" (Avila et al., arXiv 2207.07497), whose text
leaves front end and widths open: a reconstruction.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from corank.data.preprocessing import Preprocessing
from corank.data.sampling import Sampling
from corank.errors import ConfigError, ModelError
from corank.models.loader import LoadedModel, Request
from corank.models.log_mel import LogMel
from corank.models.made_name import read_name
from corank.models.residual import ResidualBlock

__all__ = ["SpeechResNet", "load_speech_resnet"]

EXAMPLE = "speech-resnet:10, or speech-resnet:10,rate=8000,seconds=1,mels=40,width=16"
MOST_CLASSES, MOST_WIDTH = 100_000, 1024


class SpeechResNet(nn.Module):
    """Waveforms ``(N, T)``, float32 from -1 to 1, to logits ``(N, classes)``, randomly initialised.

    Log-mels (:class:`~corank.models.log_mel.LogMel`), a stem, three blocks that halve bands and frames, and the mean
    over what is no padding. In evaluation mode the logits of a recording are the same however many zeros follow it.

    Args:
        classes: logits.
        sampling: of the waveforms; T may also be another one.
        mels: bands of the front end.
        width: channels of the stem; blocks have 1, 2 and 4 times as many. 16 gives 75,000 weights.

    Raises:
        ConfigError: fewer than 2 classes, a width below 1, or less than 25 ms.
    """

    def __init__(self, classes: int, sampling: Sampling | None = None, mels: int = 40, width: int = 16) -> None:
        super().__init__()
        if not 2 <= classes <= MOST_CLASSES or not 1 <= width <= MOST_WIDTH:
            raise ConfigError(f"{classes} classes, width {width}: 2 to {MOST_CLASSES} and 1 to {MOST_WIDTH}")
        self.sampling = Sampling() if sampling is None else sampling
        self.front = LogMel(self.sampling.rate, mels)
        if self.sampling.samples < self.front.window:
            raise ConfigError(f"{self.sampling.seconds:g} s are less than a frame of 25 ms; give Sampling(16000, 1.0)")
        self.conv1 = nn.Conv2d(1, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        widths = (width, width, 2 * width, 4 * width)
        self.blocks = nn.ModuleList(ResidualBlock(widths[place], widths[place + 1], 2) for place in range(3))
        self.head = nn.Linear(widths[-1], classes)

    def forward(self, sound: Tensor) -> Tensor:
        x, mask = self.front(sound)
        x = torch.relu(self.bn1(self.conv1(x))) * mask
        for block in self.blocks:
            mask = mask[..., ::2]
            x = block(x, mask)
        # Padding is zero, so the sum is over sound alone.
        return self.head(x.sum((2, 3)) / (mask.sum((2, 3)) * x.shape[2]))


def load_speech_resnet(request: Request) -> LoadedModel:
    """An untrained :class:`SpeechResNet`: the name is its classes, and then what is not as usual, by commas.

    Raises:
        ModelError: anything else.
    """
    try:
        classes, given = read_name(request.name, ("rate", "seconds", "mels", "width"))
        sampling = Sampling(int(given.get("rate", 16_000)), float(given.get("seconds", 1.0)))
        model = SpeechResNet(int(classes), sampling, int(given.get("mels", 40)), int(given.get("width", 16)))
    except (ValueError, ConfigError) as error:
        raise ModelError(f"speech-resnet:{request.name}: {error}; give {EXAMPLE}") from error
    return LoadedModel(model, Preprocessing(channels=1), sampling=sampling)
