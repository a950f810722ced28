"""From some channels of one layer to all that hang on them, along the edges of torch-pruning's dependency graph.

torch-pruning's own walk does not end where an operation that it takes for another shifts channels again and again, as
rotary positions do; and of channels that come together from several sides it keeps one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from corank.errors import ModelError

__all__ = ["Followed", "followed"]

_MOST_TIMES, _MOST_MORE = 16, 4096  # pairs at one place, for each channel at the start, and beside


@dataclass
class Followed:
    """One place that channels were followed to.

    Attributes:
        node: of the graph.
        reads: whether it is what the node reads, not what it gives.
        pairs: (channel there, channel of the first layer), without order.
    """

    node: Any
    reads: bool
    pairs: set[tuple[int, int]] = field(default_factory=set)


def followed(graph: Any, module: Any, channels: Iterable[int]) -> list[Followed]:
    """All places that output channels of a layer lead to, the layer first.

    Args:
        graph: a DependencyGraph of torch-pruning.
        module: the layer, a node of it.
        channels: of its outputs.

    Raises:
        ModelError: where they come back as other channels without end.
    """
    from torch_pruning._helpers import _HybridIndex

    pruner = graph.get_pruner_of_module(module)
    start = [_HybridIndex(idx=one, root_idx=one) for one in channels]
    node, handler = graph.module2node[module], pruner.prune_out_channels
    found = {(id(node), handler): Followed(node, False, {(one.idx, one.root_idx) for one in start})}
    most = _MOST_TIMES * len(start) + _MOST_MORE
    pending = [(node, handler, start)]
    while pending:
        node, handler, indices = pending.pop()
        for edge in node.dependencies:
            if not edge.is_triggered_by(handler):
                continue
            mapped = indices
            for mapping in edge.index_mapping:
                mapped = mapped if mapping is None else mapping(mapped)
            reads = edge.handler.__name__ == "prune_in_channels"
            place = found.setdefault((id(edge.target), edge.handler), Followed(edge.target, reads))
            fresh = [one for one in mapped if (one.idx, one.root_idx) not in place.pairs]
            place.pairs.update((one.idx, one.root_idx) for one in fresh)
            if len(place.pairs) > most:
                raise ModelError("its channels come back as other channels, so that they could not be followed")
            if fresh:
                pending.append((edge.target, edge.handler, fresh))
    return list(found.values())
