"""What a file holds in float beside the codes, and why."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from corank.layers.hold_weights import FEWEST
from corank.storage.header import DTYPES
from corank.storage.model_record import ModelRecord

__all__ = ["float_reason", "float_tensors"]


def float_tensors(run: ModelRecord, header: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every tensor of a file that is no coded weight, the largest first: ``name, shape, bytes, reason``.

    Args:
        run: whose file it is.
        header: of the file.
    """
    found = [
        {"name": name, "shape": list(shape), "bytes": math.prod(shape) * DTYPES[kind].itemsize,
         "reason": float_reason(name, shape, run.skipped) if DTYPES[kind].is_floating_point else "whole numbers"}
        for kind, entries in header["tensors"].items()
        for name, shape in entries
    ]  # fmt: skip
    return sorted(found, key=lambda entry: -int(entry["bytes"]))


def float_reason(name: str, shape: Sequence[int], skipped: Mapping[str, str]) -> str:
    """Why a tensor stays in float, in words.

    Args:
        name: of the tensor.
        shape: of it.
        skipped: names of layers that stay in float, with the reason.
    """
    if sum(size > 1 for size in shape) < 2:
        return "no more than a vector, as biases and norms are"
    known = next((skipped[one] for one in (name, name.rpartition(".")[0]) if one in skipped), None)
    if known is not None:
        return known
    if math.prod(shape) <= FEWEST:
        return f"up to {FEWEST:,} numbers stay in float"
    return "a norm's gains, a buffer, or a parameter that its module's code computes with in a way of its own"
