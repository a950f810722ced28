"""The public call that teaches a network further classes while it keeps the ones that it knows."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from corank.autograd import recording
from corank.calibration import generator_of, run
from corank.data import ImageSet
from corank.devices import device_of
from corank.errors import ConfigError, DataError
from corank.export.to_torch import to_float
from corank.layers import CodedLayer, module_named
from corank.progress import Progress
from corank.quantization.template import LayerOverride
from corank.storage.model_record import ATTRIBUTE
from corank.training.callbacks import Callback, PositiveRows
from corank.training.recipe import Recipe
from corank.training.recipes import chosen_recipe
from corank.training.recipes.incremental import KnownClasses
from corank.verbs.arguments import check_kinds
from corank.verbs.class_head import align_classes, head_name, widened
from corank.verbs.labelled import in_memory
from corank.verbs.train import train
from corank.verbs.training_data import of_pixels
from corank.watching import evaluating, input_of, watched

__all__ = ["train_classes"]

_LOOKED_AT = 64  # samples

Labelled = tuple[Tensor, Tensor]  # inputs (N, ...) and labels (N,)


@recording()
def train_classes(
    model: nn.Module,
    data: Any,
    exemplars: Any = (),
    recipe: str | Recipe = "weight-aligning",
    *,
    classes: int | None = None,
    teacher: nn.Module | None = None,
    temperature: float = 2.0,
    align: bool = True,
    positive: bool | None = None,
    head: str | None = None,
    iterations: int | None = None,
    batch_size: int | None = None,
    layers: Mapping[str, LayerOverride] | None = None,
    callbacks: Sequence[Callback] = (),
    seed: int = 0,
    device: str | torch.device = "auto",
    reference: str | None = None,
    checkpoint: str | Path | None = None,
    progress: Progress | None = None,
) -> nn.Module:
    """A copy of a classifier that knows further classes: weight aligning (WA, arXiv 1911.07053).

    The copy's last layer gets a row for each new class. It learns all classes by the labels of ``data`` and of the
    ``exemplars``, and the known ones from the network before
    (:class:`~corank.training.recipes.incremental.KnownClasses`). Then the new rows are made as long as the known ones
    (:func:`corank.align_classes`): new classes, of which it saw more samples, are preferred otherwise.

    Args:
        model: the network that knows the first classes, float or quantized; it is not changed. Its last linear layer
            has one row a class. Of a quantized one the student starts at the composed weights, its norms folded.
        data: labelled samples of the new classes, whose labels go on behind those that are known: an
            :class:`~corank.data.ImageSet`, or a tensor ``(N, ...)`` and labels ``(N,)``. Held in memory.
        exemplars: samples of known classes, in the same forms, such as :func:`corank.choose_exemplars` gives; or a list
            of such. None at all leaves what is known to the distillation.
        recipe: how the weights train: "weight-aligning" for a float network, "weight-aligning-4bit", any name that
            :func:`corank.train` takes, or a :class:`~corank.Recipe`. Its loss is replaced.
        classes: how many classes are new; None for those that the labels of ``data`` name.
        teacher: what the known classes are learned from; None for ``model``. It may be quantized, and be the one in use
            of which ``model`` is the float original.
        temperature: of the distillation.
        align: whether rows are aligned in the end.
        positive: whether the last layer's weights stay at or above zero while it trains, as in the paper
            (:class:`~corank.training.callbacks.PositiveRows`). What aligning rests on, that the length of a row says
            how large its logit is, holds then, and else hardly. None: where no input of that layer is negative.
        head: name of the linear layer whose rows are the classes; None for the last.
        iterations, batch_size, layers, callbacks, seed, device, reference, checkpoint, progress: as for
            :func:`corank.train`.

    Returns:
        As :func:`corank.train`: a float network, or one in codes that :func:`corank.save` takes. A file of it is loaded
        into a network with as many classes.

    Raises:
        ConfigError, ModelError, DataError, TrainingError: the model is then as it was.
    """
    check_kinds(model, device=device, layers=layers)
    how = chosen_recipe(recipe).replaced(loss="both")
    how = replace(how, callbacks=of_pixels(how.callbacks, data))
    name = head_name(model, head)
    known = _rows(model, name)
    new, more = _read(data, known, classes)
    if _has_no_negative_inputs(model, name, new[0]) if positive is None else positive:
        callbacks = (*callbacks, PositiveRows(name))
    remembered = [_known(one, known) for one in _listed(exemplars)]
    if teacher is not None and _rows(teacher, head_name(teacher, head)) != known:
        raise ConfigError(
            f"the teacher has another number of classes than the model's {known}; give the one it was made of"
        )
    plain = _in_float(model)
    student = widened(plain, name, more, seed)
    trained = train(
        student, _mixed([*remembered, new], seed), how, loss=KnownClasses(known, temperature),
        teacher=teacher if teacher is not None else model, iterations=iterations, batch_size=batch_size, layers=layers,
        callbacks=of_pixels(callbacks, data),
        seed=seed, device=device, reference=reference, checkpoint=checkpoint, progress=progress,
    )  # fmt: skip
    _keep_changes(trained, model)
    return align_classes(trained, known, name) if align else trained


def _rows(model: nn.Module, head: str) -> int:
    return int(module_named(model, head).out_features)  # pyright: ignore[reportArgumentType]


@torch.no_grad()
def _has_no_negative_inputs(model: nn.Module, head: str, inputs: Tensor) -> bool:
    """Whether the layer is fed with no negative number on some of the samples."""
    least: list[float] = []

    def look(_module: object, args: tuple[Any, ...], named: dict[str, Any], _output: object) -> None:
        least.append(float(input_of(args, named).min()))

    with evaluating(model), watched({head: module_named(model, head)}, lambda _: look):
        run(model, inputs[:_LOOKED_AT], device_of(model))
    return bool(least) and min(least) >= 0


def _in_float(model: nn.Module) -> nn.Module:
    coded = any(isinstance(module, CodedLayer) for module in model.modules())
    return to_float(model) if coded else copy.deepcopy(model)


def _keep_changes(trained: nn.Module, model: nn.Module) -> None:
    """Of a network that was quantized before: the record says how it differs from its code, as the record then did."""
    before, now = model.__dict__.get(ATTRIBUTE), trained.__dict__.get(ATTRIBUTE)
    if before is not None and now is not None:
        folded, structure = (*before.folded, *now.folded), (*before.structure, *now.structure)
        trained.__dict__[ATTRIBUTE] = replace(now, folded=folded, structure=structure)


def _listed(exemplars: Any) -> list[Any]:
    """One set of samples, or several."""
    if isinstance(exemplars, ImageSet) or (
        isinstance(exemplars, tuple) and exemplars and isinstance(exemplars[0], Tensor)
    ):
        return [exemplars]
    if not isinstance(exemplars, Sequence):
        raise DataError(f"exemplars are a labelled set of samples or a list of such, not {type(exemplars).__name__}")
    return list(exemplars)


def _read(data: Any, known: int, classes: int | None) -> tuple[Labelled, int]:
    """The samples of new classes, and how many of these there are."""
    inputs, labels = in_memory(data, "data")
    if classes is not None and (type(classes) is not int or classes < 1):
        raise ConfigError(f"classes={classes!r}: how many classes are new, from 1; None for those of the labels")
    last = int(labels.max())
    more = last + 1 - known if classes is None else classes
    if int(labels.min()) < known or last >= known + more:
        span = f"from {known} on" if classes is None else f"from {known} to {known + more - 1}"
        raise DataError(
            f"the model knows the classes 0 to {known - 1}, so the labels of new ones go {span}; data has labels from "
            f"{int(labels.min())} to {last}. Samples of known classes are exemplars: "
            "train_classes(model, data, exemplars)"
        )
    return (inputs, labels), more


def _known(data: Any, known: int) -> Labelled:
    inputs, labels = in_memory(data, "exemplars")
    if int(labels.max()) >= known or int(labels.min()) < 0:
        raise DataError(
            f"exemplars have labels from {int(labels.min())} to {int(labels.max())}; those of the known classes go "
            f"from 0 to {known - 1}"
        )
    return inputs, labels


def _mixed(parts: list[Labelled], seed: int) -> Labelled:
    """All samples in an order of chance: the first ones are what norms are estimated on."""
    shapes = {inputs.shape[1:] for inputs, _ in parts}
    if len(shapes) > 1:
        raise DataError(f"exemplars and data are of different shapes: {', '.join(str(tuple(one)) for one in shapes)}")
    inputs, labels = (torch.cat([part[side] for part in parts]) for side in (0, 1))
    order = torch.randperm(len(labels), generator=generator_of(seed, "mixed"))
    return inputs[order], labels[order]
