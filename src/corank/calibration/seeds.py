"""Seeds of draws: one for every place in a run, so that a run may go on at any."""

from __future__ import annotations

import hashlib

import torch

__all__ = ["generator_of", "seed_of"]


def seed_of(*places: int | str) -> int:
    """A seed from 0 to 2**32 - 1 that depends on all of ``places``, such as the run's seed, a name and a step.

    Mixed, since torch's generator on the CPU reads no more than 32 bits: of sums and shifts the upper part, where the
    run's own seed may stand, would be dropped.
    """
    return int.from_bytes(hashlib.sha256(repr(places).encode()).digest()[:4], "little")


def generator_of(*places: int | str) -> torch.Generator:
    """A generator on the CPU with the seed of ``places``."""
    return torch.Generator().manual_seed(seed_of(*places))
