"""Networks that are rotated, folded or as they run: they compute what they did, and their structure makes them anew."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from corank.errors import ConfigError, ModelError
from corank.layers import RotatedLayer, apply_structure, read_structure, rotated, structure_of
from corank.layers.rotated import takes_a_rotation

IDS = torch.arange(24).reshape(2, 12) % 11


def decoder(kind: str = "Llama", **settings: Any) -> Any:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=11, hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, max_position_embeddings=32, **settings,
    )  # fmt: skip
    model = getattr(transformers, f"{kind}ForCausalLM")(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("norm.weight", "layernorm.weight", ".bias")):
                parameter.copy_(torch.randn(parameter.shape) * 0.5 + 1)
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child).__name__.endswith("RMSNorm"):
                setattr(parent, name, ExactNorm(child))
    return model.double()


class ExactNorm(nn.Module):
    """As transformers' own, which computes in float32 whatever it is given."""

    def __init__(self, norm: Any) -> None:
        super().__init__()
        self.weight, self.epsilon = norm.weight, norm.variance_epsilon

    def forward(self, inputs: Tensor) -> Tensor:
        return self.weight * inputs * (inputs.square().mean(-1, keepdim=True) + self.epsilon).rsqrt()


def logits(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model(IDS).logits


FAMILY = [
    ("Llama", {"tie_word_embeddings": True}), ("Llama", {"attention_bias": True, "mlp_bias": True}),
    ("Mistral", {"sliding_window": None}), ("Qwen2", {"tie_word_embeddings": True}), ("Qwen3", {}),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "settings"), FAMILY)
def test_a_folded_decoder_computes_what_it_did(kind: str, settings: dict[str, Any]) -> None:
    model = decoder(kind, **settings)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    made: Any = rotated(model, lambda one: one(IDS).logits, "fold", 5)
    torch.testing.assert_close(logits(made), logits(model), rtol=0, atol=1e-10)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    tied = settings.get("tie_word_embeddings", False)
    assert structure_of(made) == ({"kind": "rotated-stream", "module": "lm_head", "untied": tied, "seed": 5},)
    assert type(made) is type(model) and made.config.tie_word_embeddings is False
    assert made.lm_head.weight is not made.model.embed_tokens.weight
    for norm in ("model.norm", "model.layers.1.post_attention_layernorm"):
        assert torch.equal(made.get_submodule(norm).weight, torch.ones(24, dtype=torch.float64))
    moved = ["q_proj", "k_proj", "v_proj", "o_proj"]
    for name in [f"self_attn.{one}" for one in moved] + ["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]:
        assert not torch.allclose(
            made.model.layers[0].get_submodule(name).weight, before[f"model.layers.0.{name}.weight"]
        )


def test_values_are_rotated_by_heads() -> None:
    """The stream alone moves no rows of the values."""
    model = decoder()
    made: Any = rotated(model, lambda one: one(IDS).logits, "fold", 0)

    def own(one: Any) -> Tensor:
        weight = one.model.layers[0].self_attn.v_proj.weight * one.model.layers[0].input_layernorm.weight
        return torch.linalg.vector_norm(weight, dim=1)

    before, after = own(model), own(made)
    assert not torch.allclose(before, after)
    energy = [one.square().reshape(2, 8).sum(1) for one in (before, after)]
    torch.testing.assert_close(energy[0], energy[1])


def test_structure_makes_the_folded_network_of_the_original_class() -> None:
    made: Any = rotated(decoder(tie_word_embeddings=True), lambda one: one(IDS).logits, "fold", 0)
    fresh = decoder(tie_word_embeddings=True)
    apply_structure(fresh, structure_of(made))
    fresh.load_state_dict(made.state_dict())
    assert torch.equal(logits(fresh), logits(made))
    apply_structure(fresh, structure_of(made))  # of a configuration that says so already
    assert torch.equal(logits(fresh), logits(made))


@pytest.mark.parametrize("tied", [False, True])
def test_layers_that_rotate_their_inputs(tied: bool) -> None:
    model = decoder(tie_word_embeddings=tied)
    made: Any = rotated(model, lambda one: one(IDS).logits, "layers", 5)
    torch.testing.assert_close(logits(made), logits(model), rtol=0, atol=1e-10)
    layers = {name: one for name, one in made.named_modules() if isinstance(one, RotatedLayer)}
    assert ("lm_head" in layers) is not tied and len(layers) == 14 + (not tied)
    name = "model.layers.0.mlp.down_proj"
    torch.testing.assert_close(layers[name].weight, model.get_submodule(name).weight, rtol=0, atol=1e-12)
    assert made.lm_head.weight is made.model.embed_tokens.weight or not tied
    fresh = decoder(tie_word_embeddings=tied)
    apply_structure(fresh, read_structure([dict(entry) for entry in structure_of(made)]))
    fresh.load_state_dict(made.state_dict())
    assert torch.equal(logits(fresh), logits(made))


def test_outputs_may_be_rotated_as_well() -> None:
    layer, inputs = nn.Linear(12, 6).double(), torch.randn(3, 12, dtype=torch.float64)
    made = RotatedLayer(copy.deepcopy(layer), 1, outputs=True)
    made.rotate_weight()
    torch.testing.assert_close(made(inputs), layer(inputs), rtol=0, atol=1e-12)
    torch.testing.assert_close(made.weight, layer.weight, rtol=0, atol=1e-12)
    assert not torch.allclose(made.layer.bias, layer.bias)  # pyright: ignore


def test_gpt2_and_its_own_linear_layers() -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=11, n_positions=16, n_embd=12, n_layer=1, n_head=2)
    model = transformers.GPT2LMHeadModel(config).eval().double()
    with pytest.raises(ModelError, match=r"no model\.embed_tokens; rotate='layers' takes any network"):
        rotated(model, lambda one: one(IDS).logits, "fold", 0)
    made: Any = rotated(model, lambda one: one(IDS).logits, "layers", 0)
    torch.testing.assert_close(logits(made), logits(model), rtol=0, atol=1e-10)
    assert sum(isinstance(one, RotatedLayer) for one in made.modules()) == 4


def test_attention_of_torch_keeps_its_output_layer() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention, self.last = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 4)

        def forward(self, inputs: Tensor) -> Tensor:
            return self.last(self.attention(inputs, inputs, inputs)[0])

    inputs = torch.randn(2, 3, 8)
    made: Any = rotated(Net(), lambda one: one(inputs), "layers", 0)
    assert [name for name, one in made.named_modules() if isinstance(one, RotatedLayer)] == ["last"]


def test_networks_that_are_not_rotated() -> None:
    image = torch.randn(2, 3, 8, 8)
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten())
    with pytest.raises(ModelError, match="no plain Linear layer to rotate"):
        rotated(plain, lambda one: one(image), "layers", 0)
    with pytest.raises(ConfigError, match=r"rotate='both': 'fold', 'layers' or None"):
        rotated(plain, lambda one: one(image), "both", 0)
    assert not takes_a_rotation(nn.Linear(1021, 3)) and not takes_a_rotation(nn.Conv1d(4, 4, 1))
    with pytest.raises(ModelError, match="takes no rotation"):
        RotatedLayer(nn.Linear(1021, 3), 0)
    # named as a Llama, but its norms subtract the mean as well
    model = decoder()
    model.model.norm = nn.LayerNorm(24, dtype=torch.float64)
    nn.init.normal_(model.model.norm.weight)
    with pytest.raises(ModelError, match="computes something else once it is rotated"):
        rotated(model, lambda one: one(IDS).logits, "fold", 0)


WRONG = [
    {"kind": "rotation", "module": "0", "outputs": False, "seed": -1},
    {"kind": "rotation", "module": "0", "outputs": False, "seed": 1 << 64},
    {"kind": "rotation", "module": "0", "outputs": False, "seed": True},
    {"kind": "rotation", "module": "0", "outputs": 1, "seed": 0},
    {"kind": "rotation", "module": "0", "seed": 0},
    {"kind": "rotated-stream", "module": "0", "untied": None, "seed": 0},
    {"kind": "rotated-stream", "module": "0", "outputs": True, "seed": 0},
]


@pytest.mark.parametrize("entry", WRONG)
def test_records_of_rotations_that_are_none(entry: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"a structure's (rotation|rotated-stream) has"):
        read_structure([entry])


@pytest.mark.parametrize(
    ("entry", "said"),
    [({"kind": "rotation", "module": "1", "outputs": False, "seed": 0}, "takes no rotation"),
     ({"kind": "rotation", "module": "9", "outputs": False, "seed": 0}, "no module '9'"),
     ({"kind": "rotation", "module": "", "outputs": False, "seed": 0}, "no module ''"),
     ({"kind": "rotation", "module": "2", "outputs": True, "seed": 0}, "1021 outputs, which no rotation mixes"),
     ({"kind": "rotated-stream", "module": "1", "untied": True, "seed": 0}, "is no Linear layer")],
)  # fmt: skip
def test_records_that_fit_another_network(entry: dict[str, Any], said: str) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1021))
    with pytest.raises(ModelError, match=said):
        apply_structure(model, [entry])


def test_one_layer_is_rotated_once() -> None:
    entry = {"kind": "rotation", "module": "0", "outputs": False, "seed": 0}
    model = nn.Sequential(nn.Linear(4, 4))
    with pytest.raises(ConfigError, match="changes one module twice"):
        apply_structure(model, [entry, entry])
    apply_structure(model, [entry])
    with pytest.raises(ModelError, match="takes no rotation"):
        apply_structure(model, [entry])
