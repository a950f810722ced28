"""Every registered codec with every rounder, through the whole call, into a file and back, and refined."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import corank
from corank import Plan, Refinement
from corank.codecs import CODECS, Binary, Codec, DenseShift, KMeans, Levels, PowerOfTwo, Uniform
from corank.layers import CodedLayer
from corank.presets import PRESETS, chosen_codec
from corank.refine.trainable_layer import TrainableLayer
from corank.rounding import AdaRound, Gpfq, Gptq, Nearest, Qronos, Rounder
from corank.statistics import Gram, LayerStatistics
from corank.testing import check_rounder

EVERY = sorted(CODECS)


def default(name: str) -> Codec:
    codec: Any = CODECS[name]
    return codec()


def network() -> nn.Module:
    torch.manual_seed(3)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, groups=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 6, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 4),
    )
    for parameter in model.parameters():
        parameter.data *= 4  # else the outputs of all images are nearly the same
    return model.eval()


def images() -> Tensor:
    return torch.randn(24, 3, 6, 6, generator=torch.Generator().manual_seed(0))


def coded(model: nn.Module) -> dict[str, CodedLayer]:
    return {name: module for name, module in model.named_modules() if isinstance(module, CodedLayer)}


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize(
    "rounder", [Nearest(), Gptq(), Gptq(sweeps=2), Gpfq(), Qronos(), AdaRound(iterations=20)], ids=str
)
def test_with_every_rounder(name: str, rounder: Rounder) -> None:
    if isinstance(rounder, Nearest) or (isinstance(rounder, Gptq) and rounder.sweeps):
        check_rounder(rounder, [default(name)])
        return
    statistics = _statistics()
    weight = torch.randn(6, 12)
    codebook = default(name).fit(weight)
    codes = rounder(weight, codebook, statistics)
    assert codes.dtype == torch.uint8 and int(codes.max()) < codebook.size
    assert bool(torch.isfinite(codebook.values(codes)).all())


def _statistics() -> LayerStatistics:
    gram = Gram(1, 12)
    gram.update(torch.randn(1, 200, 12) @ torch.randn(12, 12), 200)
    return {Gram: gram}


@pytest.mark.parametrize("name", EVERY)
def test_quantized_saved_loaded_and_told(name: str, tmp_path: Path) -> None:
    """The file composes the same weights bit for bit, adapters and all, and says what it holds."""
    small = corank.quantize(
        network(), images(), codec=name, all_layers=True, budget=2.0, search="uniform", samples=24, batch_size=12
    )
    codec, layers = default(name), coded(small)
    assert {type(layer.codec) for layer in layers.values()} == {type(codec)}
    assert any(layer.rank for layer in layers.values())
    path = tmp_path / "small.safetensors"
    stored = corank.save(small, path)
    again = corank.load(path, network())
    assert torch.equal(small(images()), again(images()))
    for one, other in zip(layers.values(), coded(again).values(), strict=True):
        assert torch.equal(one.weight, other.weight)
    assert torch.allclose(corank.to_float(small)(images()), small(images()), atol=1e-6)
    record = corank.inspect(path)
    assert record["stored_bytes"] == stored
    assert all(layer["bits"] == codec.bits for layer in record["layers"])
    bits = sum(spec.count * spec.bits for layer in layers.values() for spec in layer.slots().values())
    weights = sum(layer.weight.numel() for layer in layers.values())
    assert record["equivalent_bits"] == pytest.approx(bits / weights)
    assert Plan.from_json(json.loads(json.dumps(record["plan"]))).layers.keys() == layers.keys()


@pytest.mark.parametrize("name", EVERY)
def test_what_is_stored_in_floating_point_trains(name: str) -> None:
    """Scales and levels learn a weight a tenth larger, and are then what a file holds."""
    small = corank.quantize(network(), images(), codec=name, preset="nearest", all_layers=True, samples=24)
    layer = coded(small)["2"]
    latent = TrainableLayer(layer, Refinement())
    target, codes = layer.weight.detach() * 1.1, layer.code().weight.codes
    optimizer = torch.optim.Adam([parameter for _, parameter, _ in latent.trained()], lr=5e-3)
    for _ in range(60):
        optimizer.zero_grad()
        (latent.weight() - target).square().sum().backward()
        optimizer.step()
    before = (layer.weight - target).square().sum()
    layer.fill(latent.harden(), None)
    assert float((layer.weight - target).square().sum()) < 0.02 * float(before)
    largest = float(layer.weight.abs().max())  # what is between two ends rests on both, as fp16 holds them
    assert torch.allclose(layer.weight, latent.weight(), rtol=2e-3, atol=1e-3 * largest)
    assert torch.equal(layer.code().weight.codes, codes)


@pytest.mark.parametrize("name", ["dense-shift", "kmeans"])
def test_refined(name: str, tmp_path: Path) -> None:
    common: dict[str, Any] = {"codec": name, "bits": 2, "all_layers": True, "budget": 0.0, "samples": 24}
    how = Refinement(iterations=20, batch_size=24, augment=False)
    plain, refined = (corank.quantize(network(), images(), **common, refinement=one) for one in (None, how))
    moved = zip(coded(plain).values(), coded(refined).values(), strict=True)
    assert any(not torch.equal(one.weight, other.weight) for one, other in moved)
    corank.save(refined, tmp_path / "refined.safetensors")
    assert torch.equal(refined(images()), corank.load(tmp_path / "refined.safetensors", network())(images()))


@pytest.mark.parametrize("name", EVERY)
def test_a_latent_starts_at_its_code_and_moves_by_the_local_step(name: str) -> None:
    small = corank.quantize(network(), images(), codec=name, preset="nearest", all_layers=True, samples=24)
    layer = coded(small)["2"]
    latent = TrainableLayer(layer, Refinement(code_rate=0.01))
    assert torch.equal(latent.weight(), layer.weight)
    latent.weight().sum().backward()
    assert latent.latent is not None and latent.latent.grad is not None
    book, codes = layer.code().weight.codebook, layer.code().weight.codes.long()
    values = torch.stack([book.values(torch.full_like(codes, code)) for code in range(book.size)], 2)
    low, high = (codes - 1).clamp(min=0), (codes + 1).clamp(max=book.size - 1)
    expected = (values.gather(2, high[:, :, None]) - values.gather(2, low[:, :, None]))[:, :, 0] / (high - low)
    assert torch.allclose(latent.latent.grad, expected, rtol=1e-5)


def test_the_search_over_widths_takes_those_that_the_codec_has() -> None:
    small = corank.quantize(
        network(), images(), codec="dense-shift", bits=2, all_layers=True, budget=1.0, search="joint", samples=24
    )
    kinds = {layer.codec for layer in coded(small).values()}
    assert all(isinstance(codec, DenseShift) for codec in kinds) and {codec.bits for codec in kinds} <= {2, 3, 4}
    assert max(codec.bits for codec in kinds) > 2


def test_the_edges_stay_uniform_and_exceptions_name_codecs() -> None:
    small = corank.quantize(
        network(), images(), codec="binary", budget=0, samples=24, layers={"2": "power-of-two:3", "4": DenseShift(4)}
    )
    kinds = {name: layer.codec for name, layer in coded(small).items()}
    assert kinds == {"0": kinds["0"], "2": PowerOfTwo(3), "4": DenseShift(4), "7": kinds["7"]}
    assert isinstance(kinds["0"], Uniform) and kinds["0"].bits == 8 and kinds["7"] == kinds["0"]
    assert corank.inspect(small)["bits"] == 1


def test_codecs_everywhere_by_a_pattern() -> None:
    small = corank.quantize(network(), images(), budget=0, samples=24, layers={"*": Binary()})
    assert {layer.codec for layer in coded(small).values()} == {Binary()}


def test_a_size_takes_the_widest_code_of_the_codec() -> None:
    free = corank.quantize(network(), images(), codec="dense-shift", size=100_000, samples=24, search="uniform")
    assert corank.inspect(free)["bits"] == 4
    with pytest.raises(corank.BudgetError, match="2-bit codes"):
        corank.quantize(network(), images(), codec="dense-shift", size=500, samples=24)


def test_choice() -> None:
    own = PRESETS["fast"].codec
    assert chosen_codec("uniform", own) is own and chosen_codec("uniform:3", own) == own.with_bits(3)
    assert chosen_codec("dense-shift", own) == DenseShift()
    assert PRESETS["fast"].with_codec("dense-shift").widths == (2, 3, 4)
    assert PRESETS["fast"].widths == tuple(range(1, 9))
    refits = [PRESETS["fast"].with_codec(one).layer.refits for one in ("dense-shift", "uniform")]
    assert refits == [4, 0] and PRESETS["nearest"].with_codec("dense-shift").layer.refits == 0
    assert PRESETS["fast"].with_codec(Binary()).layer_plan(1, None).codec == Binary()


def test_a_name_may_bring_settings() -> None:
    own = Uniform(range="mse", half=True)
    assert chosen_codec("uniform:3:half=false:group=32", own) == Uniform(3, range="mse", group=32)
    assert chosen_codec("uniform", own) is own
    assert chosen_codec("kmeans:2:per=network", own) == KMeans(2, per="network")


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ("dense-shft", "did you mean 'dense-shift'"),
        ("dense-shift:9", "DenseShift takes 2 to 4"),
        ("dense-shift:x", "NAME or NAME:BITS"),
        ("uniform:4:size=3", "has no field 'size'; it has bits"),
        ("uniform:group=1e999", "group='inf'"),
        (3, "codec=3: a name"),
    ],
)
def test_bad_choices(choice: Any, said: str) -> None:
    with pytest.raises(corank.ConfigError, match=said):
        corank.quantize(network(), images(), codec=choice, samples=24)


def test_a_width_that_the_codec_has_not() -> None:
    with pytest.raises(corank.ConfigError, match="bits=5: DenseShift takes 2 to 4"):
        corank.quantize(network(), images(), codec="dense-shift", bits=5, samples=24)
    with pytest.raises(corank.ConfigError, match="bits=4: Binary takes 1") as caught:
        corank.quantize(network(), images(), codec="binary", samples=24, layers={"2": 4})
    assert caught.value.__notes__ == ["in layers={'2': 4}"]


def test_levels_of_the_network_are_found_once_and_stand_in_the_plan(tmp_path: Path) -> None:
    small = corank.quantize(
        network(), images(), codec=KMeans(3, per="network"), all_layers=True, budget=0, samples=24, layers={"7": 8}
    )
    kinds = {name: layer.codec for name, layer in coded(small).items()}
    assert isinstance(kinds["0"], Levels) and kinds["0"] == kinds["2"] == kinds["4"]
    assert len(kinds["0"].values) == 8 and kinds["7"] == Uniform(8, range="mse")
    corank.save(small, tmp_path / "small.safetensors")
    again = corank.load(tmp_path / "small.safetensors", network())
    assert torch.equal(small(images()), again(images()))
    assert json.dumps(corank.inspect(small)["plan"]).count('"levels"') == 1
