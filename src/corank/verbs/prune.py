"""The public call that removes channels: draw them to zero, take them out, and train what is left a little."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from corank.autograd import recording
from corank.checkpoint import Checkpoint, fingerprint
from corank.compiled import uncompiled
from corank.config import check_progress
from corank.data import ImageSet, TokenSet
from corank.devices import chosen_device, device_of
from corank.errors import ConfigError
from corank.layers.effective import computed_before, make_effective
from corank.precision import exact_float32
from corank.processes import init_processes
from corank.progress import Progress
from corank.pruning.record import PRUNED
from corank.pruning.request import Method, Share, chosen_method
from corank.training.callbacks import Callback
from corank.training.recipe import Recipe
from corank.training.state import TrainingState
from corank.verbs.arguments import check_kinds, check_numbers, read_samples
from corank.verbs.pruning_run import PruningRun
from corank.verbs.train import train
from corank.verbs.training_data import calibrated_on, read_labelled

__all__ = ["FINETUNE", "prune"]

_READ_AGAIN = (ImageSet, TokenSet, Tensor, Mapping, list, tuple)
FINETUNE = Recipe(weights=None, edge=None, edge_inputs=None, start="float")
"""How a pruned network trains unless the caller says otherwise: distilled, in float."""


@uncompiled()
@recording()
@exact_float32()
def prune(
    model: nn.Module,
    data: Any,
    remove: float | str = 0.5,
    method: str | Method = "first-order",
    *,
    iterations: int = 400,
    drawn: float = 0.25,
    batch_size: int | None = None,
    keep: Sequence[str] = (),
    round_to: int = 1,
    recipe: Recipe | None = None,
    samples: int | None = None,
    seed: int = 0,
    device: str | torch.device = "auto",
    checkpoint: str | Path | None = None,
    progress: Progress | None = None,
) -> nn.Module:
    """A smaller float network: whole channels, attention heads and hidden features are gone from all layers that they
    are in, so that parameters, multiply-adds and time fall.

    Which channels can only go together is read from torch-pruning's dependency graph, and then tried: the network
    without half of them must compute what it computes with them at zero. What does not hold stays, and is told in
    ``model.corank_pruned.left``. :func:`corank.quantize`, :func:`corank.train` and :func:`corank.save` take the result
    as they take any float network; files made of it load into the network as its class makes it.

    Args:
        model: the trained float network; it is not changed.
        data: what it is watched with and trains on: as for :func:`corank.train`. Labels are read only where ``recipe``
            has them.
        remove: a share of the multiply-adds (of convolutions and linear layers), such as 0.4; or of the parameters,
            "0.4p".
        method: "first-order" (how the loss changes as a channel fades), "magnitude", "perspective" (structured
            perspective regularization, arXiv 2206.14056, then its relaxed 0/1 variable), or "group-lasso" (that
            penalty, then magnitude); or a :class:`~corank.pruning.request.Method`.
        iterations: steps of training in all; 0 for none: nothing is drawn to zero then, and nothing heals.
        drawn: share of the steps before channels go, in which the penalty of the method draws them to zero; of a method
            without one all steps follow.
        batch_size: samples a step; None for the recipe's (128).
        keep: names of layers, or patterns of them, that keep their channels.
        round_to: channels that a layer has left are multiples of it, as kernels of runtimes like them: 8 for ONNX
            Runtime on a CPU. Layers with fewer keep all; attention heads go one by one.
        recipe: how it trains; one without weights of low bits. None: distilled from ``model``.
        samples: calibration samples, at most; None for 1600.
        seed: draws samples and batches.
        device: "auto" (CUDA if there is any, else CPU) or a torch device. The result is where ``model`` was.
        checkpoint: a folder that keeps what is done; the same call with the same folder goes on from there, to the
            identical result.
        progress: called with (what, done, total).

    Returns:
        A narrower copy in evaluation mode; what was done is at ``.corank_pruned`` (a
        :class:`~corank.pruning.record.PruneRecord`).

    Raises:
        ConfigError, ModelError, DataError, BudgetError, TrainingError: the model is then as it was. A share that would
            leave a layer without channels is a BudgetError, which names the largest one that works.
    """
    started = time.perf_counter()
    check_kinds(model, device=device)
    check_progress(progress)
    init_processes()
    share, how, recipe = Share.read(remove), chosen_method(method), _recipe(recipe, iterations, batch_size)
    _check(drawn, keep, round_to)
    share = replace(share, round_to=round_to)
    check_numbers(samples, recipe.batch_size, seed)
    data = data if isinstance(data, _READ_AGAIN) else list(data)
    batches = read_labelled(data, recipe.batch_size, seed)
    looked_at = read_samples(calibrated_on(data, batches, samples), samples, 32, seed)
    own = copy.deepcopy(model, computed_before(model)).to(chosen_device(device, device_of(model))).eval()
    make_effective(own)
    work = PruningRun.of(own, looked_at, tuple(keep), (share, how, seed))
    folder = _folder(checkpoint, work, recipe, {"drawn": drawn, "samples": batches.identity})
    steps = _Steps(
        data, recipe, work.model, {"samples": samples, "seed": seed, "device": device, "progress": progress}, folder
    )
    pull, weighed, narrow_after = work.drawing(), work.model, iterations
    if pull is not None and (before := round(drawn * iterations)):
        weighed, narrow_after = steps.train(weighed, before, "drawn", pull), iterations - before
    removed = work.chosen(weighed)
    narrow = work.removed(weighed, removed)
    record = work.recorded(narrow, removed)
    narrow = steps.train(narrow, narrow_after, "healed", None)
    kind = next((one.dtype for one in model.parameters() if one.is_floating_point()), torch.float32)
    narrow = narrow.to(kind).to(device_of(model)).requires_grad_(any(one.requires_grad for one in model.parameters()))
    narrow.__dict__[PRUNED] = replace(
        record, iterations=iterations, drawn=iterations - narrow_after, history=tuple(steps.history),
        seconds=time.perf_counter() - started,
    )  # fmt: skip
    return narrow.eval()


@dataclass(frozen=True)
class _Noting(Callback):
    """Notes what a training measured."""

    history: list[Mapping[str, float]]

    def finished(self, state: TrainingState) -> None:
        self.history.extend(state.history)


@dataclass
class _Steps:
    """The training of a pruning: before channels go, and after.

    Attributes:
        data: that it reads.
        recipe: that it follows.
        teacher: the network that it is distilled from.
        given: further arguments of :func:`corank.train`.
        folder: keeps the steps of each part; None for nothing.
    """

    data: Any
    recipe: Recipe
    teacher: nn.Module
    given: Mapping[str, Any]
    folder: Path | None
    history: list[Mapping[str, float]] = field(default_factory=list)

    def train(self, model: nn.Module, count: int, part: str, pull: Callback | None) -> nn.Module:
        """The model after ``count`` steps."""
        if not count:
            return model
        own = [_Noting(self.history), *([] if pull is None else [pull])]
        folder = None if self.folder is None else self.folder / part
        taught = None if self.recipe.loss == "labels" else self.teacher
        return train(
            model, self.data, self.recipe.replaced(iterations=count), teacher=taught, callbacks=own,
            checkpoint=folder, **self.given,
        )  # fmt: skip


def _recipe(recipe: Recipe | None, iterations: int, batch_size: int | None) -> Recipe:
    found = FINETUNE if recipe is None else recipe
    if not isinstance(found, Recipe) or found.weights is not None or found.inputs is not None or found.structure:
        raise ConfigError(
            f"recipe={recipe!r:.80}: one that trains float weights, e.g. corank.verbs.prune.FINETUNE.replaced("
            'loss="both"); codes come after it: corank.train(pruned, data, "stats-2bit")'
        )
    size = found.batch_size if batch_size is None else batch_size
    return found.replaced(iterations=iterations, batch_size=size)


def _check(drawn: float, keep: Sequence[str], round_to: int) -> None:
    if type(round_to) is not int or not 1 <= round_to <= 1024:
        raise ConfigError(f"round_to={round_to!r}: a whole number of channels from 1 to 1024, e.g. round_to=8")
    if type(drawn) not in (int, float) or not 0 <= drawn < 1:
        raise ConfigError(f"drawn={drawn!r}: a share of the steps from 0 to below 1, e.g. drawn=0.25")
    if isinstance(keep, str) or not all(isinstance(one, str) for one in keep):
        raise ConfigError(f'keep={keep!r:.80}: a list of names or patterns, e.g. keep=["conv1"]')


def _folder(checkpoint: str | Path | None, work: PruningRun, recipe: Recipe, asked: Mapping[str, Any]) -> Path | None:
    """The checkpoint's folder, which holds this pruning or none."""
    if checkpoint is None:
        return None
    identity = {
        "verb": "prune", "corank": version("corank"), "recipe": recipe.to_json(), "method": asdict(work.method),
        "remove": str(work.share), "round_to": work.share.round_to, "left": dict(work.couplings.left),
        "seed": work.seed,
        "model": fingerprint([*work.model.parameters(), *work.model.buffers()]), **asked,
    }  # fmt: skip
    return Checkpoint(checkpoint, identity).folder
