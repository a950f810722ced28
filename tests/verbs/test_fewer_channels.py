"""Fewer channels or fewer bits: what is held back, what is chosen, and that one file holds it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pruning.networks import network
from torch import Tensor, nn

import corank
from corank.calibration import Samples
from corank.errors import BudgetError, ConfigError, DataError, ModelError
from corank.pruning.narrowing import Narrowing
from corank.pruning.record import pruned_of
from corank.storage.model_record import run_of
from corank.verbs.fewer_channels import chosen_share, parted

pytest.importorskip("torch_pruning")


def wide() -> nn.Module:
    """A network of 40 channels, of which the last 30 hardly count: so many bits go for nothing."""
    torch.manual_seed(0)
    first, second, last = nn.Conv2d(3, 40, 3, padding=1), nn.Conv2d(40, 40, 3, padding=1), nn.Linear(160, 6)
    with torch.no_grad():
        for layer in (first, second):
            layer.weight[10:] *= 0.01
            if layer.bias is not None:
                layer.bias[10:] = 0.0
        last.weight *= 100
    parts = (first, nn.ReLU(), second, nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), last)
    return nn.Sequential(*parts).eval()


def data(count: int = 96) -> Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def test_channels_that_do_not_count_go_and_bits_are_gained(tmp_path: Path) -> None:
    model, size = wide(), 5000
    how = Narrowing(("0.3p", "0.6p"), iterations=0, held_back=32)
    plain = corank.quantize(model, data()[:64], size=size, preset="nearest")
    found = corank.quantize(model, data(), size=size, preset="nearest", samples=64, prune=how)
    record = run_of(found)
    assert record.equivalent_bits > 1.3 * run_of(plain).equivalent_bits
    assert pruned_of(found).remove == "0.6p" and "without 0.6p" in record.notes[-1]
    whole, *narrow = record.candidates
    assert whole["parameters"] == sum(one.numel() for one in model.parameters())
    assert [one["share"] for one in record.candidates] == ["0", "0.3p", "0.6p"]
    assert narrow[-1]["distance"] < whole["distance"]
    assert all(one["stored_bytes"] <= size for one in record.candidates)
    assert corank.inspect(found)["candidates"] == list(record.candidates)
    assert corank.save(found, tmp_path / "small.safetensors") <= size
    with torch.no_grad():
        loaded = corank.load(tmp_path / "small.safetensors", wide())
        assert torch.equal(loaded(data(4)), found(data(4)))
        apart = [float((one(data(8)) - model(data(8))).square().mean()) for one in (found, plain)]
    assert apart[0] < apart[1]


def test_the_whole_network_is_what_quantize_alone_gives(tmp_path: Path) -> None:
    """Where nothing is gained by fewer channels: the same codes, from the same samples, though others are held back."""
    model, samples = network("residual"), torch.randn(80, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    asked: dict[str, Any] = {"size": 1400, "bits": 3, "preset": "nearest"}
    alone = corank.quantize(model, samples[:64], **asked)
    asked |= {"samples": 64, "prune": Narrowing(("0.5",), "magnitude", 0), "checkpoint": tmp_path}
    found = corank.quantize(model, samples, **asked)
    assert run_of(found).notes[-1].startswith("all channels stay")
    assert all(torch.equal(value, alone.state_dict()[name]) for name, value in found.state_dict().items())
    again = corank.quantize(model, samples, **asked)
    assert run_of(again).candidates == run_of(found).candidates


def test_a_size_that_the_whole_network_cannot_have() -> None:
    small = corank.quantize(wide(), data(), size=3000, preset="nearest", prune=Narrowing(("0.6p",), "magnitude", 0))
    first, second = run_of(small).candidates
    assert first["distance"] is None and "is not possible" in first["why"] and second["stored_bytes"] <= 3000
    with pytest.raises(BudgetError, match="no network fits, with all channels or with fewer"):
        corank.quantize(wide(), data(), size=300, preset="nearest", prune=Narrowing(("0.6p",), "magnitude", 0))


@pytest.mark.parametrize(
    ("gains", "share"),
    [
        ([0.1, 0.1, 0.1, 0.11], "0.3p"),  # told apart
        ([1.0, -0.9, 0.8, -0.7], "0"),  # nearer in the mean, and not told apart
        ([-0.1, -0.1, -0.2, -0.1], "0"),
    ],
)
def test_the_whole_network_stays_where_none_is_told_apart(gains: list[float], share: str) -> None:
    whole = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    assert chosen_share({"0": whole, "0.3p": whole - torch.tensor(gains, dtype=torch.float64)}) == share


def test_one_distance_tells_nothing_and_without_the_whole_network_the_nearest_goes() -> None:
    one, two = torch.tensor([1.0]), torch.tensor([0.5])
    assert chosen_share({"0": one, "0.3p": two}) == "0"
    assert chosen_share({"0.3p": two, "0.6p": one}) == "0.3p"


@pytest.mark.parametrize(
    ("count", "limit", "seen", "held"), [(32, 20, 20, 12), (40, 30, 30, 10), (40, 40, 32, 8), (3, 9, 2, 1)]
)
def test_parts(count: int, limit: int, seen: int, held: int) -> None:
    """No sample is in both, none is lost before those that are held back, and the limit is kept where it can be."""
    first, second = parted(Samples.of(torch.arange(count).float()[:, None], count, 7), limit, 12)
    values = [[float(x) for batch in part.batches for x in batch[:, 0]] for part in (first, second)]
    assert values == [list(range(seen)), list(range(seen, seen + held))]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"size": 3000, "prune": "some"}, 'prune="auto"'),
        ({"size": 3000, "prune": "0.2p,1.4"}, "between 0 and 1"),
        ({"bits": 4, "prune": "auto"}, "for a size; give one"),
        ({"size": 3000, "prune": 0.3}, 'shares such as prune="0.2p,0.4p"'),
    ],
)
def test_what_cannot_be_asked_for(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        corank.quantize(wide(), data(), **given)


def test_bad_input() -> None:
    with pytest.raises(DataError, match="held back"):
        corank.quantize(wide(), data(1), size=3000, prune="auto")
    with pytest.raises(ModelError, match="no channels of this Sequential can go"):
        corank.quantize(nn.Sequential(nn.Flatten(), nn.Linear(192, 6)).eval(), data(), size=3000, prune="auto")
    wrongs: list[dict[str, Any]] = [{"shares": ()}, {"method": "no"}, {"iterations": -1}, {"held_back": 0}]
    for wrong in wrongs:
        with pytest.raises(ConfigError, match="Narrowing"):
            Narrowing(**wrong)
    assert Narrowing.read("0.2p, 0.4").shares == ("0.2p", "0.4")
