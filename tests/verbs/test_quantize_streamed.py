"""Language models read, coded and freed one decoder layer at a time."""

from __future__ import annotations

import gc
import json
import weakref
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

import corank
from corank.codecs import RateUniform
from corank.data import TokenSet
from corank.models.sharded_weights import ShardedWeights
from corank.models.streamed import StreamedNetwork, open_streamed
from corank.storage.model_record import run_of

transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")

SIZES = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "vocab_size": 64}


def llama(tied: bool = False) -> nn.Module:
    config = transformers.LlamaConfig(
        **SIZES, intermediate_size=48, num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=tied
    )
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(config).eval()


def gpt2() -> nn.Module:
    torch.manual_seed(0)
    return transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=64, n_positions=64, n_embd=32, n_layer=2, n_head=4)
    ).eval()


def mixtral() -> nn.Module:
    config = transformers.MixtralConfig(
        **{**SIZES, "num_hidden_layers": 2}, intermediate_size=48, num_key_value_heads=2, num_local_experts=2,
        num_experts_per_tok=2, max_position_embeddings=64,
    )  # fmt: skip
    torch.manual_seed(0)
    return transformers.MixtralForCausalLM(config).eval()


@pytest.fixture
def tokens() -> TokenSet:
    return TokenSet(torch.randint(0, 64, (24, 16), generator=torch.Generator().manual_seed(1)))


def stored(model: nn.Module, folder: Path, shard: str = "20KB") -> Path:
    model.save_pretrained(folder, max_shard_size=shard)  # pyright: ignore[reportCallIssue]
    return folder


def rate_of(plan: corank.LayerPlan) -> float:
    assert isinstance(plan.codec, RateUniform)
    return plan.codec.most


def logits(model: nn.Module, tokens: TokenSet) -> Tensor:
    with torch.no_grad():
        return model(tokens.ids[:4]).logits


@pytest.mark.parametrize("tied", [False, True])
def test_codes_fitted_without_samples_are_those_of_the_network_in_memory(tied: bool, tmp_path: Path, tokens: TokenSet):
    model = llama(tied)
    folder = stored(model, tmp_path / "float")
    assert len(list(folder.glob("*.safetensors"))) > 3
    whole = corank.quantize(model, tokens, bits=4, budget=0.0, preset="nearest")
    streamed = corank.quantize_streamed(folder, tokens, bits=4, preset="nearest")
    assert sorted(run_of(streamed).layers) == sorted(run_of(whole).layers)
    assert torch.equal(logits(streamed, tokens), logits(whole, tokens))


@pytest.mark.parametrize("tied", [False, True])
def test_at_a_rate_it_is_as_near_as_the_network_in_memory(tied: bool, tmp_path: Path, tokens: TokenSet):
    model = llama(tied)
    whole = corank.quantize(model, tokens, rate=3.0)
    streamed = corank.quantize_streamed(stored(model, tmp_path / "float"), tokens, rate=3.0)
    sizes = [corank.save(one, tmp_path / "one.safetensors") for one in (whole, streamed)]
    assert sizes[1] == pytest.approx(sizes[0], rel=0.03)
    given = logits(model, tokens)
    errors = [float((logits(one, tokens) - given).square().mean()) for one in (whole, streamed)]
    assert errors[1] < 1.15 * errors[0]
    rates = [{name: rate_of(plan) for name, plan in run_of(one).plan.layers.items()} for one in (whole, streamed)]
    assert len(set(rates[1].values())) > 5
    assert all(abs(rates[0][name] - rates[1][name]) < 0.25 for name in rates[0])


def test_a_network_whose_layers_take_places_not_names_is_saved_and_loaded(tmp_path: Path, tokens: TokenSet):
    model = gpt2()
    streamed = corank.quantize_streamed(stored(model, tmp_path / "float"), tokens, rate=4.0)
    whole = corank.quantize(model, tokens, rate=4.0)
    assert sorted(run_of(streamed).layers) == sorted(run_of(whole).layers)
    corank.save(streamed, tmp_path / "coded.safetensors")
    loaded = corank.load(tmp_path / "coded.safetensors", gpt2)
    assert torch.equal(logits(loaded, tokens), logits(streamed, tokens))
    given = logits(model, tokens)
    errors = [float((logits(one, tokens) - given).square().mean()) for one in (whole, streamed)]
    assert errors[1] < 1.3 * errors[0]


def test_a_layer_that_an_exception_leaves_in_float_is_the_given_one(tmp_path: Path, tokens: TokenSet):
    model = llama()
    folder = stored(model, tmp_path / "float")
    layers = {"model.layers.1.*": "float", "lm_head": 8}
    streamed = corank.quantize_streamed(folder, tokens, bits=3, layers=layers)
    own = streamed.get_submodule("model.layers.1").state_dict()
    assert all(
        torch.equal(own[name], value) for name, value in model.get_submodule("model.layers.1").state_dict().items()
    )
    assert run_of(streamed).plan.layers["lm_head"].codec == corank.Uniform(8, range="mse")
    assert not any(name.startswith("model.layers.1.") for name in run_of(streamed).layers)


def test_one_decoder_layer_is_there_at_a_time(tmp_path: Path, tokens: TokenSet, monkeypatch: pytest.MonkeyPatch):
    alive: list[weakref.ref[nn.Module]] = []
    most = 0
    read = StreamedNetwork.read

    def counted(self: StreamedNetwork, name: str, block: nn.Module) -> nn.Module:
        nonlocal most
        gc.collect()
        most = max(most, sum(one() is not None for one in alive))
        found = read(self, name, block)
        alive.append(weakref.ref(found))
        return found

    monkeypatch.setattr(StreamedNetwork, "read", counted)
    corank.quantize_streamed(stored(llama(), tmp_path / "float"), tokens, rate=3.0)
    assert len(alive) > 6
    assert most <= 1


def test_a_run_that_was_killed_goes_on_to_the_same_file(tmp_path: Path, tokens: TokenSet):
    folder, kept = stored(llama(), tmp_path / "float"), tmp_path / "kept"

    def killed(what: str, done: int, _total: int) -> None:
        if what == "coding" and done == 9:
            raise KeyboardInterrupt

    corank.save(corank.quantize_streamed(folder, tokens, rate=3.0), tmp_path / "once.safetensors")
    with pytest.raises(KeyboardInterrupt):
        corank.quantize_streamed(folder, tokens, rate=3.0, checkpoint=kept, progress=killed)
    done: list[int] = []
    again = corank.quantize_streamed(
        folder, tokens, rate=3.0, checkpoint=kept, progress=lambda *told: done.append(told[1])
    )
    corank.save(again, tmp_path / "twice.safetensors")
    assert (tmp_path / "once.safetensors").read_bytes() == (tmp_path / "twice.safetensors").read_bytes()
    with pytest.raises(corank.ConfigError, match="request"):
        corank.quantize_streamed(folder, tokens, rate=2.0, checkpoint=kept)


def test_folders_that_are_not_whole_are_refused(tmp_path: Path, tokens: TokenSet):
    folder = stored(llama(), tmp_path / "float")
    shards = sorted(folder.glob("*.safetensors"))
    content = shards[1].read_bytes()
    shards[1].write_bytes(content[:-8])
    with pytest.raises(corank.ModelError, match="cut short"):
        corank.quantize_streamed(folder, tokens, bits=4)
    shards[1].unlink()
    with pytest.raises(corank.ModelError, match="lacks 1 of"):
        corank.quantize_streamed(folder, tokens, bits=4)
    shards[1].write_bytes(content)
    twice = safetensors.torch.load_file(shards[1])
    index = next(folder.glob("*.index.json"))
    index.write_text(
        json.dumps({"weight_map": {**json.loads(index.read_text())["weight_map"], "x": "more.safetensors"}})
    )
    safetensors.torch.save_file(twice, folder / "more.safetensors")
    with pytest.raises(corank.ModelError, match="keep one of them"):
        corank.quantize_streamed(folder, tokens, bits=4)


def test_files_that_name_weights_otherwise_are_refused(tmp_path: Path, tokens: TokenSet):
    with pytest.raises(corank.ModelError, match="load it whole"):
        corank.quantize_streamed(stored(mixtral(), tmp_path / "float"), tokens, bits=4)


def test_weights_that_do_not_fit_are_refused(tmp_path: Path, tokens: TokenSet):
    model = llama()
    folder = stored(model, tmp_path / "float", "1GB")
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    for change, said in (
        ({name: weights[name][:, :-1].clone()}, "by config.json"),
        ({name: weights[name].int()}, "I32"),
        ({name: torch.full_like(weights[name], torch.nan)}, "NaN"),
        ({"unknown": weights[name]}, "lack"),
    ):
        left = {key: value for key, value in weights.items() if key != name}
        safetensors.torch.save_file({**left, **change}, folder / "model.safetensors")
        with pytest.raises(corank.ModelError, match=said):
            corank.quantize_streamed(folder, tokens, bits=4, preset="nearest")


def test_bad_input_is_refused_before_anything_is_coded(tmp_path: Path, tokens: TokenSet):
    folder = stored(llama(), tmp_path / "float")
    with pytest.raises(corank.ModelError, match=r"no config\.json"):
        corank.quantize_streamed(tmp_path, tokens, bits=4)
    with pytest.raises(corank.ConfigError, match=r"rate=2\.0"):
        corank.quantize_streamed(folder, tokens, rate="auto")
    with pytest.raises(corank.DataError, match="whole numbers"):
        corank.quantize_streamed(folder, torch.rand(4, 3, 8, 8), bits=4)
    with pytest.raises(corank.ModelError, match="matches none"):
        corank.quantize_streamed(folder, tokens, bits=4, layers={"model.layer.*": 8})


def test_half_precision_shards_are_read_as_they_are(tmp_path: Path, tokens: TokenSet):
    folder = stored(llama().bfloat16(), tmp_path / "half")
    network = open_streamed(folder)
    name = network.names()[1]
    block = network.read(name, network.model.get_submodule(name))
    weight = block.get_parameter("mlp.up_proj.weight")
    assert weight.dtype == torch.float32
    assert torch.equal(weight, ShardedWeights(folder).tensor(f"{name}.mlp.up_proj.weight"))
    assert network.model.get_submodule(name).get_parameter("mlp.up_proj.weight").is_meta
