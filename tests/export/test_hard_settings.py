"""Settings that leave next to nothing of a network, on every kind of layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import corank
from corank import Uniform


def test_one_bit_for_a_whole_weight(every_kind: nn.Module, images: Tensor) -> None:
    """Coded so coarsely, some layers give later ones inputs that do not vary."""
    small = corank.quantize(
        every_kind, images, codec=Uniform(1, group=-1), preset="fast", budget=0, search="greedy", all_layers=True
    )
    with torch.no_grad():
        assert small(images).isfinite().all()
