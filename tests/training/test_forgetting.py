"""Ways that forget what the backward pass needs: the same gradients, of first and second order, and less held."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from training.tiny_state import small_network, state_of

from corank.training.recipe import Recipe
from corank.training.state import TrainingState
from corank.training.weights import Compander, DenseShiftLatents, DoReFa, S3Latents, TrainableWeight, WeightTraining

WAYS = [Compander(), DenseShiftLatents(3), DoReFa(3), S3Latents()]


def started(way: WeightTraining) -> tuple[nn.Sequential, TrainingState]:
    torch.manual_seed(0)
    model = small_network().eval()
    return model, state_of(model, Recipe(weights=way, start="float"))


def gradients(model: nn.Module, twice: bool) -> list[Tensor]:
    trained = [one for one in model.parameters() if one.requires_grad]
    found = model(torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))).square().sum()
    first = torch.autograd.grad(found, trained, create_graph=twice, allow_unused=True)
    kept = [one for one in first if one is not None]
    if not twice:
        return kept
    total = torch.stack([one.abs().sum() for one in kept]).sum()
    return [one for one in torch.autograd.grad(total, trained, allow_unused=True) if one is not None]


@pytest.mark.parametrize("twice", [False, True])
@pytest.mark.parametrize("way", WAYS, ids=lambda way: type(way).__name__)
def test_gradients_are_the_same(way: WeightTraining, twice: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model, state = started(way)
    kinds = {type(layer.weight) for layer in state.layers.values()}
    assert all(kind is not type(None) and kind.forgets for kind in kinds)
    found = gradients(model, twice)
    for kind in kinds:
        monkeypatch.setattr(kind, "forgets", False)
    wanted = gradients(model, twice)
    assert len(found) == len(wanted) > 0
    for one, other in zip(found, wanted, strict=True):
        assert bool(one.isfinite().all())
        if twice:  # sums are added up in another order
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6 * float(other.abs().max()))
        else:
            assert torch.equal(one, other)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: type(way).__name__)
def test_what_is_held_is_what_is_there_anyway(way: WeightTraining) -> None:
    """Of the weight's size, beside parameters: the weight that the layer computes with alone."""
    _, state = started(way)
    layer = state.layers["6"]
    assert isinstance(layer.weight, TrainableWeight)
    own = {one.data_ptr() for one in layer.module.parameters()}
    held: set[int] = set()

    def keep(tensor: Tensor) -> Tensor:
        if tensor.numel() >= layer.latent.numel() and tensor.data_ptr() not in own:
            held.add(tensor.data_ptr())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        used = layer.module(torch.ones(2, 128))
    assert used.requires_grad and len(held) <= 1
