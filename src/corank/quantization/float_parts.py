"""What a plan leaves in float, largest first: for errors about sizes that cannot be met."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from torch import nn

from corank.sizes import format_size
from corank.storage.contents import plain_sizes

__all__ = ["float_parts"]

_NAMED = 4


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
