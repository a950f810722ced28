"""What a source of models is asked for, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TypeAlias

from torch import nn

from corank.data.preprocessing import Preprocessing
from corank.data.sampling import Sampling
from corank.data.tokens import Tokenization
from corank.errors import ModelError

__all__ = ["LoadedModel", "Loader", "Request", "unknown_name"]


@dataclass(frozen=True)
class Request:
    """One model, asked of one source.

    Args:
        name: the reference without its scheme.
        pretrained: give the published weights.
        own_weights: the caller will load a weights file afterwards.
    """

    name: str
    pretrained: bool = False
    own_weights: bool = False


@dataclass(frozen=True)
class LoadedModel:
    """A model as its source gives it.

    Args:
        model: the network, on the CPU.
        preprocessing: what the model's own metadata says of its input.
        weights: a name for the trained weights in it; None where they are random.
        weights_sha256: the hash of the file they came from, where it was one.
        tokenization: for a language model, how it reads text and token files; None for any other.
        fresh: the names of the weights that are proved to be random, where not all are.
        states_preprocessing: whether the source says how images are read; otherwise `preprocessing` is a guess.
        sampling: for a network of recordings, how it hears them; None for any other.
    """

    model: nn.Module
    preprocessing: Preprocessing
    weights: str | None = None
    weights_sha256: str | None = None
    tokenization: Tokenization | None = None
    fresh: tuple[str, ...] = ()
    states_preprocessing: bool = True
    sampling: Sampling | None = None


Loader: TypeAlias = Callable[[Request], LoadedModel]


def unknown_name(scheme: str, name: str, known: Iterable[str]) -> ModelError:
    """The error for a name that a source does not have, with the closest that it has."""
    names = list(known)
    near = get_close_matches(name, names, n=5, cutoff=0.5)
    hint = f"did you mean {', '.join(near)}?" if near else f"it has {len(names)}, such as {', '.join(names[:5])}"
    return ModelError(f"{scheme} has no model {name!r}; {hint}")
