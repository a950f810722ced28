"""The recipe that a network was trained by, from the network or its file."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from corank.errors import ArtifactError, ConfigError
from corank.storage.artifact import read_coded
from corank.storage.model_record import run_of
from corank.training.recipe import Recipe

__all__ = ["recipe_of"]


def recipe_of(model: nn.Module | str | Path) -> Recipe:
    """The recipe that a network was trained by; :func:`corank.train` with it, the same data and the same seed gives the
    same file.

    What the call was given beside it (exceptions by layer, a loss or callbacks of one's own, the data) no file holds.

    Args:
        model: what :func:`corank.train` or :func:`corank.load` returned, or the path of a file, which is checked whole.

    Raises:
        ConfigError: for one that was quantized without training. ModelError: for a model that corank did not make.
        ArtifactError: for an unsound file, or a recipe that this version cannot read.
    """
    run = run_of(model) if isinstance(model, nn.Module) else read_coded(model)[0]
    told = "this network" if isinstance(model, nn.Module) else str(model)
    if run.recipe is None:
        raise ConfigError(
            f"{told} was not trained, and has no recipe: corank.train(model, data, 'stats-2bit') makes one"
        )
    try:
        return Recipe.from_json(run.recipe)
    except ConfigError as error:
        raise ArtifactError(f"{told}: its recipe cannot be read by this version: {error}") from error
