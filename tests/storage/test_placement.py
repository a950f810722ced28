"""Where coded tensors stand: without gaps, in the order that layers store them."""

from __future__ import annotations

import pytest
from fuzzing.artifacts import SAMPLES, sample_model

from corank.layers import CodedLayer
from corank.storage.contents import contents_of
from corank.storage.model_record import run_of
from corank.storage.placement import blob_sizes, placed_tensors


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_every_tensor_of_every_layer_has_its_place(name: str) -> None:
    model = sample_model(SAMPLES[name])
    run = run_of(model)
    contents, ends = contents_of(model, run), {"codes": 0, "scales": 0}
    seen = []
    for tensor in placed_tensors(run):
        layer = model.get_submodule(tensor.layer)
        assert isinstance(layer, CodedLayer)
        assert tensor.begin == ends[tensor.blob]
        ends[tensor.blob] = tensor.end
        stored = contents.blobs[tensor.blob][tensor.begin : tensor.end]
        assert stored.equal(layer._buffers[tensor.slot])  # pyright: ignore[reportArgumentType]
        assert tensor.spec == layer.slots()[tensor.slot]
        seen.append((tensor.layer, tensor.slot))
    assert seen == [(key, slot) for key in run.layers for slot in model.get_submodule(key).slots()]  # pyright: ignore
    assert blob_sizes(run) == (len(contents.blobs["codes"]), len(contents.blobs["scales"])) == tuple(ends.values())
