"""Tensors sent to a device: there, and not copied where they are there already."""

from __future__ import annotations

import torch

from corank.transfer import sent


def test_arrives_and_stays() -> None:
    tensor = torch.arange(3)
    assert sent(tensor, "cpu") is tensor and sent(tensor, torch.device("meta")).device.type == "meta"
