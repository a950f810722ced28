"""A training that is to end at a rate, or in a file of a size."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace

import torch

from corank.calibration import Batches, Context
from corank.calibration.samples import token_ids
from corank.errors import BudgetError, ConfigError
from corank.notes import note
from corank.sizes import parse_size
from corank.storage.artifact import serialized
from corank.storage.model_record import ATTRIBUTE
from corank.training.callbacks import Callback
from corank.training.checks import stored_recipe
from corank.training.finish import convert
from corank.training.norms import NormAfter
from corank.training.penalties import Rate
from corank.training.penalties.rate import WANTED, prices
from corank.training.recipe import Recipe
from corank.training.recipes import chosen_recipe
from corank.training.recipes.rate import rate as rate_recipe
from corank.training.short_numbers import shorten_numbers
from corank.training.state import TrainingState
from corank.verbs.training_run import TrainingRun

__all__ = ["Sized", "asked_recipe"]

_NAME = "rate"
_SPARED = 0.995  # of the codes' bytes that the steps aim at
_LEAST, _MOST = 0.05, 6.0
_TURNS = 20
_ERRORS = (9.99e-7, 1.01)
_FAR = 0.05  # of the size, by which a file is too large to be made smaller without a word
_MEASURED_AT = (0.4, 0.6, 0.75, 0.85, 0.93)  # shares of the steps


def asked_recipe(recipe: str | Recipe | None, rate: float | None, size: int | str | None) -> tuple[Recipe, Sized]:
    """The recipe, its rate's penalty as asked for, and what holds it to a size.

    Raises:
        ConfigError: for a rate and a size at once, or either beside a recipe that cannot keep to one.
    """
    if rate is not None and size is not None:
        raise ConfigError("rate and size were both given; choose one: the size sets the rate")
    if rate is not None and (type(rate) not in (int, float) or not _LEAST <= rate <= _MOST):
        raise ConfigError(
            f"rate={rate!r}: bits a weight after coding, {_LEAST} to {_MOST:g}, e.g. train(..., rate=0.5)"
        )
    wanted = None if size is None else parse_size(size)
    if rate is None and wanted is None:
        if recipe == _NAME:
            raise ConfigError("the recipe 'rate' needs what to reach: train(..., rate=0.5) or train(..., size='20KB')")
        return chosen_recipe("stats-2bit" if recipe is None else recipe), Sized(None)
    bits = 1.0 if rate is None else float(rate)
    if recipe is None or recipe == _NAME:
        return rate_recipe(bits), Sized(wanted, True)
    found = chosen_recipe(recipe)
    others = tuple(one for one in found.penalties if not isinstance(one, Rate))
    own = next((one for one in found.penalties if isinstance(one, Rate)), Rate())
    return replace(found, penalties=(*others, replace(own, bits=bits))), Sized(wanted)


@dataclass(frozen=True)
class Sized:
    """Holds a training to the size of its file.

    Attributes:
        size: in bytes; None for no such thing.
        own: whether the recipe is this library's "rate" and not one that somebody wrote down.
    """

    size: int | None
    own: bool = False

    def suited(self, recipe: Recipe, batches: Batches) -> Recipe:
        """The recipe for what the batches hold: sequences of tokens are learned more slowly, at a temperature of 1."""
        if not self.own or token_ids(batches.first(1)) is None:
            return recipe
        return replace(recipe, temperature=1.0, optimizer=replace(recipe.optimizer, rate=4e-3))

    def steered(self, work: TrainingRun, state: TrainingState, context: Context) -> TrainingRun:
        """The run with the rate whose file has the size, by what its file takes beside the priced codes at the start.

        Raises:
            BudgetError: where that alone takes more.
        """
        if self.size is None:
            return work
        weights, entropy = _priced(state)
        if not weights:
            raise ConfigError(
                "no weight of the recipe trains by learned steps of whole levels, so its file cannot be steered; "
                "train(..., 'rate', size=...) does it"
            )
        beside = _bytes(work, state, context) - entropy / 8
        bits = (self.size * _SPARED - beside) * 8 / weights
        if bits < _LEAST:
            least = math.ceil((beside + _LEAST * weights / 8) / _SPARED)
            raise BudgetError(
                f"a file of {self.size} bytes is not possible: scales, biases, the first and the last layer and all "
                f"that stays in float take {math.ceil(beside)}; the smallest is about {least} bytes"
            )
        penalties = tuple(
            replace(one, bits=min(bits, _MOST)) if isinstance(one, Rate) else one for one in work.recipe.penalties
        )
        recipe = replace(work.recipe, penalties=penalties)
        return replace(work, recipe=recipe, draft=replace(work.draft, recipe=stored_recipe(recipe)))

    def watching(self, work: TrainingRun, context: Context) -> tuple[Callback, ...]:
        """What measures the file on the way, and sets the rate anew by what it is off."""
        if self.size is None:
            return ()
        return (_Measured(self.size, lambda state: _bytes(work, state, context)),)

    def keep_within(self, work: TrainingRun, state: TrainingState, context: Context) -> None:
        """Sets the weights that are closest to zero to zero until the file has the size."""
        if self.size is None:
            return
        weights, _ = _priced(state)
        over, bytes_each = _bytes(work, state, context) - self.size, 3 * weights / 8  # that all of them would save
        if over > _FAR * self.size:
            note(
                f"after {state.recipe.iterations} steps the file would have {over + self.size} bytes, not {self.size}: "
                "weights near zero were set to zero until it fits, which costs accuracy; train more steps, 400 or so, "
                "or for a larger file"
            )
        for _ in range(_TURNS):
            if over <= 0:
                return
            share = min(0.5, 1.05 * over / bytes_each)
            _nearest_to_zero(state, share)
            before, over = over, _bytes(work, state, context) - self.size
            bytes_each = max((before - over) / share, bytes_each / 4)
        raise BudgetError(f"the file has {over + self.size} bytes and not {self.size}; train more steps, or for more")


@dataclass(frozen=True)
class _Measured(Callback):
    """Sets the rate that is wanted by the file that the network would be saved in, a few times on the way."""

    size: int
    bytes_of: Callable[[TrainingState], int]

    def step_done(self, state: TrainingState) -> None:
        steps = state.recipe.iterations
        if state.step + 1 not in {round(place * steps) for place in _MEASURED_AT}:
            return
        rate = next(one for one in state.recipe.penalties if isinstance(one, Rate))
        weights, entropy = _priced(state)
        wanted = float(state.kept.get(WANTED, rate.bits))
        found = self.bytes_of(state)
        # what the file takes for the bits that there are now says what it would take for others
        bits = entropy / weights + (self.size * _SPARED - found) * 8 / weights
        state.kept[WANTED] = torch.tensor(min(max(bits, 0.3 * wanted, _LEAST), _MOST), dtype=torch.float64)


def _priced(state: TrainingState) -> tuple[int, float]:
    """Weights whose codes have a price, and the entropy of those codes in bits."""
    count, bits = 0, 0.0
    for layer, book in Rate.priced(state):
        codes = book.nearest(layer.matrix.detach())
        share = torch.bincount(codes.flatten().long(), minlength=book.size).float() / codes.numel()
        bits += float((share * prices(share)).sum()) * codes.numel()
        count += codes.numel()
    return count, bits


def _bytes(work: TrainingRun, state: TrainingState, context: Context) -> int:
    """What the file takes that the network would be saved in now."""
    quiet = replace(state, optimizer=None, teacher=None, batch=None, labels=None, output=None, reference=None)
    quiet = replace(quiet, outputs={}, closing=ExitStack())
    shared = {id(state.recipe): state.recipe}  # its callbacks may hold what cannot be copied
    twin: tuple[TrainingState, list[NormAfter]] = copy.deepcopy((quiet, work.norms), shared)
    twin[0].model.eval()
    shorten_numbers(*twin)
    record = work.recorded(convert(twin[0], twin[1], context), (), ())
    # Errors of layers, which are known later, are in the file, too: of three digits, and of many magnitudes.
    told = {
        name: replace(one, relative_output_error=_ERRORS[k % 2]) for k, (name, one) in enumerate(record.layers.items())
    }
    twin[0].model.__dict__[ATTRIBUTE] = replace(record, layers=told)
    return len(serialized(twin[0].model.to(work.dtype)))


@torch.no_grad()
def _nearest_to_zero(state: TrainingState, share: float) -> None:
    """Sets that share of the weights, those of other codes than zero that are closest to it, to zero."""
    found = [(layer, *Rate.not_zero(layer, book)) for layer, book in Rate.priced(state)]
    sizes = torch.cat([size[others] for _, others, size in found])
    count = min(len(sizes), math.ceil(share * sum(size.numel() for _, _, size in found)))
    if not count:
        return
    limit = sizes.kthvalue(count).values
    for layer, others, size in found:
        layer.rewrite(torch.where(others & (size <= limit), torch.zeros_like(size), layer.matrix))
