"""What every verb works on, opened once and handed down whole."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import nn

from corank.calibration.samples import Samples
from corank.checkpoint import Checkpoint
from corank.devices import device_of
from corank.layers import PreparedModel
from corank.losses import Loss, output_distance
from corank.progress import Progress, silent

__all__ = ["Context"]


@dataclass(frozen=True)
class Context:
    """A float network, the samples it is looked at with, and how a run is kept and told of.

    Attributes:
        prepared: the float copy, its targets named.
        samples: unlabelled calibration samples.
        loss: distance of outputs ``(output, reference) -> scalar``.
        seed: draws samples' positions and batches.
        checkpoint: keeps the steps of the run; one that keeps nothing unless a folder was given.
        progress: called with (what, done, total).
        ideal: what the float network reads in place of the samples, where what comes before it was coded; batch by
            batch the same samples.
    """

    prepared: PreparedModel
    samples: Samples
    loss: Loss = output_distance
    seed: int = 0
    checkpoint: Checkpoint = field(default_factory=lambda: Checkpoint(None))
    progress: Progress = silent
    ideal: Samples | None = None

    @property
    def model(self) -> nn.Module:
        """The float copy itself."""
        return self.prepared.model

    @property
    def device(self) -> torch.device:
        """Where the float copy is."""
        return device_of(self.prepared.model)

    def within(self, part: str) -> Context:
        """The same on a copy of the float network, with a part of the checkpoint for its own steps."""
        return replace(self, prepared=self.prepared.copied(), checkpoint=self.checkpoint.within(part))
