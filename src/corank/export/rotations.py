"""Rotations that run with a layer, where a format has no room for them."""

from __future__ import annotations

from torch import nn

from corank.errors import ModelError
from corank.layers import RotatedLayer

__all__ = ["refuse_rotated"]


def refuse_rotated(model: nn.Module, format_name: str) -> None:
    """Raises ModelError for a network whose layers rotate their inputs as they run."""
    found = next((name for name, module in model.named_modules() if isinstance(module, RotatedLayer)), None)
    if found is not None:
        raise ModelError(
            f"layer {found!r} turns its inputs as it runs, and {format_name} has no such layer; quantize with "
            "rotate='fold', which leaves nothing to run, or export to ONNX"
        )
