"""Weights of every kind from quantize to file and back: coded, stored once, the same outputs."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import corank
from corank.export.to_torch import to_float
from corank.layers import CodedEmbedding, CodedHeldWeight, module_named

IDS = torch.randint(70, (12, 9), generator=torch.Generator().manual_seed(0))
WIDTH = 20


class Mixed(nn.Module):
    """A table, a table of positions, attention, recurrent layers, a cell and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(70, WIDTH)
        self.positions = nn.Parameter(torch.randn(1, 60, WIDTH))
        layer = nn.TransformerEncoderLayer(WIDTH, 2, 2 * WIDTH, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1)
        self.lstm = nn.LSTM(WIDTH, WIDTH, batch_first=True, bidirectional=True)
        self.cell = nn.GRUCell(2 * WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, 5)

    def forward(self, ids: Tensor) -> Tensor:
        found = self.lstm(self.encoder(self.words(ids) + self.positions[:, : ids.shape[1]]))[0]
        state = None
        for step in range(3):
            state = self.cell(found[:, step], state)
        return self.head(state)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.middle = nn.Embedding(70, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, 70, bias=False)
        self.head.weight = self.words.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.middle(self.words(ids)).relu())


class Experts(nn.Module):
    """Stacked experts and a weight that is read by einsum."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.stacked = nn.Embedding(70, WIDTH), nn.Parameter(0.2 * torch.randn(4, WIDTH, WIDTH))
        self.mixed, self.gate = nn.Parameter(torch.randn(60, WIDTH)), nn.Linear(WIDTH, 4)

    def forward(self, ids: Tensor) -> Tensor:
        found = self.words(ids)
        chosen = self.gate(found).argmax(-1)
        found = torch.stack([one @ self.stacked[index] for one, index in zip(found[:, 0], chosen[:, 0], strict=True)])
        return torch.einsum("nc,rc->nr", found, self.mixed)


class Normed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(70, WIDTH)
        self.new = nn.utils.parametrizations.weight_norm(nn.Linear(WIDTH, 60))
        self.spectral = nn.utils.parametrizations.spectral_norm(nn.Linear(60, 60))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it is deprecated
            self.old = nn.utils.weight_norm(nn.Linear(60, 5))

    def forward(self, ids: Tensor) -> Tensor:
        return self.old(self.spectral(self.new(self.words(ids)[:, 0]).relu()).relu())


def made(kind: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return kind().eval()


def round_trip(kind: Callable[[], nn.Module], tmp_path: Path, **options: Any) -> tuple[nn.Module, dict[str, Any]]:
    """Quantizes, saves, loads, and checks that nothing changes on the way; the small network and its record."""
    model = made(kind)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    small = corank.quantize(model, IDS, **options)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    path = tmp_path / "small.safetensors"
    corank.save(small, path)
    again = corank.load(path, lambda: kind().eval())
    with torch.no_grad():
        expected = small(IDS)
        assert torch.equal(again(IDS), expected) and type(again).__name__ == kind.__name__
        for copied in (copy.deepcopy(again), pickle.loads(pickle.dumps(again))):
            assert torch.equal(copied(IDS), expected)
        plain = to_float(small)
        assert type(plain) is type(model) and torch.allclose(plain(IDS), expected, atol=1e-5)
    assert corank.diff(small, path)["equal"]
    found = corank.inspect(path)
    assert found["stored_bytes"] == corank.inspect(again)["stored_bytes"] == path.stat().st_size
    plain = sum(one["bytes"] for one in found["float_tensors"])
    assert 0.5 * plain < found["stored_parts"]["other tensors"] <= plain  # some are coded
    return small, found


def names(found: dict[str, Any]) -> set[str]:
    return {layer["name"] for layer in found["layers"]}


def test_every_kind_is_coded(tmp_path: Path) -> None:
    small, found = round_trip(Mixed, tmp_path, rate=2.0)
    inside = "encoder.layers.0."
    assert names(found) == {
        "words", "positions", f"{inside}self_attn.in_proj_weight", f"{inside}self_attn.out_proj",
        f"{inside}linear1", f"{inside}linear2", "lstm.weight_ih_l0", "lstm.weight_hh_l0",
        "lstm.weight_ih_l0_reverse", "lstm.weight_hh_l0_reverse", "cell.weight_ih", "cell.weight_hh", "head",
    }  # fmt: skip
    assert isinstance(small.get_submodule("words"), CodedEmbedding)
    assert isinstance(module_named(small, "lstm.weight_hh_l0"), CodedHeldWeight)
    assert isinstance(small.get_submodule("lstm"), nn.LSTM)
    assert all(sum(size > 1 for size in one["shape"]) < 2 for one in found["float_tensors"])
    assert max(layer["file_bits_per_weight"] for layer in found["layers"]) < 6


def test_exceptions_go_by_the_names_of_weights(tmp_path: Path) -> None:
    layers = {"lstm.weight_hh*": 8, "positions": "float", "cell.*": "float"}
    small, found = round_trip(Mixed, tmp_path, bits=4, budget=0.0, layers=layers)
    bits = {layer["name"]: layer["bits"] for layer in found["layers"]}
    assert bits["lstm.weight_hh_l0"] == bits["lstm.weight_hh_l0_reverse"] == 8 and bits["words"] == 4
    assert {"positions", "cell.weight_ih"} <= {one["name"] for one in found["float_tensors"]}
    assert found["skipped"]["positions"] == "the plan leaves it in float"
    assert "positions" in dict(small.named_parameters()) and type(small.get_submodule("cell")) is nn.GRUCell


def test_recurrent_weights_are_rounded_by_the_states_of_all_steps() -> None:
    model, error = made(Mixed), {}
    for preset in ("nearest", "fast"):
        small = corank.quantize(model, IDS, bits=2, budget=0.0, preset=preset, layers={"*": "float", "*weight_hh*": 2})
        with torch.no_grad():
            error[preset] = float((small(IDS) - model(IDS)).norm())
    assert error["fast"] < error["nearest"]


def test_every_kind_trains(tmp_path: Path) -> None:
    small = corank.train(made(Mixed), IDS, "stats-2bit", iterations=2, batch_size=4)
    corank.save(small, tmp_path / "small.safetensors")
    again = corank.load(tmp_path / "small.safetensors", lambda: Mixed().eval())
    with torch.no_grad():
        assert torch.equal(again(IDS), small(IDS))
    found = names(corank.inspect(small))
    assert {"words", "positions", "lstm.weight_hh_l0", "cell.weight_ih", "encoder.layers.0.self_attn.out_proj"} <= found


def test_tied_tables_are_one_set_of_codes(tmp_path: Path) -> None:
    small, found = round_trip(Tied, tmp_path, bits=4, budget=0.0)
    assert names(found) == {"head", "middle"}
    assert found["skipped"] == {"words": "its weight is tied to that of 'head', and stored once"}
    assert small.get_submodule("words").weight is small.get_submodule("head").weight
    plain = to_float(small)
    assert plain.get_parameter("words.weight") is plain.get_parameter("head.weight")


def test_experts_and_weights_read_by_a_modules_own_code(tmp_path: Path) -> None:
    _, found = round_trip(Experts, tmp_path, bits=4, budget=0.0, search="greedy")
    assert names(found) == {"words", "stacked", "mixed", "gate"}


def test_computed_weights_are_coded_as_what_they_are(tmp_path: Path) -> None:
    _, found = round_trip(Normed, tmp_path, bits=4, budget=0.0)
    assert names(found) == {"words", "new", "spectral", "old"}


def test_transformers_conv1d(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(vocab_size=70, n_positions=32, n_embd=40, n_layer=1, n_head=2)

    def gpt2() -> Any:
        torch.manual_seed(0)
        return transformers.GPT2LMHeadModel(config).eval()

    small = corank.quantize(gpt2(), IDS, bits=4, budget=0.0)
    corank.save(small, tmp_path / "small.safetensors")
    again = corank.load(tmp_path / "small.safetensors", gpt2)
    with torch.no_grad():
        assert torch.equal(again(IDS).logits, small(IDS).logits)
    block = "transformer.h.0"
    assert names(corank.inspect(small)) == {
        "lm_head", "transformer.wpe", f"{block}.attn.c_attn", f"{block}.attn.c_proj", f"{block}.mlp.c_fc",
        f"{block}.mlp.c_proj",
    }  # fmt: skip


class Looks(nn.Module):
    """Its code wants a parameter to be one."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.table = nn.Linear(9, 40), nn.Parameter(torch.randn(40, 60))

    def forward(self, ids: Tensor) -> Tensor:
        assert isinstance(self.table, nn.Parameter)
        return F.relu(self.first(ids.float())) @ self.table


def test_what_cannot_be_read_from_elsewhere_stays_and_is_told() -> None:
    with pytest.warns(corank.CorankWarning, match="stay in float: table"):
        small = corank.quantize(made(Looks), IDS, bits=4, budget=0.0)
    found = corank.inspect(small)
    assert names(found) == {"first"} and found["float_tensors"][0]["name"] == "table"
    corank.quantize(made(Mixed), IDS, bits=4, budget=0.0, layers={"words": "float"})  # asked for: no warning


def test_a_network_without_its_ties_is_refused(tmp_path: Path) -> None:
    corank.save(corank.quantize(made(Tied), IDS, bits=4, budget=0.0), tmp_path / "small.safetensors")

    def apart() -> nn.Module:
        model = Tied()
        model.head.weight = nn.Parameter(torch.randn(70, WIDTH))
        return model

    with pytest.raises(corank.ArtifactError, match=r"lacks 1 of its tensors, first 'words\.weight'"):
        corank.load(tmp_path / "small.safetensors", apart)
