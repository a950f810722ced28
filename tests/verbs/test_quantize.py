"""The public call end to end, on the network that ships with the package."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import corank
from corank.data import load as load_images
from corank.layers import CodedLayer, prepare
from corank.models.digits import digits_net
from corank.sizes import parse_size
from corank.storage.contents import predict_bytes
from corank.storage.model_record import run_of


@pytest.fixture(scope="module")
def images() -> Tensor:
    return load_images("digits:train").tensor()[:160]


@pytest.fixture(scope="module")
def small(images: Tensor) -> nn.Module:
    return corank.quantize(digits_net(), images, bits=2, budget=0.3, search="greedy")


def test_the_result_is_a_drop_in_copy_and_the_model_is_untouched(images: Tensor) -> None:
    model = digits_net().train()
    before = copy.deepcopy(model.state_dict())
    quantized = corank.quantize(model, images, bits=4, search="greedy")
    assert model.training and not quantized.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    model.eval()
    agreement = (quantized(images).argmax(1) == model(images).argmax(1)).float().mean()
    assert agreement > 0.97
    floats = [
        name for name, tensor in quantized.state_dict().items() if tensor.dtype == torch.float32 and tensor.dim() > 1
    ]
    assert floats == []


def test_full_rank_adapters_give_the_float_network_back(images: Tensor) -> None:
    model = digits_net()
    layer = corank.LayerPlan(corank.Uniform(2), rank=10**6, fit="svd", adapter_bits=8)
    names = list(prepare(model, lambda one: one(images[:2])).targets)
    quantized = corank.quantize(model, images, plan=corank.Plan(dict.fromkeys(names, layer)))
    with torch.no_grad():
        expected, given = model(images), quantized(images)
    assert float((given - expected).norm() / expected.norm()) < 0.02  # 8-bit factors


@pytest.mark.parametrize("search", ["uniform", "greedy", corank.CoRa(iterations=6, batch_size=16)])
@pytest.mark.parametrize("budget", [0.05, 0.4])
def test_the_plan_never_exceeds_the_budget(images: Tensor, search: object, budget: float) -> None:
    quantized = corank.quantize(digits_net(), images, bits=2, budget=budget, preset="paper", search=search)  # pyright: ignore
    run = run_of(quantized)
    plain = corank.quantize(digits_net(), images, bits=2, budget=0, preset="paper", search="greedy")
    assert 0 < run.stored_bits - run_of(plain).stored_bits <= budget * run.weights


def test_stored_bytes_are_the_file_and_what_the_plan_predicts(images: Tensor, small: nn.Module, tmp_path: Path) -> None:
    coded = corank.save(small, tmp_path / "small.safetensors")
    assert coded == (tmp_path / "small.safetensors").stat().st_size == corank.inspect(small)["stored_bytes"]
    stored = corank.save(small, tmp_path / "fixed.safetensors", coder="fixed")
    assert coded < stored == corank.inspect(small)["fixed_bytes"]
    prepared = prepare(digits_net(), lambda one: one(images[:2]))
    assert predict_bytes(prepared, run_of(small)) == pytest.approx(stored, rel=0.02)
    run = run_of(small)
    assert stored * 8 < run.stored_bits * 1.15
    assert run.equivalent_bits == pytest.approx(
        sum(layer["bytes"] for layer in corank.inspect(small)["layers"]) * 8 / run.weights, rel=1e-3
    )


@pytest.mark.parametrize("size", ["52KB", "60KB", 80_000])
def test_a_size_is_kept_and_used(images: Tensor, size: int | str, tmp_path: Path) -> None:
    quantized = corank.quantize(digits_net(), images, size=size, search="greedy")
    stored = corank.save(quantized, tmp_path / "small.safetensors", coder="fixed")
    assert 0.93 * parse_size(size) < stored <= parse_size(size)
    assert corank.save(quantized, tmp_path / "coded.safetensors") <= stored


def test_the_same_seed_gives_the_same_file(images: Tensor, tmp_path: Path) -> None:
    files = []
    for name in ("one", "two"):
        search = corank.CoRa(iterations=4, batch_size=16)
        quantized = corank.quantize(digits_net(), images, bits=2, budget=0.2, search=search, seed=3)
        corank.save(quantized, tmp_path / name)
        files.append((tmp_path / name).read_bytes())
    assert files[0] == files[1]


def test_a_fresh_process_gives_bit_identical_outputs(small: nn.Module, images: Tensor, tmp_path: Path) -> None:
    corank.save(small, tmp_path / "small.safetensors")
    torch.save({"images": images, "outputs": small(images)}, tmp_path / "expected.pt")
    code = (
        "import sys, torch, corank; torch.set_num_threads(1)\n"
        "from corank.models.digits import DigitsNet\n"
        "expected = torch.load(sys.argv[2], weights_only=True)\n"
        "model = corank.load(sys.argv[1], DigitsNet)\n"
        "assert torch.equal(model(expected['images']), expected['outputs'])\n"
    )
    arguments = [sys.executable, "-c", code, str(tmp_path / "small.safetensors"), str(tmp_path / "expected.pt")]
    subprocess.run(arguments, check=True)


def test_copies_casts_and_states_behave(small: nn.Module, images: Tensor, tmp_path: Path) -> None:
    expected = small(images)
    assert torch.equal(copy.deepcopy(small)(images), expected)
    assert torch.equal(pickle.loads(pickle.dumps(small))(images), expected)
    assert torch.equal(copy.deepcopy(small).double().float()(images), expected)
    assert copy.deepcopy(small).to(torch.bfloat16)(images.bfloat16()).dtype == torch.bfloat16
    corank.save(small, tmp_path / "small.safetensors")
    other = corank.load(tmp_path / "small.safetensors", digits_net())
    for buffer in other.state_dict().values():
        buffer.zero_()
    other.load_state_dict(small.state_dict())
    assert torch.equal(other(images), expected)


def test_to_float_gives_plain_layers_with_the_same_outputs(small: nn.Module, images: Tensor) -> None:
    plain = corank.to_float(small)
    assert not any(isinstance(module, CodedLayer) for module in plain.modules())
    assert torch.equal(plain(images), small(images))


def test_layer_patterns_and_plans(images: Tensor, tmp_path: Path) -> None:
    model = digits_net()
    names = list(prepare(model, lambda one: one(images[:2])).targets)
    exceptions = {names[1]: 8, names[2]: "float"}
    quantized = corank.quantize(model, images, bits=3, layers=exceptions, search="greedy")
    run = run_of(quantized)
    assert run.plan.layers[names[0]].codec.bits == run.plan.layers[names[1]].codec.bits == 8  # pyright: ignore
    assert names[2] not in run.layers and "float" in run.skipped[names[2]]
    run.plan.save(tmp_path / "plan.json")
    again = corank.quantize(model, images, plan=corank.Plan.load(tmp_path / "plan.json"))
    assert torch.equal(again(images), quantized(images))


class Regressor(nn.Module):
    """Not a classifier, with a branch on its data and outputs in a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.deep, self.last = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3), nn.ConvTranspose2d(8, 1, 3)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        hidden = self.wide(images).relu()
        if float(images.mean()) > -5:
            hidden = self.deep(hidden).relu()
        return {"map": self.last(hidden)}


def test_models_that_are_not_classifiers(images: Tensor) -> None:
    model, calls = Regressor(), []

    def loss(output: dict[str, Tensor], reference: dict[str, Tensor]) -> Tensor:
        calls.append(1)
        return (output["map"] - reference["map"]).square().mean()

    search = corank.CoRa(iterations=3, batch_size=8)
    given = corank.quantize(model, images[:32], bits=3, budget=2.0, loss=loss, search=search)
    default = corank.quantize(model, images[:32], bits=3, budget=2.0, search=search)
    assert len(calls) >= 3
    with torch.no_grad():
        expected = model(images[:8])["map"]
        for one in (given, default):
            assert float((one(images[:8])["map"] - expected).norm() / expected.norm()) < 0.3


def test_the_presets_budget_is_none_where_no_adapter_fits() -> None:
    torch.manual_seed(0)
    tiny = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3))
    samples = torch.randn(16, 3, 8, 8)
    given = corank.quantize(tiny, samples, bits=4)
    assert given.corank_run.budget == 0 and not any(plan.rank for plan in given.corank_run.plan.layers.values())
    none = corank.quantize(tiny, samples, bits=4, budget=0.0)
    with torch.no_grad():
        assert torch.equal(given(samples), none(samples))


@pytest.mark.parametrize(("kind", "rate"), [("weight", None), ("weight", 2.0), ("bias", None)])
def test_values_beyond_fp16_are_named(kind: str, rate: float | None) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3))
    samples = torch.randn(16, 3, 8, 8)
    with torch.no_grad():
        model[2].get_parameter(kind)[1] = 7e4
    with pytest.raises(corank.ModelError, match=f"{kind} of layer '2' has values of up to 7e.04.*float"):
        corank.quantize(model, samples, rate=rate)
    left = corank.quantize(model, samples, rate=rate, layers={"2": "float"})
    with torch.no_grad():
        assert bool(torch.isfinite(left(samples)).all())


BAD_CALLS: list[tuple[dict[str, object], type[Exception], str]] = [
    ({"bits": 9}, corank.ConfigError, "1 to 8"),
    ({"bits": 2.5}, corank.ConfigError, "1 to 8"),
    ({"budget": -0.1}, corank.BudgetError, "from 0"),
    ({"budget": 1e-7}, corank.BudgetError, "cheapest adapter"),
    ({"size": "10KB"}, corank.BudgetError, "smallest"),
    ({"size": "much"}, corank.ConfigError, "1.2MB"),
    ({"size": "90KB", "budget": 0.1}, corank.ConfigError, "choose one"),
    ({"layers": {"nothing.*": 8}}, corank.ModelError, "matches none"),
    ({"layers": {"*": "float"}}, corank.ModelError, "nothing is quantized"),
    ({"layers": {"*": 11}}, corank.ConfigError, "1 to 8 bits"),
    ({"preset": "fest"}, corank.ConfigError, "fast"),
    ({"search": "corra"}, corank.ConfigError, "cora"),
    ({"samples": 0}, corank.ConfigError, "positive"),
    ({"device": "nowhere"}, corank.ConfigError, "cannot be used"),
    ({"adapter_bits": 1}, corank.ConfigError, "2 to 8"),
]


@pytest.mark.parametrize(("arguments", "error", "words"), BAD_CALLS)
def test_bad_calls_say_what_to_do_and_change_nothing(
    arguments: dict[str, object], error: type[Exception], words: str, images: Tensor
) -> None:
    model = digits_net()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(error, match=words):
        corank.quantize(model, images, **{"preset": "paper", **arguments})  # pyright: ignore
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_bad_models_and_data(images: Tensor) -> None:
    with pytest.raises(corank.ModelError, match="no layer"):
        corank.quantize(nn.Sequential(nn.ReLU()), images)
    broken = digits_net()
    next(iter(broken.parameters())).data[0] = float("nan")
    with pytest.raises(corank.ModelError, match="NaN"):
        corank.quantize(broken, images)
    for data, words in ((images[:0], "empty"), (images[:, :, 0], "could not run"), (images * float("nan"), "NaN")):
        with pytest.raises(corank.DataError, match=words):
            corank.quantize(digits_net(), data)
    with pytest.raises(corank.DataError, match=r"corank\.data\.load"):
        corank.quantize(digits_net(), "photos/")


def test_inputs_that_vary_little_around_a_large_mean() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 3))
    small = corank.quantize(net, 1000 + torch.randn(64, 20), bits=8, budget=0, all_layers=True)
    fresh = 1000 + torch.randn(256, 20)
    with torch.no_grad():
        expected = net(fresh)
        lost = (small(fresh) - expected).square().mean() / expected.var(0).mean()
    assert float(lost) < 1e-3
    plain = corank.to_float(small)
    assert max(float(layer.weight.detach().abs().max()) for layer in plain if isinstance(layer, nn.Linear)) < 0.5
