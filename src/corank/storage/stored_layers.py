"""The numbers of an artifact, read from the file alone: no float network is needed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import cast

from torch import Tensor, nn

from corank.codecs import Codec
from corank.errors import ArtifactError
from corank.layers import CodedConv1d, CodedLayerState
from corank.storage.contents import ArtifactContents
from corank.storage.model_record import ModelRecord
from corank.storage.placement import placed_tensors

__all__ = ["layer_code", "other_tensors", "slot_tensors"]


def slot_tensors(run: ModelRecord, contents: ArtifactContents) -> dict[str, dict[str, Tensor]]:
    """What each coded layer stores, as stored (packed codes uint8, scales float16): layer to slot to a flat tensor.

    Args:
        run, contents: from :func:`corank.storage.artifact.read`, which has checked that they fit each other.
    """
    found: dict[str, dict[str, Tensor]] = {}
    for tensor in placed_tensors(run):
        part = contents.blobs[tensor.blob][tensor.begin : tensor.end]
        found.setdefault(tensor.layer, {})[tensor.slot] = part
    return found


def layer_code(run: ModelRecord, name: str, tensors: Mapping[str, Tensor]) -> CodedLayerState:
    """The codes, codebook and adapter of one layer, unpacked.

    Args:
        run: that lists the layer.
        name: of the layer.
        tensors: of the layer, from :func:`slot_tensors`.
    """
    plan, (groups, rows, columns) = run.plan.layers[name], run.layers[name].shape
    # A pointwise convolution has a weight of any (G, R, C); on "meta" it allocates none.
    standing_in = nn.Conv1d(groups * columns, groups * rows, 1, groups=groups, bias=False, device="meta")
    rank = run.layers[name].rank(plan)
    coded = CodedConv1d(standing_in, cast(Codec, plan.codec), rank, plan.adapter_bits, inputs=plan.inputs)
    coded.shifts = plan.input_shifts  # of channels that the matrix alone does not tell
    coded._buffers.update(tensors)
    return coded.code()


def other_tensors(contents: ArtifactContents) -> dict[str, Tensor]:
    """Every tensor that is not part of a coded weight, by name, in the dtype it is stored in.

    Raises:
        ArtifactError: when a blob does not hold what the header lists.
    """
    found: dict[str, Tensor] = {}
    try:
        for kind, entries in contents.header["tensors"].items():
            blob, at = contents.blobs[kind], 0
            for name, shape in entries:
                size = math.prod(shape)
                if min(shape, default=0) < 0 or at + size > blob.numel():
                    raise ArtifactError(f"the blob {kind!r} does not hold tensor {name!r}")
                found[str(name)] = blob[at : at + size].reshape(shape)
                at += size
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ArtifactError(f"the list of tensors is not sound: {error}") from error
    return found
