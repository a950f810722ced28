"""Block reconstruction: codes learned block by block (BRECQ, arXiv 2102.05426; QDrop, arXiv 2203.05740)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from corank.calibration import Context, LayerwisePasses, Samples, run
from corank.coded_weight import CodedWeight
from corank.errors import ConfigError
from corank.layers import CodedLayer, CodedLayerState
from corank.matrix import Geometry
from corank.refine.block_inputs import BlockInputs, block_inputs
from corank.refine.trainable_model import coded_layers
from corank.transfer import sent
from corank.watching import watched

__all__ = ["BlockReconstruction", "blocks_of", "reconstruct"]

_LOW, _HIGH = -0.1, 1.1  # of the stretched sigmoid
_SHARPEST, _SOFTEST = 20.0, 2.0
_CACHED_BYTES = 1 << 30  # of block inputs and outputs
_LARGEST = 8  # coded layers of one block; larger modules are taken layer by layer
_JUDGED = 256


@dataclass(frozen=True)
class BlockReconstruction:
    """Learns which of its two neighbouring values each weight takes, so that each block's output is the float one's.

    Blocks are the smallest modules that hold two to eight coded layers; other layers stand by themselves. They go in
    the order they run, on the inputs that the blocks before them, already done, give. Rounding is relaxed as in
    AdaRound (arXiv 2004.10568) and starts at the float weight; scales, biases and adapters stay. The paper weighs the
    block's error by the Fisher information; this takes the plain squared error, as the authors' code does by default.

    Args:
        iterations: gradient steps a block; the paper takes 20,000.
        batch_size: samples a step.
        learning_rate: Adam's.
        warm_start: part of the iterations before the regulariser sets in.
        regularisation: weight of ``sum(1 - |2h - 1|^b)``.
        drop: chance that an element of a block's input is the float network's (QDrop; 0 for BRECQ, 0.5 for QDrop).
    """

    iterations: int = 2000
    batch_size: int = 32
    learning_rate: float = 1e-3
    warm_start: float = 0.2
    regularisation: float = 0.01
    drop: float = 0.0

    def __post_init__(self) -> None:
        whole = (self.iterations, self.batch_size)
        if any(isinstance(number, bool) or not isinstance(number, int) or number < 1 for number in whole):
            raise ConfigError(f"iterations, batch_size = {whole!r}: positive whole numbers, e.g. 2000 and 32")
        if not (self.learning_rate > 0 and self.regularisation >= 0):
            raise ConfigError("learning_rate is positive and regularisation is not negative, e.g. 1e-3 and 0.01")
        if not (0 <= self.warm_start < 1 and 0 <= self.drop <= 1):
            raise ConfigError(f"warm_start={self.warm_start!r}, drop={self.drop!r}: parts of one, e.g. 0.2 and 0.5")


def blocks_of(model: nn.Module) -> dict[str, list[str]]:
    """Block name to the names of its coded layers, in module order."""
    layers = list(coded_layers(model))
    inside = {name: [layer for layer in layers if layer.startswith(f"{name}.")] for name, _ in model.named_modules()}
    found: dict[str, list[str]] = {}
    for layer in layers:
        parts = layer.split(".")
        above = (".".join(parts[:depth]) for depth in range(len(parts) - 1, 0, -1))
        block = next((name for name in above if len(inside[name]) > 1), layer)
        found.setdefault(block if len(inside[block]) <= _LARGEST else layer, []).append(layer)
    return found


def reconstruct(
    model: nn.Module, teacher: nn.Module, how: BlockReconstruction, context: Context
) -> tuple[Mapping[str, float], ...]:
    """Learns a coded model's codes in place; a block that does not come nearer to the float one is left as it was.

    Args:
        model: holds :class:`~corank.layers.CodedLayer` modules.
        teacher: the float model, norms folded as in ``model``.
        how: see :class:`BlockReconstruction`.
        context: of the run: its samples, and a seed that draws the batches.

    Returns:
        One entry for each block: iteration (of all blocks), error before and after, relative to the float output.
    """
    device = next(iter(coded_layers(model).values())).weight.device
    order, size = _observe(model, blocks_of(model), context.samples, device)
    batches = context.samples.take(max(1, _CACHED_BYTES // (4 * size))).batches
    students, teachers = (dict(one.named_modules(remove_duplicate=False)) for one in (model, teacher))
    history: list[Mapping[str, float]] = []
    with (
        LayerwisePasses(model, {name: students[name] for name in order}, batches) as real,
        LayerwisePasses(teacher, {name: teachers[name] for name in order}, batches) as ideal,
    ):
        for number, name in enumerate(order):
            inputs = block_inputs(name, real, ideal, batches)
            if inputs is not None:
                block = _Block(students[name], teachers[name], inputs, how)
                before, after = block.learn(context.seed + number)
                history.append({"iteration": (number + 1) * how.iterations, "before": before, "after": after})
            context.progress("reconstructing blocks", number + 1, len(order))
    return tuple(history)


def _observe(
    model: nn.Module, blocks: Mapping[str, list[str]], samples: Samples, device: torch.device
) -> tuple[list[str], int]:
    """The blocks that take one tensor and give one, in the order they run, and the numbers of the largest."""
    found: dict[str, int] = {}
    modules = dict(model.named_modules(remove_duplicate=False))

    def note(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, args: tuple[object, ...], named: dict[str, object], output: object) -> None:
            if len(args) == 1 and not named and isinstance(args[0], Tensor) and isinstance(output, Tensor):
                found.setdefault(name, 2 * args[0].numel() + output.numel())

        return hook

    with watched({name: modules[name] for name in blocks}, note), torch.no_grad():
        run(model, samples.batches[0], device)  # more than one: an expert may be reached by few
    return list(found), max(1, max(found.values(), default=1) // len(tree_leaves(samples.batches[0])[0]))


class _Block:
    """One block under way."""

    def __init__(self, module: nn.Module, teacher: nn.Module, inputs: BlockInputs, how: BlockReconstruction) -> None:
        self._module, self._how, self._inputs = module, how, inputs
        floats = dict(teacher.named_modules(remove_duplicate=False))
        self._soft = {
            inner: _Soft(layer, cast(Tensor, floats[inner]._parameters["weight"]))
            for inner, layer in module.named_modules()
            if isinstance(layer, CodedLayer)
        }
        with torch.no_grad():
            parts = [teacher(part) for part in inputs.expected.split(how.batch_size)]
        self._targets = torch.cat(parts)

    def learn(self, seed: int) -> tuple[float, float]:
        """Error before and after; the better codes are kept."""
        before, how = self._error(), self._how
        generator = torch.Generator().manual_seed(seed)
        optimizer = torch.optim.Adam([soft.latent for soft in self._soft.values()], lr=how.learning_rate)
        for number, draw in zip(range(how.iterations), self._draws(generator), strict=False):
            draw = sent(draw, self._targets.device)
            inputs = self._inputs.given[draw]
            if how.drop > 0:
                chances = torch.rand(inputs.shape, generator=generator, dtype=torch.float32)
                inputs = torch.where(sent(chances, inputs.device) < how.drop, self._inputs.expected[draw], inputs)
            with ExitStack() as lent:
                for soft in self._soft.values():
                    lent.enter_context(soft.layer.computing_with(soft.weight(), soft.inputs))
                output = self._module(inputs)
            loss = self._inputs.lost(_wide(output), _wide(self._targets[draw]), draw).square().sum(1).mean()
            done = (number / how.iterations - how.warm_start) / (1 - how.warm_start)
            if done >= 0:
                exponent = _SOFTEST + (_SHARPEST - _SOFTEST) * (1 + math.cos(math.pi * done)) / 2
                loss = loss + how.regularisation * sum(soft.undecided(exponent) for soft in self._soft.values())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        codes = {inner: soft.layer.code() for inner, soft in self._soft.items()}
        for soft in self._soft.values():
            soft.layer.fill(soft.harden(), cast(Tensor | None, soft.layer.bias))
        after = self._error()
        if not after < before:
            for inner, soft in self._soft.items():
                soft.layer.fill(codes[inner], cast(Tensor | None, soft.layer.bias))
        return before, after

    def _draws(self, generator: torch.Generator) -> Iterator[Tensor]:
        count = len(self._inputs.given)
        size = min(self._how.batch_size, count)
        while True:
            order = torch.randperm(count, generator=generator)
            yield from order[: len(order) - len(order) % size].split(size)

    def _error(self) -> float:
        with torch.no_grad():
            count, size = min(_JUDGED, len(self._targets)), self._how.batch_size
            lost = whole = 0.0
            for rows in (slice(start, min(start + size, count)) for start in range(0, count, size)):
                targets = _wide(self._targets[rows])
                error = self._inputs.lost(_wide(self._module(self._inputs.given[rows])), targets, rows)
                lost += float(error.square().sum())
                whole += float(self._inputs.lost(targets, torch.zeros_like(targets), rows).square().sum())
        return lost / max(whole, 1e-30)


class _Soft:
    """A coded layer whose weights stand between the two values next to the float weight."""

    def __init__(self, layer: CodedLayer, weight: Tensor) -> None:
        self.layer, self._code = layer, layer.code()
        self._geometry: Geometry = layer.geometry
        self.inputs = self._code.inputs
        book = self._code.weight.codebook
        target = self._geometry.to_matrix(weight.detach().float()).flatten(0, 1)
        self._adapter = self._code.adapter.product() if self._code.adapter else torch.zeros_like(target)
        target = target - self._adapter
        self._below, self._above = book.neighbours(target)
        self._low, high = book.values(self._below), book.values(self._above)
        self._step = high - self._low
        part = ((target - self._low) / torch.where(self._step > 0, self._step, 1.0)).clamp(0, 1)
        self.latent = nn.Parameter(torch.logit((part - _LOW) / (_HIGH - _LOW)))

    def weight(self) -> Tensor:
        """The soft weight in the layer's own shape, differentiable in the latent."""
        return self._geometry.from_matrix(self._low + self._share() * self._step + self._adapter)

    def undecided(self, exponent: float) -> Tensor:
        """``sum(1 - |2h - 1|^b)``."""
        return (1 - (2 * self._share() - 1).abs().pow(exponent)).sum()

    def harden(self) -> CodedLayerState:
        """The value above where the latent is positive, else the one below."""
        codes = torch.where(self.latent.detach() > 0, self._above, self._below)
        weight = CodedWeight(codes, self._code.weight.codebook)
        return CodedLayerState(self._code.codec, weight, self._code.adapter, self._code.adapter_bits, self._code.inputs)

    def _share(self) -> Tensor:
        return (self.latent.sigmoid() * (_HIGH - _LOW) + _LOW).clamp(0, 1)


def _wide(output: Tensor) -> Tensor:
    """In float32 or wider: the squares of half-precision numbers may be beyond their range."""
    return output.to(torch.promote_types(output.dtype, torch.float32))
