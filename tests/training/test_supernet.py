"""Sandwich sampling, steps for all parts, and bits that are handed on."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from corank.calibration.seeds import generator_of
from corank.errors import ConfigError
from corank.models import resolve
from corank.training.recipe import Recipe
from corank.training.state import TrainingState
from corank.training.subnets import choose, drawn, extreme, layers_of, space_of
from corank.training.supernet import Sandwich, bits_of, give_steps, groups_of_supernet, inherit

NAME = "elastic:3,width=4-4-8,depth=1+2,kernel=3+5,expansion=1+2,resolution=8"
IMAGES = torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def network() -> nn.Module:
    return resolve(NAME).model.train()


def quantized(bits: int = 4, shared: bool = True) -> nn.Module:
    found = network()
    give_steps(found, bits, True, [IMAGES], shared)
    return found


def test_the_loss_is_the_mean_over_the_sandwich_and_the_largest_teaches_the_others() -> None:
    found = quantized()
    reference, space, labels = copy.deepcopy(found), space_of(found), torch.arange(16) % 3
    state = TrainingState(Recipe(weights=None, loss="labels"), found, None, {}, seed=7, step=3, batch=IMAGES)
    sandwich = Sandwich(random=1)
    sandwich.start(state)
    state.output = found(IMAGES)
    total = sandwich.loss_ready(state, F.cross_entropy(state.output, labels))
    total.backward()

    outputs: list[Tensor] = []
    chosen = [extreme(space, True), extreme(space, False), drawn(space, generator_of(7, "subnet", 3, 0))]
    for one in chosen:
        choose(reference, one)
        outputs.append(reference(IMAGES))
    taught = outputs[0].detach().softmax(1)
    losses = [(taught * (taught.log() - one.log_softmax(1))).sum(1).mean() for one in outputs[1:]]
    wanted = (F.cross_entropy(outputs[0], labels) + losses[0] + losses[1]) / 3
    wanted.backward()
    assert torch.allclose(total, wanted, atol=1e-6)
    pairs = zip(found.parameters(), reference.parameters(), strict=True)
    assert all((a.grad is None) is (b.grad is None) for a, b in pairs)
    for one, other in zip(found.parameters(), reference.parameters(), strict=True):
        assert one.grad is None or (other.grad is not None and torch.allclose(one.grad, other.grad, atol=1e-5))
    assert all(layer.now == layer.shape for _, layer in layers_of(found))  # the largest again


def test_draws_hang_on_seed_and_step_alone() -> None:
    space = space_of(network())
    one, same, other = (drawn(space, generator_of(0, "subnet", step, 0)) for step in (1, 1, 2))
    assert one == same != other and all(one[name] in space[name] for name in space)


def test_one_step_a_layer_or_one_for_each_part() -> None:
    shared, apart = quantized(), quantized(shared=False)
    for name, layer in layers_of(shared):
        assert list(layer.steps) == ["shared"] and (layer.rounding is not None)
        assert (layer.rounding.inputs is None) is layer.shape.edge and (
            layer.rounding.weight.bits == 8
        ) is layer.shape.edge
        own = apart.get_submodule(name).steps
        assert set(own) == ({"shared"} if layer.shape.edge else parts_of(name, layer))  # pyright: ignore[reportArgumentType]


def parts_of(name: str, layer) -> set[str]:
    """Of a block: two expansions, and of its depthwise layer two kernels."""
    kind, shape = name.rpartition(".")[2], layer.shape
    if kind == "expand":
        return {f"{shape.inputs}-{shape.inputs * one}-1" for one in (1, 2)}
    inner = shape.inputs // 2
    if kind == "project":
        return {f"{inner * one}-{shape.outputs}-1" for one in (1, 2)}
    return {f"{inner * one}-{inner * one}-{kernel}" for one in (1, 2) for kernel in (3, 5)}


def test_signed_steps_where_inputs_are_negative() -> None:
    found = dict(layers_of(quantized()))
    signs = {name: one.rounding.inputs.now().signed for name, one in found.items() if not one.shape.edge}  # pyright: ignore[reportOptionalMemberAccess]
    assert signs["stages.0.1.expand"] and not signs["stages.0.1.spatial"] and not signs["stages.0.0.expand"]
    unsigned = network()
    give_steps(unsigned, 4, False, [IMAGES])
    assert not any(one.rounding.inputs.now().signed for _, one in layers_of(unsigned) if not one.shape.edge)  # pyright: ignore[reportOptionalMemberAccess]


def test_bits_are_handed_on_with_all_parameters_and_doubled_steps() -> None:
    found = quantized(4)
    with torch.no_grad():
        for name, one in found.named_parameters():
            if name.endswith("growth"):
                one.fill_(0.21)
    before = copy.deepcopy(found)
    inherit(found, 2)
    assert bits_of(found) == 2 and bits_of(before) == 4
    old = dict(layers_of(before))
    for name, layer in layers_of(found):
        assert torch.equal(layer.weight, old[name].weight)
        one, other = layer.rounding, old[name].rounding
        assert one is not None and other is not None
        factor = 1 if layer.shape.edge else 4
        assert torch.equal(one.weight.book().scale, factor * other.weight.book().scale)
        if one.inputs is not None and other.inputs is not None:
            assert torch.equal(one.inputs.now().step, 4 * other.inputs.now().step)
    with pytest.raises(ConfigError, match="hands on fewer bits"):
        inherit(found, 4)


def test_decay_is_of_kernels_alone() -> None:
    found = quantized()
    weights, rest, steps = groups_of_supernet(found, 0.1, 3.0, 0.01)
    assert weights["weight_decay"] == 0.01 and rest["weight_decay"] == steps["weight_decay"] == 0
    assert len(weights["params"]) == len(list(layers_of(found))) and steps["lr"] == pytest.approx(0.3)
    assert sum(len(group["params"]) for group in (weights, rest, steps)) == len(list(found.parameters()))


def test_bad_numbers() -> None:
    with pytest.raises(ConfigError, match="2 to 8"):
        give_steps(network(), 1, True, [IMAGES])
    with pytest.raises(ConfigError, match=r"Sandwich\(random=2\)"):
        Sandwich(random=-1)
