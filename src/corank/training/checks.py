"""What can be said against a training before its first step."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from corank.calibration import Context, run
from corank.calibration.batches import Batches
from corank.codecs import Codec
from corank.errors import ConfigError
from corank.training.recipe import Recipe
from corank.training.weights import WeightStart, WeightTraining

__all__ = ["check_shapes", "check_way", "for_layer", "stored_recipe"]

_TRIED_ROWS = 2
_TRIED_SHAPES = 64


def stored_recipe(recipe: Recipe) -> dict[str, Any]:
    """The recipe as a file holds it.

    Raises:
        ConfigError: for one that would not come back, such as with a part that is not registered or a number that is
            not finite.
    """
    told = json.loads(json.dumps(recipe.to_json()))
    if Recipe.from_json(told) != recipe:
        raise ConfigError(f"the recipe does not come back from JSON as it was: {str(told)[:200]}")
    return told


@torch.no_grad()
def check_shapes(batches: Batches, context: Context) -> None:
    """Runs the float network on a sample of each shape, of 64 at most, where samples differ in it.

    Raises:
        DataError: naming the shape that the network cannot take.
    """
    if batches.stacked:  # they have one shape, which the network was watched with
        return
    tried: set[tuple[torch.Size, ...]] = set()
    for place in range(len(batches.source)):
        inputs = batches.source.rows(torch.tensor([place], dtype=torch.int64))[0]
        shapes = tuple(leaf.shape[1:] for leaf in tree_leaves(inputs))
        if shapes not in tried and len(tried) < _TRIED_SHAPES:
            tried.add(shapes)
            run(context.model, tree_map(lambda leaf: leaf[:1], inputs), context.device)


@torch.no_grad()
def check_way(way: WeightTraining, weight: Tensor) -> None:
    """Tries a way of training on the first rows of a weight ``(R, C)``.

    Raises:
        ConfigError: where its codec cannot train so.
    """
    way.start(WeightStart(weight[:_TRIED_ROWS].float()))


@contextmanager
def for_layer(name: str, codec: Codec) -> Iterator[None]:
    """Adds the layer to errors within, and the call that would work."""
    try:
        yield
    except ConfigError as error:
        error.add_note(
            f"that is layer {name!r}, which gets {codec!r}; StraightThrough(codec) of corank.training.weights trains "
            f"any codec, and layers={{{name!r}: 'float'}} leaves the layer as it is"
        )
        raise
