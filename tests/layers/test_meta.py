from __future__ import annotations

import pytest
import torch
from torch import nn

from corank.errors import ModelError
from corank.layers.meta import check_values, materialise, meta_names


class Tied(nn.Module):
    """Two layers of one weight, a buffer that is kept and one that is not."""

    def __init__(self, kept: bool = True) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)
        self.b.weight = self.a.weight
        self.register_buffer("steps", torch.arange(3), persistent=kept)


def test_models_without_values_are_named() -> None:
    check_values(Tied())
    model = Tied().to("meta")
    assert meta_names(model)[0] == "a.weight"
    with pytest.raises(ModelError, match=r"'a\.weight' and \d more tensors of this Tied are on the meta device"):
        check_values(model)


def test_room_is_made_once_for_a_tensor_of_two_names() -> None:
    model = Tied().to("meta")
    model.b.weight = model.a.weight
    materialise(model)
    assert not meta_names(model) and model.a.weight is model.b.weight
    assert isinstance(model.a.weight, nn.Parameter) and model.a.weight.requires_grad
    assert model.steps.dtype == torch.int64


def test_what_no_file_holds_cannot_be_filled() -> None:
    with pytest.raises(ModelError, match="its buffer 'steps' is on the meta device and not part of a state dict"):
        materialise(Tied(kept=False).to("meta"))


def test_real_tensors_stay() -> None:
    model = Tied()
    before = model.a.weight
    materialise(model)
    assert model.a.weight is before
