"""Modules that read their weights from layers give what they gave, watched or not, copied, pickled and given back."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence
from torch.utils._pytree import tree_leaves

from corank.errors import ModelError
from corank.layers import HeldWeight
from corank.layers.held import give_back, hold, readers
from corank.matrix import Geometry

X = torch.randn(3, 6, 5, generator=torch.Generator().manual_seed(0))
PACKED = pack_padded_sequence(X, torch.tensor([6, 2, 4]), batch_first=True, enforce_sorted=False)
QUERY, KEY = torch.randn(2, 4, 8), torch.randn(2, 4, 8)


def tensors(output: Any) -> list[Tensor]:
    parts = [part.data if isinstance(part, PackedSequence) else part for part in output]
    return [leaf for leaf in tree_leaves(parts) if isinstance(leaf, Tensor)]


def states(module: nn.RNNBase, sequences: int = 3) -> Any:
    count = module.num_layers * (2 if module.bidirectional else 1)
    hidden = torch.randn(count, sequences, module.proj_size or 4)
    return (hidden, torch.randn(count, sequences, 4)) if isinstance(module, nn.LSTM) else hidden


RECURRENT = {
    "lstm": nn.LSTM(5, 4),
    "lstm of two layers and directions": nn.LSTM(5, 4, num_layers=2, bidirectional=True, batch_first=True),
    "gru": nn.GRU(5, 4, bidirectional=True),
    "gru without bias": nn.GRU(5, 4, bias=False, batch_first=True),
    "rnn": nn.RNN(5, 4, num_layers=2),
    "rnn of relu": nn.RNN(5, 4, nonlinearity="relu", batch_first=True),
}
GRU_STATES, LSTM_STATES = states(RECURRENT["gru"]), states(RECURRENT["lstm of two layers and directions"])
CALLS: dict[str, tuple[nn.Module, Callable[[nn.Module], Any]]] = {
    **{f"{name}, batch": (one, lambda module: module(X)) for name, one in RECURRENT.items()},
    **{f"{name}, one sequence": (one, lambda module: module(X[0])) for name, one in RECURRENT.items()},
    **{f"{name}, packed": (one, lambda module: module(PACKED)) for name, one in RECURRENT.items()},
    "from states": (RECURRENT["gru"], lambda module: module(PACKED, GRU_STATES)),
    "from states, two layers": (
        RECURRENT["lstm of two layers and directions"],
        lambda module: module(X, LSTM_STATES),
    ),
    "lstm cell": (nn.LSTMCell(5, 4), lambda module: module(X[0])),
    "lstm cell, one": (nn.LSTMCell(5, 4), lambda module: module(X[0, 0])),
    "gru cell": (nn.GRUCell(5, 4), lambda module: module(X[0], torch.ones(6, 4))),
    "rnn cell": (nn.RNNCell(5, 4, nonlinearity="relu"), lambda module: module(X[0])),
    "attention": (nn.MultiheadAttention(8, 2, batch_first=True), lambda module: module(QUERY, QUERY, QUERY)),
    "attention, sequences second": (nn.MultiheadAttention(8, 2), lambda module: module(QUERY, KEY, KEY)),
    "attention without a batch": (nn.MultiheadAttention(8, 2), lambda module: module(QUERY[0], KEY[0], KEY[0])),
    "attention, own widths": (
        nn.MultiheadAttention(8, 2, kdim=3, vdim=5, add_bias_kv=True, batch_first=True),
        lambda module: module(QUERY, KEY[..., :3], KEY[..., :5], need_weights=False),
    ),
    "attention, masked": (
        nn.MultiheadAttention(8, 2, batch_first=True, add_zero_attn=True),
        lambda module: module(QUERY, KEY, KEY, None, True, torch.ones(4, 4, dtype=torch.bool).triu(1)),
    ),
}


def held(module: nn.Module) -> nn.Module:
    module = copy.deepcopy(module).eval()
    for name, parameter in list(module.named_parameters(recurse=False)):
        if parameter.dim() == 2:
            hold(module, name)
    return module


@pytest.mark.parametrize("case", CALLS)
@torch.no_grad()
def test_outputs_stay(case: str) -> None:
    module, call = CALLS[case]
    module.eval()
    expected, reads = tensors(call(module)), held(module)
    assert all(torch.equal(one, other) for one, other in zip(tensors(call(reads)), expected, strict=True))
    seen: dict[int, int] = {}
    layers = [layer for _, _, layer, _ in readers(reads)]
    hooks = [
        layer.register_forward_pre_hook(lambda one, _: seen.update({id(one): seen.get(id(one), 0) + 1}))
        for layer in layers
    ]
    watched = tensors(call(reads))
    assert all(torch.allclose(one, other, atol=1e-5) for one, other in zip(watched, expected, strict=True))
    assert set(seen) == {id(layer) for layer in layers}  # each saw what it multiplies
    for hook in hooks:
        hook.remove()
    for again in (copy.deepcopy(reads), pickle.loads(pickle.dumps(reads))):
        assert type(again) is type(reads) and isinstance(again, type(module))
        assert all(torch.equal(one, other) for one, other in zip(tensors(call(again)), expected, strict=True))
    for owner, name, layer, _ in list(readers(reads)):
        give_back(owner, name, layer.get_parameter("weight"))
    assert type(reads) is type(module) and set(reads.state_dict()) == set(module.state_dict())
    assert all(torch.equal(one, other) for one, other in zip(tensors(call(reads)), expected, strict=True))


@torch.no_grad()
def test_projections_of_an_lstm_see_the_hidden_units() -> None:
    module = nn.LSTM(5, 4, proj_size=3, batch_first=True).eval()
    reads = held(module)
    shapes: dict[str, torch.Size] = {}
    for _, name, layer, _ in readers(reads):
        layer.register_forward_pre_hook(lambda _, args, name=name: shapes.update({name: args[0].shape}))
    watched = tensors(reads(X))
    assert {name: shape[-1] for name, shape in shapes.items()} == {
        "weight_ih_l0": 5, "weight_hh_l0": 3, "weight_hr_l0": 4
    }  # fmt: skip
    unheld = copy.deepcopy(reads)
    for owner, name, layer, _ in list(readers(unheld)):
        give_back(owner, name, layer.get_parameter("weight"))
    hidden, memory = torch.zeros(3, 3), torch.zeros(3, 4)
    for step in range(6):
        gates = nn.functional.linear(X[:, step], module.weight_ih_l0, module.bias_ih_l0)
        gates = gates + nn.functional.linear(hidden, module.weight_hh_l0, module.bias_hh_l0)
        enter, keep, new, leave = gates.chunk(4, 1)
        memory = keep.sigmoid() * memory + enter.sigmoid() * new.tanh()
        hidden = (leave.sigmoid() * memory.tanh()) @ module.weight_hr_l0.T
    assert torch.allclose(watched[1][0], hidden, atol=1e-5) and torch.allclose(watched[2][0], memory, atol=1e-5)


def test_moving_and_casting_a_recurrent_network() -> None:
    module = held(RECURRENT["lstm"])
    assert module.double()(X.double())[0].dtype == torch.float64
    assert set(module.state_dict()) >= {"weight_ih_l0.weight", "bias_ih_l0"}


def test_what_cannot_be_held() -> None:
    with pytest.raises(ModelError, match="no parameter 'bias' of two axes"):
        hold(nn.Linear(3, 3), "bias")


@pytest.mark.parametrize(
    ("shape", "matrix"),
    [
        ((50, 64), (50, 64)), ((1, 65, 192), (65, 192)), ((8, 96, 64), (768, 64)), ((225, 3), (3, 225)),
        ((40, 5, 9), (40, 45)), ((40, 3, 2), (6, 40)), ((2, 10000), (8, 2500)),
    ],
)  # fmt: skip
def test_a_weight_of_any_shape_is_a_matrix(shape: tuple[int, ...], matrix: tuple[int, int]) -> None:
    weight = torch.randn(shape)
    geometry = Geometry.of_shape(shape)
    assert geometry.matrix_shape == (1, *matrix)
    assert torch.equal(geometry.from_matrix(geometry.to_matrix(weight)), weight)


def test_a_held_weight_multiplies() -> None:
    weight = torch.randn(7, 4)
    layer = HeldWeight(nn.Parameter(weight), Geometry((7, 4)))
    assert torch.allclose(layer(torch.eye(4)), weight.T)
