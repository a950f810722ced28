"""The best choice between two values for each weight of a row, by trying all of them."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor


def best_choice(weight: Tensor, below: Tensor, above: Tensor, gram: Tensor) -> float:
    """Least ``(w - q) gram (w - q)^T`` of one row ``(C,)`` over every ``q`` in ``{below, above}^C``."""
    choices = torch.tensor(list(itertools.product([False, True], repeat=len(weight))))
    errors = weight.double() - torch.where(choices, above, below).double()
    return float(((errors @ gram.double()) * errors).sum(1).min())
