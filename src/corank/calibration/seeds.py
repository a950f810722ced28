"""Seeds of draws: one for every place in a run, so that a run may go on at any."""

from __future__ import annotations

import hashlib

import torch

__all__ = ["generator_of", "seed_of", "shuffled_in_turn"]

BUFFER = 8192  # samples that are mixed with each other where groups of them are read one after the other


def seed_of(*places: int | str) -> int:
    """A seed from 0 to 2**32 - 1 that depends on all of ``places``, such as the run's seed, a name and a step.

    Mixed, since torch's generator on the CPU reads no more than 32 bits: of sums and shifts the upper part, where the
    run's own seed may stand, would be dropped.
    """
    return int.from_bytes(hashlib.sha256(repr(places).encode()).digest()[:4], "little")


def generator_of(*places: int | str) -> torch.Generator:
    """A generator on the CPU with the seed of ``places``."""
    return torch.Generator().manual_seed(seed_of(*places))


def shuffled_in_turn(groups: torch.Tensor, generator: torch.Generator, buffer: int = BUFFER) -> torch.Tensor:
    """A permutation ``(N,)`` that reads groups, such as the shards of a data set, one after the other.

    Groups are shuffled, and of those that follow each other as many as hold about ``buffer`` samples are mixed: so that
    no more of them need to be at hand at a time.

    Args:
        groups: int64 ``(N,)``, the number of each sample's group.
        generator: of the draws, which depend on nothing else.
        buffer: samples; each mixture takes the groups that begin within so many.
    """
    _, group, counts = groups.unique(return_inverse=True, return_counts=True)
    turn = torch.randperm(len(counts), generator=generator)
    begins = torch.empty_like(counts)
    begins[turn] = counts[turn].cumsum(0) - counts[turn]
    draw = torch.randperm(len(groups), generator=generator)
    mixture = begins.div(buffer, rounding_mode="floor")[group[draw]]
    return draw[mixture.argsort(stable=True)]
