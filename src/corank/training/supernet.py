"""Training one network that holds many (OQAT, arXiv 2010.04354): steps, sandwich sampling, bit inheritance.

The authors never released training code: the sandwich (arXiv 1903.05134) and its in-place distillation are the usual
way to train such networks, not theirs as read.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from corank.calibration import run
from corank.calibration.seeds import generator_of
from corank.errors import ConfigError, ModelError
from corank.training.callbacks import Callback
from corank.training.elastic import ElasticConv, Steps
from corank.training.objective import Objective
from corank.training.shared_step import WIDTHS, SharedStepInputs, SharedStepWeight
from corank.training.state import TrainingState
from corank.training.subnets import Choices, Space, choose, drawn, extreme, layers_of, space_of
from corank.watching import input_of, watched

__all__ = ["EDGE_BITS", "Sandwich", "bits_of", "give_steps", "groups_of_supernet", "inherit"]

EDGE_BITS = 8


@dataclass(frozen=True)
class Sandwich(Callback):
    """Each step trains the largest subnet by the recipe's loss, and the smallest and ``random`` others by what the
    largest gives (in-place distillation, without gradients to it). The loss is the mean over them.

    Args:
        random: subnets drawn a step, beside the two.
    """

    random: int = 2

    def __post_init__(self) -> None:
        if type(self.random) is not int or not 0 <= self.random <= 100:
            raise ConfigError(f"random={self.random!r}: subnets drawn a step, 0 to 100, e.g. Sandwich(random=2)")

    def start(self, state: TrainingState) -> None:
        choose(state.model, extreme(space_of(state.model), largest=True))

    def loss_ready(self, state: TrainingState, loss: Tensor) -> Tensor:
        space, distilled = space_of(state.model), Objective("distil", 1.0, None, tokens=False)
        output, reference = state.output, state.reference
        name = "largest"
        state.measured[name] = state.measured.get(name, 0.0) + float(loss.detach()) * state.share
        state.reference = tree_map(lambda one: one.detach() if isinstance(one, Tensor) else one, output)
        others = [extreme(space, largest=False)]
        others += [drawn(space, generator_of(state.seed, "subnet", state.step, one)) for one in range(self.random)]
        total = loss
        for chosen in others:
            choose(state.model, chosen)
            with torch.autocast(state.device.type, torch.bfloat16, enabled=state.bfloat16):
                state.output = run(state.model, state.batch, state.device)
            total = total + distilled(state)
        choose(state.model, extreme(space, largest=True))
        state.output, state.reference = output, reference
        return total / (1 + len(others))


def bits_of(model: nn.Module) -> int | None:
    """Bits of a supernet's weights, the edges left out; None where it is in float."""
    found = {
        cast(Steps, one).weight.bits
        for _, layer in layers_of(model)
        if not layer.shape.edge
        for one in layer.steps.values()
    }
    if len(found) > 1:
        raise ModelError(f"layers of {', '.join(map(str, sorted(found)))} bits in one supernet; it has one width")
    return found.pop() if found else None


def give_steps(model: nn.Module, bits: int, signed: bool, samples: Any, shared: bool = True) -> None:
    """Steps for the weights and inputs of a float supernet, in place: 8 bits at its edges, whose inputs stay in float.

    Args:
        model: in float, where it is to train.
        bits: 2 to 8, of weights and inputs.
        signed: whether inputs that are negative are rounded to signed values; else they become zero (the authors').
        samples: unlabelled batches that tell how large inputs are.
        shared: one step for all parts of a layer; else one for each (what the method is compared with).
    """
    if bits not in WIDTHS:
        raise ConfigError(f"bits={bits!r}: of a supernet's weights and inputs, {WIDTHS[0]} to {WIDTHS[-1]}, e.g. 4")
    space, found = space_of(model), dict[tuple[str, str], Steps]()
    with torch.no_grad():
        for chosen in [extreme(space, largest=True)] if shared else _alike(space):
            choose(model, chosen)
            for name, (size, negative) in _inputs(model, samples).items():
                layer = model.get_submodule(name)
                assert isinstance(layer, ElasticConv)
                key = (name, "shared" if shared or layer.shape.edge else layer.now.name)
                if key not in found:
                    weight = SharedStepWeight.started(layer.taken(), EDGE_BITS if layer.shape.edge else bits)
                    inputs = SharedStepInputs.started(size, bits, signed and negative)
                    found[key] = Steps(weight, None if layer.shape.edge else inputs)
        for (name, key), steps in found.items():
            cast(ElasticConv, model.get_submodule(name)).steps[key] = steps
    choose(model, extreme(space, largest=True))


def inherit(model: nn.Module, bits: int) -> None:
    """Bit inheritance, in place: all parameters stay, and each step is doubled for each bit less.

    Raises:
        ConfigError: for a network of fewer bits.
    """
    now = bits_of(model)
    if now is None or now < bits:
        raise ConfigError(f"a supernet of {now} bits hands on fewer bits, not {bits}; start from one in float")
    for _ in range(now - bits):
        for _, layer in layers_of(model):
            for key, steps in list(layer.steps.items()):
                layer.steps[key] = cast(Steps, steps).inherited(layer.shape.edge)


def groups_of_supernet(model: nn.Module, rate: float, step_rate: float, decay: float) -> list[dict[str, Any]]:
    """What trains: kernels (with decay), norms, biases and crops (without), and steps at ``rate * step_rate``."""
    steps = [one for _, layer in layers_of(model) for one in layer.steps.parameters()]
    crops = [one for _, layer in layers_of(model) for one in layer.crops.parameters()]
    taken = {id(one) for one in (*steps, *crops)}
    rest = [one for one in model.parameters() if id(one) not in taken]
    groups = [
        {"params": [one for one in rest if one.dim() > 1], "lr": rate, "weight_decay": decay},
        {"params": [*(one for one in rest if one.dim() <= 1), *crops], "lr": rate, "weight_decay": 0.0},
        {"params": steps, "lr": rate * step_rate, "weight_decay": 0.0, "delta": 0.0},
    ]
    return [group for group in groups if group["params"]]


def _alike(space: Space) -> Iterator[Choices]:
    """Subnets whose choices of one kind are all alike, largest first: every part of every layer is in one of them,
    where a layer hangs on the choices of its own block."""
    kinds = {
        name.rpartition(".")[2]: max(len(space[one]) for one in space if _kind(one) == _kind(name)) for name in space
    }
    for places in itertools.product(*(range(count) for count in kinds.values())):
        place = dict(zip(kinds, places, strict=True))
        yield {name: values[-1 - min(place[_kind(name)], len(values) - 1)] for name, values in space.items()}


def _kind(name: str) -> str:
    return name.rpartition(".")[2]


def _inputs(model: nn.Module, samples: Any) -> dict[str, tuple[Tensor, bool]]:
    """By layer that runs, the mean magnitude of its inputs and whether any is negative; norms as while they train."""
    sums, counts, negative = dict[str, Tensor](), dict[str, int](), dict[str, bool]()

    def looking(name: str) -> Any:
        def look(_module: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
            value = input_of(args, named)
            sums[name] = sums.get(name, value.new_zeros(())) + value.abs().sum(dtype=torch.float32)
            counts[name] = counts.get(name, 0) + value.numel()
            negative[name] = negative.get(name, False) or bool((value < 0).any())

        return look

    device, was_training = next(model.parameters()).device, model.training
    with watched(dict(layers_of(model)), looking, before=True):
        model.train()
        for batch in samples:
            run(model, batch, device)
    model.train(was_training)
    return {name: (sums[name] / counts[name], negative[name]) for name in sums}
