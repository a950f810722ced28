"""One recording and what a network makes of it, for a record: the report draws it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from corank.data import BatchSet, ImageSet, TokenSet
from corank.data.recordings import RecordingSource
from corank.devices import device_of
from corank.evaluation import probabilities
from corank.models.log_mel import LogMel

__all__ = ["utterance_of"]

POINTS = 300  # of the drawn waveform
SHOWN = 10  # classes


def utterance_of(network: nn.Module, samples: ImageSet | TokenSet | BatchSet) -> dict[str, Any]:
    """The first recording of a set as the network heard it; nothing for other samples, or a network without log-mels.

    Returns:
        Under ``utterance``: ``sample`` (its name), ``label`` (None where it has none), ``seconds``, ``low`` and
        ``high`` (the waveform's range in each of at most 300 spans), ``log_mels`` (a list for each band, padding left
        out), and ``classes``, the likeliest first, each with ``name`` and ``probability``.
    """
    front = next((module for module in network.modules() if isinstance(module, LogMel)), None)
    if front is None or not isinstance(samples, ImageSet) or not isinstance(samples.source, RecordingSource):
        return {}
    sound, labels = next(samples.select([0]).batches(1))
    chances, indices = torch.topk(row := probabilities(network, [sound])[0], min(SHOWN, len(row)))
    with torch.no_grad():
        log_mels, mask = front(sound.to(device_of(network)))
    frames = int(mask.sum())
    heard = sound[0, : front.window + (frames - 1) * front.hop]
    low, high = _range(heard)
    classes = samples.class_names
    names = classes if classes is not None and len(classes) == len(row) else tuple(map(str, range(len(row))))
    place = 0 if samples.indices is None else int(samples.indices[0])
    found = {
        "sample": samples.source.files.names[place],
        "label": None if labels is None or int(labels[0]) >= len(names) else names[int(labels[0])],
        "seconds": round(len(heard) / samples.source.sampling.rate, 4),
        "low": low,
        "high": high,
        "log_mels": [[round(value, 2) for value in band] for band in log_mels[0, 0, :, :frames].float().tolist()],
        "classes": [
            {"name": names[index], "probability": round(chance, 6)}
            for chance, index in zip(chances.tolist(), indices.tolist(), strict=True)
        ],
    }
    return {"utterance": found}


def _range(heard: Tensor) -> tuple[list[float], list[float]]:
    spans = heard.tensor_split(min(POINTS, len(heard)))
    return [round(float(one.min()), 3) for one in spans], [round(float(one.max()), 3) for one in spans]
