"""The recipe binary-vit: a small network that trains, with labels and from a teacher, is stored and counted."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import corank
from corank.errors import ConfigError
from corank.layers import CodedLayer, PackedConv2d, PackedLinear
from corank.models import BinaryViT, BinaryViTShape
from corank.training.inputs import SignInputs
from corank.training.recipe import Recipe
from corank.training.recipes import RECIPES, chosen_recipe
from corank.training.start import anew
from corank.training.weights import CentredSigns

SHAPE = BinaryViTShape(8, 2, 8, (1, 1), (2, 2), (2, 1))


def images(count: int = 48) -> tuple[Tensor, Tensor]:
    """Three colours in noise."""
    torch.manual_seed(0)
    labels = torch.arange(count) % 3
    return torch.randn(count, 3, 8, 8) + 2 * nn.functional.one_hot(labels)[:, :, None, None], labels


def network() -> BinaryViT:
    torch.manual_seed(1)
    return BinaryViT(3, SHAPE)


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    recipe = chosen_recipe("binary-vit-w1a1")
    recipe = recipe.replaced(optimizer=corank.training.recipe.Optimizer("adamw", 5e-3, 1.0))
    return corank.train(network(), images(), recipe, iterations=25, batch_size=24)


def test_parts() -> None:
    recipe = RECIPES["binary-vit"](1, 1)
    assert recipe.weights == CentredSigns() and recipe.inputs == SignInputs(unit=True)
    assert (recipe.start, recipe.loss, recipe.optimizer.decay, recipe.schedule.warm) == ("scratch", "labels", 0, 0)
    assert Recipe.from_json(recipe.to_json()) == recipe
    for bits, inputs in ((1, None), (2, 1), (1, 4)):
        with pytest.raises(ConfigError, match="binary-vit-w1a1"):
            RECIPES["binary-vit"](bits, inputs)


def test_it_learns(trained: nn.Module) -> None:
    found = corank.evaluate(trained, [images()])
    assert found.top1 is not None and found.top1 > 80


def test_every_layer_between_the_edges_is_one_bit(trained: nn.Module) -> None:
    layers = {name: one for name, one in trained.named_modules() if isinstance(one, CodedLayer)}
    assert len(layers) == 2 + 2 * 6 + 1
    for name, layer in layers.items():
        edge = name in ("patch", "head")
        assert (layer.codec.bits, layer.inputs) == ((8, 8) if edge else (1, 1)), name
        if not edge:
            sizes = layer.geometry.to_matrix(layer.weight.detach()).abs()
            assert torch.equal(sizes, sizes[..., :1].expand_as(sizes))
            step = layer.input_quantizer()
            assert step is not None and float(step.step) == 1
    for norm in ("linear.norm", "transition.norm"):  # those behind a layer are folded into its scales
        assert not any(name.endswith(norm) and isinstance(one, nn.BatchNorm1d) for name, one in trained.named_modules())


def test_the_file_has_a_bit_a_weight_and_the_same_network(trained: nn.Module, tmp_path: Path) -> None:
    layers = corank.inspect(trained, True)["layers"]
    binary = [one for one in layers if one["name"] not in ("patch", "head")]
    assert len(binary) == 13 and all(one["bits"] == 1 for one in binary)
    corank.save(trained, tmp_path / "small.safetensors")
    loaded = corank.load(tmp_path / "small.safetensors", network())
    x = images()[0]
    assert torch.equal(loaded(x), trained(x))
    settled = [one for one in loaded.parameters() if one.dtype == torch.float32]
    halves = [
        name for name, one in loaded.named_parameters() if name.endswith((".shift", ".slope", ".scale", "growth"))
    ]
    assert settled and halves
    for name in halves:
        one = loaded.get_parameter(name)
        assert torch.equal(one.half().float(), one), name


def test_counted_it_computes_the_same(trained: nn.Module) -> None:
    packed, x = corank.to_packed(trained), images()[0]
    kinds = [type(one) for one in packed.modules()]
    assert kinds.count(PackedLinear) == 12 and kinds.count(PackedConv2d) == 1
    expected = trained(x)
    torch.testing.assert_close(packed(x), expected, rtol=1e-3, atol=1e-3)
    assert "corank_run" not in packed.__dict__ and "corank_run" in trained.__dict__
    with pytest.raises(corank.ModelError, match="1 bit"):
        corank.to_packed(network())


def test_transitions_stay_in_float_where_a_pattern_says_so() -> None:
    made = corank.train(network(), images(), "binary-vit-w1a1", iterations=2, batch_size=24,
                        layers={"*.transition.conv": "float"})  # fmt: skip
    assert type(made.get_submodule("stages.1.transition.conv")) is nn.Conv2d
    assert isinstance(made.get_submodule("stages.1.blocks.0.up.linear.layer"), CodedLayer)


def test_from_scratch_nothing_of_the_given_weights_is_left() -> None:
    other = network()
    with torch.no_grad():
        for one in other.parameters():
            one.add_(0.5)
    expected = network()
    for one in (expected, other):
        anew(one, 3)
    assert all(torch.equal(one, own) for one, own in zip(expected.parameters(), other.parameters(), strict=True))


def test_a_teacher_is_learned_from_without_labels() -> None:
    x, labels = images()
    teacher = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())  # the colours
    with torch.no_grad():
        assert bool((teacher(x).argmax(1) == labels).all())
    made = corank.train(network(), x, "binary-vit-w1a1", iterations=3, batch_size=24, teacher=teacher)
    run = made.corank_run
    assert Recipe.from_json(run.recipe).loss == "distil"
    assert any("teacher" in text and "Sequential" in text for text in run.notes)
    with pytest.raises(corank.ModelError, match=r"\[\(2, 5\)\] where the network gives \[\(2, 3\)\]"):
        corank.train(network(), x, "binary-vit-w1a1", teacher=nn.Sequential(nn.Flatten(), nn.Linear(192, 5)))
    with pytest.raises(ConfigError, match="teacher="):
        corank.train(network(), x, "binary-vit-w1a1", teacher=teacher(x))  # pyright: ignore[reportArgumentType]
