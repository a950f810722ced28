"""A quantized network whose layers keep their codes packed and multiply by them as they are."""

from __future__ import annotations

import copy

from torch import nn

from corank.autograd import recording
from corank.errors import ModelError
from corank.layers import is_packed, pack_layers
from corank.storage.model_record import ATTRIBUTE

__all__ = ["to_packed"]


@recording()
def to_packed(model: nn.Module, least: int = 0) -> nn.Module:
    """A copy of a quantized model for inference whose weights stay small in memory, by C++ kernels that are built when
    they are first used; without a compiler by plain PyTorch.

    Linear layers, embeddings and the heads tied to them keep their codes at 1 to 8 bits each, with whatever levels,
    scales, offsets and groups of columns (of multiples of 32) they have; adapters are two thin products beside them.
    Outputs differ from the model's by the rounding of float32 alone. Layers of 1-bit weights and inputs multiply by xor
    and popcount: exact whole numbers. All else stays as it is, convolutions with padding or groups among them, and
    composes its float weight.

    Args:
        model: of :func:`corank.quantize`, :func:`corank.train` or :func:`corank.load`; it is what is saved, not the
            copy.
        least: weights of a layer whose codes are packed; 0 for all, whose memory is least.

    Raises:
        ModelError: for a model without such layers.
    """
    packed = copy.deepcopy(model)
    if not pack_layers(packed, least) and not is_packed(model):
        raise ModelError(
            "no layer is of packed codes: linear layers and embeddings that corank.quantize has coded are, and "
            "convolutions without padding whose weights and inputs are 1 bit (corank.train(model, data, "
            "'binary-w1a1'))"
        )
    packed.__dict__.pop(ATTRIBUTE, None)
    return packed
