"""What a plan leaves in float, largest first: for errors about sizes that cannot be met."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence

from torch import nn

from corank.errors import CorankWarning
from corank.layers.hold_weights import FEWEST
from corank.sizes import format_size
from corank.storage.contents import plain_sizes
from corank.storage.float_tensors import float_reason
from corank.storage.model_record import ModelRecord

__all__ = ["BY_PLAN", "float_parts", "warn_of_float"]

BY_PLAN = "the plan leaves it in float"
_NAMED = 4
_SHARE = 0.1  # of a network's numbers, over which what stays in float is worth a warning


def float_parts(model: nn.Module, coded: Mapping[str, Sequence[int]]) -> str:
    """Such as "; of it 131.1 KB stay in float: embed.weight 128.0 KB, ..."; nothing where that is little.

    Args:
        model: the float copy, or the coded model.
        coded: name to shape of the matrix of every layer that is coded, which are not counted.
    """
    sizes = {name: size for name, (_, size, _) in plain_sizes(model, coded).items()}
    total = sum(sizes.values())
    # Under a hundredth of what 8 bits a weight take, the codes are what is large.
    if total < sum(map(math.prod, coded.values())) / 100:
        return ""
    largest = sorted(sizes, key=lambda name: -sizes[name])
    named = ", ".join(f"{name} {format_size(sizes[name])}" for name in largest[:_NAMED])
    more = f" and {len(largest) - _NAMED} more" if len(largest) > _NAMED else ""
    return f"; of it {format_size(total)} stay in float: {named}{more}"


def warn_of_float(model: nn.Module, record: ModelRecord) -> None:
    """Gives a CorankWarning where over a tenth of a coded network's numbers stay in float that nobody asked for.

    Tensors of up to 1,024 numbers count as little as what the plan leaves in float.
    """
    left, total = dict[str, int](), record.weights
    for name, parameter in model.named_parameters():
        total += parameter.numel()
        reason = float_reason(name, parameter.shape, record.skipped)
        if parameter.numel() > FEWEST and reason != BY_PLAN:
            left[f"{name} ({parameter.numel():,} numbers: {reason})"] = parameter.numel()
    if sum(left.values()) > _SHARE * total:
        largest = sorted(left, key=lambda name: -left[name])[:_NAMED]
        more = f"; and {len(left) - _NAMED} more" if len(left) > _NAMED else ""
        warnings.warn(
            f"{sum(left.values()) / total:.0%} of the network's numbers stay in float: {'; '.join(largest)}{more}",
            CorankWarning,
            stacklevel=2,
        )
