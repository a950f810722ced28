"""Where a layer is coded: a small one on the CPU, whatever device its network is on.

Coding goes column by column, or step by step over few numbers: thousands of operations of microseconds, each of which
a device takes longer to start than a CPU to compute. What is large is done where the network is, forward passes and the
sums of their outer products first of all; weight and moments of a small layer are moved over once, and its codes back.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from corank.adapters import CodedLowRank, LowRank
from corank.adapters.factor_codes import factor_codec
from corank.codecs import Codec
from corank.coded_weight import CodedWeight
from corank.layers import CodedLayerState
from corank.plan import LayerPlan
from corank.statistics import LayerStatistics

__all__ = ["code_at", "coding_device", "directions_at", "statistics_at"]

_CPU = torch.device("cpu")
# Weights of a layer from which a device is expected to be faster; reckoned, at 6 microseconds for the start of an
# operation and 50 multiply-adds a nanosecond on a CPU. A step over one column is a dozen operations on a device, and on
# a CPU a multiply-add or two for every weight. Steps over all weights at once are far more work for each start.
_COLUMN_BY_COLUMN = 1 << 19
_ALL_AT_ONCE = 1 << 14


def coding_device(weight: Tensor, plan: LayerPlan) -> torch.device:
    """Where a layer of this weight ``(G, R, C)`` is coded: where it is, or on the CPU where that takes less time."""
    walks = plan.rounder.walks_columns or plan.refits > 0
    return weight.device if weight.numel() >= (_COLUMN_BY_COLUMN if walks else _ALL_AT_ONCE) else _CPU


def statistics_at(statistics: LayerStatistics, device: torch.device) -> LayerStatistics:
    """The same statistics there; moved once, however often the layer is coded."""
    return {kind: statistic.to(device) for kind, statistic in statistics.items()}


def code_at(code: CodedLayerState, device: torch.device) -> CodedLayerState:
    """What was coded elsewhere, in tensors on ``device``."""
    adapter = code.adapter
    if adapter is not None:
        codec = factor_codec(code.adapter_bits)
        left, right = _weight_at(codec, adapter.left, device), _weight_at(codec, adapter.right, device)
        adapter = CodedLowRank(left, right, adapter.groups)
    return replace(code, weight=_weight_at(code.codec, code.weight, device), adapter=adapter)


def directions_at(directions: LowRank, device: torch.device) -> LowRank:
    """The same factors there; their energies stay, for they are read one by one."""
    return LowRank(directions.left.to(device), directions.right.to(device), directions.energies)


def _weight_at(codec: Codec, weight: CodedWeight, device: torch.device) -> CodedWeight:
    """Through what a file would store: the one form that every codebook has."""
    rows, columns = weight.codes.shape
    stored = {
        name: (tensor.float() if tensor.is_floating_point() else tensor).reshape(-1).to(device)
        for name, tensor in weight.codebook.tensors().items()
    }
    return CodedWeight(weight.codes.to(device), codec.codebook(stored, rows, columns))
