"""Samples that a refinement does not train on: they judge what it does."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from corank.calibration import Samples
from corank.calibration.samples import sequences

__all__ = ["MOST_JUDGED", "chosen", "held_back", "others"]

MOST_JUDGED = 512  # samples
_LEAST_JUDGED = 64
_FEWEST = 16  # samples of which some can be spared


def held_back(samples: Samples, share: float, seed: int) -> Tensor:
    """Which samples judge: their places, ascending, int64; of samples that cannot be stacked those of whole batches.

    A ``share`` of all, at least 64 and at most 512 of them, but no more than a quarter; none of fewer than 16. Of token
    sequences, as many as hold 64 tokens for each of these.
    """
    total = len(samples) if samples.stacked else len(samples.batches)
    least, most = (sequences(count, samples.batches[0]) for count in (_LEAST_JUDGED, MOST_JUDGED))
    wanted = min(max(math.ceil(share * len(samples)), least), most)
    count = min(math.ceil(total * wanted / len(samples)), total // 4)
    if share == 0 or len(samples) < sequences(_FEWEST, samples.batches[0]):
        count = 0
    # Drawn, as samples in the order they come may be sorted, or repeat their classes in turn.
    return torch.randperm(total, generator=torch.Generator().manual_seed(seed))[:count].sort().values


def others(samples: Samples, held: Tensor) -> Tensor:
    """The places that are not held back, ascending."""
    rest = torch.ones(len(samples) if samples.stacked else len(samples.batches), dtype=torch.bool)
    rest[held] = False
    return rest.nonzero()[:, 0]


def chosen(samples: Samples, places: Tensor) -> Samples:
    """The samples, or batches, at those ascending places."""
    if not samples.stacked:
        return Samples(tuple(samples.batches[place] for place in places.tolist()), False)
    parts, start = [], 0
    for batch in samples.batches:
        stop = start + len(tree_leaves(batch)[0])
        own = places[(places >= start) & (places < stop)] - start
        if len(own):
            parts.append(tree_map(lambda leaf, own=own: leaf[own], batch))
        start = stop
    return Samples(tuple(parts), True).rebatched(len(tree_leaves(samples.batches[0])[0]))
