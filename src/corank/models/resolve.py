"""From a reference, as typed on a command line, to a model with weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import torch
from torch import nn

from corank.data.preprocessing import Preprocessing
from corank.data.python_function import REFERENCE
from corank.data.sampling import Sampling
from corank.data.tokens import Tokenization
from corank.errors import ConfigError, ModelError
from corank.models.binary_vit import load_binary_vit
from corank.models.digits import digits_net
from corank.models.elastic import load_elastic
from corank.models.from_hf import load_hf
from corank.models.from_python_file import load_python_file
from corank.models.from_timm import load_timm
from corank.models.from_torchvision import load_torchvision
from corank.models.loader import LoadedModel, Loader, Request
from corank.models.speech_resnet import load_speech_resnet
from corank.models.weights import load_weights

__all__ = ["LOADERS", "ResolvedModel", "resolve"]


def _load_digits(_request: Request) -> LoadedModel:
    """The small trained network that ships with corank, for the demo."""
    return LoadedModel(digits_net(), Preprocessing(channels=1), "digits")


# A model that ships with the package is one more line: its loader under its name.
LOADERS: Mapping[str, Loader] = MappingProxyType(
    {
        "torchvision": load_torchvision,
        "timm": load_timm,
        "hf": load_hf,
        "digits": _load_digits,
        "speech-resnet": load_speech_resnet,
        "binary-vit": load_binary_vit,
        "elastic": load_elastic,
    }
)


@dataclass(frozen=True)
class ResolvedModel:
    """A model and where it came from.

    Args:
        model: the network, in eval mode, on the CPU.
        reference: as it was given.
        weights: the weights file, folder or published name; None where they are random.
        weights_sha256: the hash of the weights file (of a folder: of its .safetensors files, sorted by
            name, one after the other); None where there was no file.
        preprocessing: what the model's own metadata says of its input.
        random: the weights, or those named in `fresh`, are random; whoever shows results should say so.
        tokenization: for a language model, how it reads text and token files; None for any other.
        fresh: the names of the weights that are random, where only some are.
        states_preprocessing: whether the source says how images are read; otherwise `preprocessing` is a guess.
        sampling: for a network of recordings, how it hears them; None for any other.
    """

    model: nn.Module
    reference: str
    weights: str | None
    weights_sha256: str | None
    preprocessing: Preprocessing
    random: bool
    tokenization: Tokenization | None = None
    fresh: tuple[str, ...] = ()
    states_preprocessing: bool = True
    sampling: Sampling | None = None


def resolve(
    reference: str, *, pretrained: bool = False, weights: str | Path | None = None, seed: int = 0
) -> ResolvedModel:
    """Build a model from a reference and give it weights.

    Args:
        reference: `torchvision:NAME`, `timm:NAME`, `hf:NAME_OR_DIR` (a folder loads its own weights), `digits`,
            `speech-resnet:CLASSES` (:class:`~corank.models.speech_resnet.SpeechResNet`), `binary-vit:CLASSES`
            (:class:`~corank.models.binary_vit.BinaryViT`), `elastic:CLASSES`
            (:class:`~corank.models.elastic.MobileSupernet`) or `file.py:factory` (a function without arguments that
            returns an `nn.Module`, or one and how it reads images; the file is run).
        pretrained: use the published weights, which may be downloaded; for `file.py:factory`, says that
            the factory loads trained weights itself. Otherwise it is called twice: weights that differ are random.
        weights: a file or folder to load instead, as for :func:`~corank.models.weights.load_weights`.
        seed: of the random weights where neither is given; the caller's random state is left as it was.

    Raises:
        ModelError: an unknown scheme or name, a factory that fails, weights that do not fit.
        ConfigError: both `pretrained` and `weights`, or an optional package that is not installed.
    """
    if pretrained and weights is not None:
        raise ConfigError("both --pretrained and --weights were given; choose one")
    loader, name = _loader(reference.strip())
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        built = loader(Request(name, pretrained, weights is not None))
    origin, digest = built.weights, built.weights_sha256
    if weights is not None:
        digest, origin = load_weights(built.model, weights), str(weights)
    return ResolvedModel(
        model=built.model.eval(),
        reference=reference,
        weights=origin,
        weights_sha256=digest,
        preprocessing=built.preprocessing,
        random=origin is None or (weights is None and bool(built.fresh)),
        tokenization=built.tokenization,
        fresh=() if weights is not None else built.fresh,
        states_preprocessing=built.states_preprocessing,
        sampling=built.sampling,
    )


def _loader(reference: str) -> tuple[Loader, str]:
    if REFERENCE.fullmatch(reference):
        return load_python_file, reference
    scheme, _, name = reference.partition(":")
    if scheme in LOADERS:
        return LOADERS[scheme], name
    if reference.endswith(".py"):
        raise ModelError(f"{reference!r} names no factory in the file; write {reference}:FUNCTION")
    known = ", ".join(f"{known}:NAME" for known in LOADERS)
    hint = f"; perhaps torchvision:{reference} or timm:{reference}" if ":" not in reference else ""
    raise ModelError(f"no model {reference!r}: give {known} or file.py:factory{hint}")
