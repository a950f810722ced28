"""What quantization did to each layer: residuals, harm, bounds, and what is said where there is no theory."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import corank
from corank.errors import ConfigError, ModelError
from corank.losses import kl_divergence


def network() -> nn.Sequential:
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU(),
        nn.Flatten(), nn.Linear(128, 24), nn.ReLU(), nn.Linear(24, 5),
    ).eval()  # fmt: skip
    with torch.no_grad():  # so that outputs are no almost constant chances
        for one in model.parameters():
            one.mul_(2)
    return model


def images() -> Tensor:
    return torch.randn(48, 3, 8, 8, generator=torch.Generator().manual_seed(2))


@pytest.fixture(scope="module")
def analysed() -> tuple[nn.Module, nn.Module, dict[str, Any]]:
    model = network()
    small = corank.quantize(model, images(), bits=2, budget=1.5, search=corank.UniformRanks())
    return model, small, corank.analyse(model, images(), quantized=small, samples=48)


def test_layers_bounds_and_residuals(analysed: tuple[nn.Module, nn.Module, dict[str, Any]]) -> None:
    found = analysed[2]
    assert [one["name"] for one in found["layers"]] == ["0", "3", "6", "8"]
    for one in found["layers"]:
        assert 0 < one["norm"] <= one["bound"] * (1 + 1e-6)
        # Weyl: no singular value moves by more than the norm of what is left
        assert abs(one["norm"] - one["coded_norm"]) <= one["residual"] * (1 + 1e-3)
        assert one["harm"] >= 0
    adapted = [one for one in found["layers"] if one["rank"]]
    assert adapted and all(one["residual_before"] != one["residual"] for one in adapted)
    assert sum(one["residual"] for one in adapted) < sum(one["residual_before"] for one in adapted)
    assert 0 < found["lower"] <= found["upper"] and 0 < found["lower_quantized"] <= found["upper_quantized"]
    assert json.loads(json.dumps(found)) == found


def test_the_residual_is_the_norm_of_the_difference(analysed: tuple[nn.Module, nn.Module, dict[str, Any]]) -> None:
    model, small, found = analysed
    head: Any = small.get_submodule("8")
    error = (head.weight - model.get_parameter("8.weight")).detach()
    assert found["layers"][-1]["residual"] == pytest.approx(float(torch.linalg.matrix_norm(error, 2)), rel=1e-4)


def test_harm_is_that_of_the_float_network_with_one_layer_coded(
    analysed: tuple[nn.Module, nn.Module, dict[str, Any]],
) -> None:
    model, small, found = analysed
    mixed = copy.deepcopy(model)
    coded: Any = small.get_submodule("6")
    with torch.no_grad():
        mixed.get_parameter("6.weight").copy_(coded.weight)
        mixed.get_parameter("6.bias").copy_(coded.bias)
        expected = float(kl_divergence(mixed(images()), model(images())))
        whole = float(kl_divergence(small(images()), model(images())))
    assert found["layers"][2]["harm"] == pytest.approx(expected, rel=1e-3)
    assert found["harm_together"] == pytest.approx(whole, rel=1e-3)


def test_nothing_changes(analysed: tuple[nn.Module, nn.Module, dict[str, Any]]) -> None:
    model, small, found = analysed
    kept = [{name: one.clone() for name, one in part.state_dict().items()} for part in (model, small)]
    again = corank.analyse(model, images(), quantized=small, samples=48)
    assert {**again, "seconds": 0} == {**found, "seconds": 0}
    for part, before in zip((model, small), kept, strict=True):
        assert all(torch.equal(one, before[name]) for name, one in part.state_dict().items())
        assert not part.training


def test_rounded_inputs_are_part_of_the_harm_and_have_no_jacobian() -> None:
    model = network()
    small = corank.quantize(model, images(), bits=8, budget=0.0, activations=2)
    found = corank.analyse(model, images(), quantized=small)
    assert found["lower_quantized"] is None and any("|x - y| + step" in one for one in found["notes"])
    float_inputs = corank.analyse(model, images(), quantized=corank.quantize(model, images(), bits=8, budget=0.0))
    assert sum(one["harm"] for one in found["layers"]) > 10 * sum(one["harm"] for one in float_inputs["layers"])


def test_without_a_quantized_network_layers_are_tried_at_a_width() -> None:
    wide, narrow = (corank.analyse(network(), images(), bits=bits)["layers"] for bits in (6, 2))
    assert all(one["harm"] < other["harm"] for one, other in zip(wide, narrow, strict=True))


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(300, 16), nn.Linear(16, 7)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.table(ids)).mean(1)


def test_what_has_no_theory_is_said() -> None:
    found = corank.analyse(Tokens(), torch.randint(300, (16, 6)))
    assert "looked up" in found["no_theory"]["table"] and "no bound" in found["no_theory"]["(model)"]
    assert found["upper"] is None and found["layers"][-1]["norm"] > 0 and found["layers"][0]["harm"] > 0


def test_bad_input() -> None:
    model = network()
    small = corank.quantize(model, images(), bits=4, budget=0.0)
    with pytest.raises(ModelError, match="quantized=model"):
        corank.analyse(small, images())
    with pytest.raises(ModelError, match="no coded layer"):
        corank.analyse(model, images(), quantized=model)
    with pytest.raises(ConfigError, match="what='lipschitz'"):
        corank.analyse(model, images(), "norms")
    with pytest.raises(ConfigError, match="1 to 8"):
        corank.analyse(model, images(), bits=9)
