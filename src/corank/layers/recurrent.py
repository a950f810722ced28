"""Recurrent networks whose weights are read from layers: step by step where those are watched.

Shapes: ``N`` steps of all sequences one after the other, ``B`` sequences, ``H`` hidden units.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from corank.layers.held import Reader, is_watched, multiplied, register_reader

__all__ = ["CellReader", "RecurrentReader"]

State = tuple[Tensor, Tensor]  # hidden and, of an LSTM, cell


@register_reader(nn.LSTM, nn.GRU, nn.RNN)
class RecurrentReader(Reader):
    """An ``LSTM``, ``GRU`` or ``RNN``. The input matrices see what a layer is given, all steps at once; the recurrent
    ones, and projections, the states of every step."""

    @property
    def _flat_weights(self) -> list[Tensor]:
        return [getattr(self, name) for name in cast(nn.RNNBase, self)._flat_weights_names]

    @_flat_weights.setter
    def _flat_weights(self, weights: list[Tensor]) -> None:
        """Nothing: they are read each time."""

    def _init_flat_weights(self) -> None:
        self._flat_weight_refs: list[Any] = []

    def _update_flat_weights(self) -> None:
        """Nothing: they are read each time."""

    def flatten_parameters(self) -> None:
        """Nothing: what is composed has no memory of its own that could be joined."""

    def __getstate__(self) -> dict[str, Any]:
        return dict(self.__dict__)

    def __setstate__(self, state: dict[str, Any]) -> None:
        nn.Module.__setstate__(cast(nn.Module, self), state)

    def forward(self, input: Any, hx: Any = None) -> Any:
        module = cast(nn.RNNBase, self)
        if module.training or not is_watched(module._modules.values()):
            return super().forward(input, hx)  # pyright: ignore[reportAttributeAccessIssue]
        return _stepped(module, input, hx)


@register_reader(nn.LSTMCell, nn.GRUCell, nn.RNNCell)
class CellReader(Reader):
    """An ``LSTMCell``, ``GRUCell`` or ``RNNCell``."""

    def forward(self, input: Tensor, hx: Any = None) -> Any:
        cell = cast(nn.RNNCellBase, self)
        if cell.training or not is_watched(cell._modules.values()):
            return super().forward(input, hx)  # pyright: ignore[reportAttributeAccessIssue]
        mode = "LSTM" if isinstance(cell, nn.LSTMCell) else "GRU" if isinstance(cell, nn.GRUCell) else "RNN"
        if isinstance(cell, nn.RNNCell):
            mode = f"RNN_{cell.nonlinearity.upper()}"
        rows = input if input.dim() == 2 else input[None]
        start = _start(hx, rows.new_zeros(len(rows), cell.hidden_size), rows.dim() == input.dim())
        hidden, memory = _step(cell, mode, "", _plus(multiplied(cell, "weight_ih", rows), cell, "bias_ih"), start)
        found = (hidden, memory) if input.dim() == 2 else (hidden[0], memory[0])
        return found if mode == "LSTM" else found[0]


def _start(hx: Any, zeros: Tensor, batched: bool) -> State:
    if hx is None:
        return zeros, zeros
    both = hx if isinstance(hx, tuple) else (hx, hx)
    return both if batched else (both[0][None], both[1][None])


def _stepped(rnn: nn.RNNBase, input: Any, hx: Any) -> Any:
    """What the network gives, one step after the other."""
    packed = isinstance(input, PackedSequence)
    order, back = (input.sorted_indices, input.unsorted_indices) if packed else (None, None)
    batched = packed or input.dim() == 3
    if packed:
        data, sizes = input.data, input.batch_sizes.tolist()
    else:
        x = input if batched else input[:, None]
        x = x.transpose(0, 1) if rnn.batch_first and batched else x
        data, sizes = x, [x.shape[1]] * x.shape[0]
    hidden, memory = _first_states(rnn, data, sizes[0], hx, batched)
    if order is not None and hx is not None:
        hidden, memory = hidden[:, order], memory[:, order]
    ends: list[State] = []
    for layer in range(rnn.num_layers):
        outputs = []
        for direction in range(2 if rnn.bidirectional else 1):
            suffix, at = f"_l{layer}{'_reverse' * direction}", len(ends)
            # Sequences first, as masks of padding are told by that shape.
            gates = multiplied(rnn, f"weight_ih{suffix}", data if packed else data.transpose(0, 1))
            gates = _plus(gates if packed else gates.transpose(0, 1).flatten(0, 1), rnn, f"bias_ih{suffix}")
            output, end = _walk(rnn, suffix, gates, sizes, (hidden[at], memory[at]))
            outputs.append(output)
            ends.append(end)
        joined = torch.cat(outputs, -1)
        data = joined if packed else joined.unflatten(0, (len(sizes), sizes[0]))
    last = [torch.stack([end[part] for end in ends]) for part in (0, 1)]
    if back is not None:
        last = [one[:, back] for one in last]
    last = last if batched else [one[:, 0] for one in last]
    final = (last[0], last[1]) if rnn.mode == "LSTM" else last[0]
    if packed:
        return PackedSequence(data, input.batch_sizes, order, back), final
    data = data if batched else data[:, 0]
    return data.transpose(0, 1) if rnn.batch_first and batched else data, final


def _first_states(rnn: nn.RNNBase, data: Tensor, sequences: int, hx: Any, batched: bool) -> State:
    """Hidden and cell states ``(layers, B, H)`` of all layers and directions before the first step."""
    if hx is not None:
        both = hx if isinstance(hx, tuple) else (hx, hx)
        return both if batched else (both[0][:, None], both[1][:, None])
    count = rnn.num_layers * (2 if rnn.bidirectional else 1)
    memory = data.new_zeros(count, sequences, rnn.hidden_size)
    return (memory[:, :, : rnn.proj_size] if rnn.proj_size else memory), memory


def _walk(rnn: nn.RNNBase, suffix: str, gates: Tensor, sizes: list[int], state: State) -> tuple[Tensor, State]:
    """One layer in one direction.

    Args:
        rnn: the network.
        suffix: of its weights' names.
        gates: ``(N, K)``, what the inputs give.
        sizes: sequences of each step.
        state: before the first step.
    """
    hidden, memory = state
    outputs = list(gates.split(sizes))
    steps = range(len(sizes))
    for step in reversed(steps) if suffix.endswith("_reverse") else steps:
        here = sizes[step]
        found = _step(rnn, rnn.mode, suffix, outputs[step], (hidden[:here], memory[:here]))
        outputs[step] = found[0]
        hidden, memory = torch.cat([found[0], hidden[here:]]), torch.cat([found[1], memory[here:]])
    return torch.cat(outputs), (hidden, memory)


def _step(module: nn.Module, mode: str, suffix: str, given: Tensor, state: State) -> State:
    """One step from what the inputs give ``(B, K)``."""
    hidden, memory = state
    own = _plus(multiplied(module, f"weight_hh{suffix}", hidden), module, f"bias_hh{suffix}")
    if mode == "LSTM":
        enter, keep, new, leave = (given + own).chunk(4, -1)
        memory = keep.sigmoid() * memory + enter.sigmoid() * new.tanh()
        hidden = leave.sigmoid() * memory.tanh()
        projects = f"weight_hr{suffix}" in (*module._modules, *module._parameters)
        return (multiplied(module, f"weight_hr{suffix}", hidden) if projects else hidden), memory
    if mode == "GRU":
        (reset, keep, new), (own_reset, own_keep, own_new) = given.chunk(3, -1), own.chunk(3, -1)
        kept = (keep + own_keep).sigmoid()
        made = (new + (reset + own_reset).sigmoid() * own_new).tanh()
        hidden = made + kept * (hidden - made)
        return hidden, hidden
    hidden = (given + own).tanh() if mode == "RNN_TANH" else (given + own).relu()
    return hidden, hidden


def _plus(products: Tensor, module: nn.Module, bias: str) -> Tensor:
    own = module._parameters.get(bias)
    return products if own is None else products + own
