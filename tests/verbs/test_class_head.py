"""The layer that tells classes apart: found, widened, and its rows aligned, in float and in codes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import corank
from corank.codecs import PowerOfTwo, Uniform
from corank.errors import ConfigError, ModelError
from corank.plan import LayerPlan
from corank.verbs.class_head import align_classes, head_name, widened

IMAGES = torch.randn(40, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def network(bias: bool = False, classes: int = 7, known: int = 4) -> nn.Sequential:
    """Whose rows beyond ``known`` are twice as long."""
    torch.manual_seed(0)
    head = nn.Linear(32, classes, bias=bias)
    with torch.no_grad():
        head.weight[known:] *= 2
    return nn.Sequential(nn.Conv2d(3, 8, 3, stride=4), nn.ReLU(), nn.Flatten(), head).eval()


def lengths(model: nn.Module, known: int = 4) -> tuple[float, float]:
    found = model[3].weight.detach().double().norm(dim=1)
    return float(found[:known].mean()), float(found[known:].mean())


def outputs(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model(IMAGES)


@pytest.mark.parametrize("bias", [False, True])
def test_after_it_both_mean_lengths_are_equal_and_once_more_changes_nothing(bias: bool) -> None:
    model = network(bias)
    found = align_classes(model, 4)
    old, new = lengths(found)
    assert old == pytest.approx(new, rel=1e-6) and lengths(model)[1] > 1.5 * lengths(model)[0]
    again = align_classes(found, 4)
    assert torch.allclose(again[3].weight, found[3].weight, rtol=1e-6)
    # known classes as they were, the choice among the new ones too, and fewer images are called new
    before, after = outputs(model), outputs(found)
    assert torch.equal(before[:, :4], after[:, :4])
    assert torch.equal(before[:, 4:].argmax(1), after[:, 4:].argmax(1))
    assert int((after.argmax(1) >= 4).sum()) <= int((before.argmax(1) >= 4).sum())
    assert torch.equal(found[3].weight[:4], model[3].weight[:4])


def test_where_nothing_is_known_or_nothing_new_it_does_nothing() -> None:
    model = network()
    for known in (0, 7):
        assert torch.equal(align_classes(model, known)[3].weight, model[3].weight)


@pytest.mark.parametrize("codec", ["uniform", "binary", "kmeans"])
def test_of_codes_the_scales_are_aligned_and_the_file_holds_it(codec: str, tmp_path: Path) -> None:
    small = corank.quantize(
        network(True), IMAGES, bits=1 if codec == "binary" else 3, codec=codec, budget=0, all_layers=True
    )
    found = align_classes(small, 4)
    old, new = lengths(found)
    assert old == pytest.approx(new, rel=1e-3) and lengths(small)[1] > 1.5 * lengths(small)[0]
    assert torch.equal(small[3].code().weight.codes, found[3].code().weight.codes)
    assert torch.equal(outputs(small)[:, :4], outputs(found)[:, :4])
    assert torch.equal(outputs(small)[:, 4:].argmax(1), outputs(found)[:, 4:].argmax(1))
    assert torch.equal(align_classes(found, 4)[3].weight, found[3].weight)
    corank.save(found, tmp_path / "aligned.safetensors")
    assert torch.equal(outputs(corank.load(tmp_path / "aligned.safetensors", network(True))), outputs(found))


def test_codes_without_a_scale_for_each_row_are_refused() -> None:
    shifts = corank.Plan({"0": LayerPlan(Uniform(8)), "3": LayerPlan(PowerOfTwo(4, power_of_two_scale=True))})
    adapted = corank.Plan({"0": LayerPlan(Uniform(8)), "3": LayerPlan(Uniform(2), rank=1)})
    for plan, said in ((shifts, "no scale for each row"), (adapted, "an adapter")):
        with pytest.raises(ConfigError, match=said):
            align_classes(corank.quantize(network(), IMAGES, plan=plan), 4)


def test_a_wide_network_knows_what_the_narrow_one_knew() -> None:
    for bias in (False, True):
        model = network(bias)
        wide = widened(model, "3", 3, seed=1)
        assert torch.allclose(outputs(wide)[:, :7], outputs(model), atol=1e-6) and outputs(wide).shape == (40, 10)
        rows = wide[3].weight.detach().norm(dim=1)
        assert torch.allclose(rows[7:], rows[:7].mean().expand(3), rtol=1e-5)
        assert not bias or not bool(wide[3].bias[7:].any())
        assert torch.equal(wide[3].weight, widened(model, "3", 3, seed=1)[3].weight)
        assert not torch.equal(wide[3].weight, widened(model, "3", 3, seed=2)[3].weight)
        assert len(model[3].weight) == 7


def test_the_head_is_the_last_linear_layer_or_the_one_named() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    assert head_name(model) == "2" and head_name(model, "0") == "0"
    with pytest.raises(ModelError, match="'0', '2'"):
        head_name(model, "fc")
    with pytest.raises(ModelError, match="no Linear"):
        head_name(nn.Sequential(nn.Conv2d(3, 4, 1)))
    for known in (-1, 8, 2.0):
        with pytest.raises(ConfigError, match="0 to 7"):
            align_classes(network(), known)  # pyright: ignore[reportArgumentType]
