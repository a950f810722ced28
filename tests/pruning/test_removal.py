"""Removed channels are gone: the network computes what it computes with them at zero, and costs what it says."""

from __future__ import annotations

import copy

import pytest
import torch
from pruning.networks import NETWORKS, images, network
from torch import nn

from corank.layers import apply_structure
from corank.pruning.choice import chosen, largest_share
from corank.pruning.cost import Costs, multiply_adds, positions_of
from corank.pruning.coupling import NORMS_ACROSS, Coupling, Side
from corank.pruning.criteria import magnitudes
from corank.pruning.graph import Couplings, find_couplings
from corank.pruning.removal import mask, remove
from corank.pruning.trial import tried

pytest.importorskip("torch_pruning")


def coupled(name: str) -> tuple[nn.Module, Couplings]:
    model = network(name)
    found = find_couplings(model, lambda one: one(images(name)))
    return model, tried(model, found, images(name), lambda one, given: one(given))


@pytest.mark.parametrize("name", NETWORKS)
def test_every_coupling_holds(name: str) -> None:
    model, found = coupled(name)
    expected = find_couplings(model, lambda one: one(images(name)))
    left = 0 if name != "padded" else 1  # the channels beside the zeros
    assert len(found.found) == len(expected.found) - left


@pytest.mark.parametrize("name", NETWORKS)
def test_removed_is_zero_is_costed_and_is_rebuilt(name: str) -> None:
    model, found = coupled(name)
    adds = positions_of(model, lambda one: one(images(name)), 2)
    for positions in (adds, None):
        cost = Costs.of(model, found.found, positions)
        whole = multiply_adds(model, adds) if positions else sum(one.numel() for one in model.parameters())
        assert cost({}) == pytest.approx(whole)
        removed = chosen(found.found, magnitudes(model, found.found), cost, 0.3)
        narrow, zero = copy.deepcopy(model), copy.deepcopy(model)
        structure = remove(narrow, found.found, removed)
        left = multiply_adds(narrow, adds) if positions else sum(one.numel() for one in narrow.parameters())
        assert left <= 0.7 * whole
        assert cost(removed) == pytest.approx(left)
        mask(zero, found.found, removed)
        with torch.no_grad():
            given, expected = narrow(images(name)), zero(images(name))
            if not any(isinstance(one, NORMS_ACROSS) for one in model.modules()):
                torch.testing.assert_close(given, expected, rtol=1e-4, atol=1e-5)
            again = network(name)
            apply_structure(again, structure)
            again.load_state_dict(narrow.state_dict())
            torch.testing.assert_close(again(images(name)), given, rtol=0, atol=0)


def test_attention_loses_whole_heads() -> None:
    model, found = coupled("vit")
    place = next(place for place, one in enumerate(found.found) if one.heads == "blocks.0.attn")
    units = torch.tensor([True, False, False, True])
    narrow, zero = copy.deepcopy(model), copy.deepcopy(model)
    remove(narrow, found.found, {place: units})
    mask(zero, found.found, {place: units})
    attention = narrow.get_submodule("blocks.0.attn")
    assert (attention.num_heads, attention.attn_dim, attention.head_dim) == (2, 16, 8)
    with torch.no_grad():  # heads are apart from each other, and no norm sees them
        torch.testing.assert_close(narrow(images("vit")), zero(images("vit")), rtol=1e-4, atol=1e-5)


def test_a_wrong_coupling_is_found_out_and_told() -> None:
    model = network("residual")
    found = find_couplings(model, lambda one: one(images("residual")))
    inner = next(one for one in found.found if one.name == "inner")
    place = torch.arange(6)
    crossed = Coupling(
        "inner", 6, (Side("inner", "out", place, place), Side("outer", "in", place.flip(0), place))
    )  # fmt: skip
    half = Coupling("inner", 6, (Side("inner", "out", place, place),))
    for wrong, said in ((crossed, "something else"), (half, "does not run")):
        others = tuple(wrong if one is inner else one for one in found.found)
        result = tried(model, Couplings(others, found.left), images("residual"), lambda one, given: one(given))
        assert wrong not in result.found and len(result.found) == len(others) - 1
        assert said in result.left["inner"]


def test_the_largest_share_leaves_one_unit() -> None:
    model, found = coupled("residual")
    cost = Costs.of(model, found.found, positions_of(model, lambda one: one(images("residual")), 2))
    most = largest_share(found.found, cost)
    removed = chosen(found.found, magnitudes(model, found.found), cost, most)
    assert all(int((~removed[place]).sum()) == 1 for place in range(len(found.found)))
    narrow = copy.deepcopy(model)
    remove(narrow, found.found, removed)
    assert narrow(images("residual")).shape == (2, 5)
