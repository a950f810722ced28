"""From the options that name a model and its samples to the objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import nn

import corank.cli.options as options
from corank.cli.errors import warn
from corank.data import BatchSet, ImageSet, Preprocessing, Tokenization, TokenSet, load_samples
from corank.data.arrays import TensorSource
from corank.errors import ConfigError
from corank.models import ResolvedModel, resolve

__all__ = ["InputOptions", "ModelOptions", "Work", "chosen_device", "own_dtype", "warn_if_random"]

NAMED = 3
_OF_IMAGES = ("--image-size", "--mean", "--std")


@dataclass(frozen=True)
class ModelOptions:
    """Where a network's weights are."""

    weights: options.Weights = None
    pretrained: options.Pretrained = False

    def resolve(self, reference: str, seed: int) -> ResolvedModel:
        """The network of that reference with these weights; says so where they are random."""
        found = resolve(reference, pretrained=self.pretrained, weights=self.weights, seed=seed)
        warn_if_random(found)
        return found


@dataclass(frozen=True)
class Work:
    """What is drawn from, and where the work is done.

    Attributes:
        place: the device.

    Raises:
        ConfigError: the device cannot be used here.
    """

    seed: options.Seed = 0
    device: options.Device = "auto"
    place: torch.device = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "place", chosen_device(self.device))


@dataclass(frozen=True)
class InputOptions:
    """How samples are read; None leaves it to the model's own metadata."""

    image_size: options.ImageSize = None
    mean: options.Mean = None
    std: options.Std = None
    image_key: options.ImageKey = None
    label_key: options.LabelKey = None
    length: options.Length = None
    label: options.LabelPattern = None

    @property
    def typed(self) -> dict[str, object]:
        """Options by name, None for those that were not given."""
        return {f"--{name.replace('_', '-')}": value for name, value in vars(self).items()}

    def preprocessing(self, own: Preprocessing) -> Preprocessing:
        """The model's own preprocessing with what was given in its place.

        Raises:
            ConfigError: not numbers, or not one per channel.
        """
        mean, std = _numbers("--mean", self.mean), _numbers("--std", self.std)
        counts = {len(values) for values in (mean, std) if values is not None}
        return replace(
            own,
            image_size=own.image_size if self.image_size is None else self.image_size,
            mean=own.mean if mean is None else mean,
            std=own.std if std is None else std,
            channels=counts.pop() if len(counts) == 1 else own.channels,
        )

    def read(self, source: ResolvedModel, *references: str) -> list[ImageSet | TokenSet | BatchSet]:
        """The samples of each reference: token sequences for a language model, or where a length is given; recordings
        for a network that hears; else images.
        What a function of the caller's returns may be batches in both cases.

        Raises:
            DataError, ConfigError: as :func:`corank.data.load_samples`.
        """
        if source.sampling is not None:
            self._refuse((*_OF_IMAGES, "--length"), f"{source.reference} reads recordings")
            return [load_samples(one, sampling=source.sampling, label=self.label) for one in references]
        self._refuse(("--label",), f"{source.reference} reads no recordings")
        if source.tokenization is None and self.length is None:
            return self._images(source, references)
        self._refuse(_OF_IMAGES, f"of images, and {source.reference} reads tokens")
        own = source.tokenization or Tokenization()
        reading = own if self.length is None else replace(own, length=self.length)
        return [load_samples(one, None, reading, image_key=self.image_key) for one in references]

    def _refuse(self, names: Sequence[str], why: str) -> None:
        given = [name for name in names if self.typed[name] is not None]
        if given:
            raise ConfigError(f"{', '.join(given)}: {why}; leave it out")

    def _images(self, source: ResolvedModel, references: Sequence[str]) -> list[ImageSet | TokenSet | BatchSet]:
        """The key names go to those references that are .npz files."""
        preprocessing = self.preprocessing(source.preprocessing)
        keyed = [one for one in references if ".npz" in one.lower()] or references
        found = [
            load_samples(
                one,
                preprocessing,
                image_key=self.image_key if one in keyed else None,
                label_key=self.label_key if one in keyed else None,
            )
            for one in references
        ]
        if not source.states_preprocessing and self.mean is None and self.std is None:
            # what a function gives as numbers, or with a preprocessing of its own, is not normalised here
            guessed = [one for one in found if isinstance(one, ImageSet) and one.preprocessing is preprocessing]
            if any(not isinstance(one.source, TensorSource) for one in guessed):
                warn(_unknown(source))
        return found


def _unknown(source: ResolvedModel) -> str:
    own = source.preprocessing
    factory = (
        "; or let the factory return (model, {'mean': ..., 'std': ..., 'size': ...})"
        if ".py:" in source.reference
        else ""
    )
    now = "pixels go in as 0 to 1" if own.mean is None else f"mean {own.mean} and std {own.std} are a guess"
    return (
        f"nothing says how {source.reference} was trained to see images: {now}, and accuracies may be far too low; "
        f"give its --mean and --std, e.g. --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225, for grey images one number "
        f"each: --mean 0.5 --std 0.5{factory}"
    )


def own_dtype(model: nn.Module) -> torch.dtype | None:
    """The precision of a model that has one alone."""
    kinds = {part.dtype for part in model.parameters() if part.is_floating_point()}
    return kinds.pop() if len(kinds) == 1 else None


def chosen_device(name: str) -> torch.device:
    """The device of that name; "auto" is CUDA where there is one.

    Raises:
        ConfigError: it cannot be used here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, dtype=torch.float32, device=device)
    except (RuntimeError, AssertionError) as error:
        said = str(error).splitlines()[0]
        raise ConfigError(f"--device {name} cannot be used here: {said}; give auto or cpu") from error
    return device


def warn_if_random(source: ResolvedModel) -> None:
    """Says so, loudly, where a model's weights are random."""
    if not source.random:
        return
    what = f"the weights of {source.reference} are RANDOM"
    if source.fresh:
        more = f" and {len(source.fresh) - NAMED} more" if len(source.fresh) > NAMED else ""
        what = f"part of the weights of {source.reference} is RANDOM ({', '.join(source.fresh[:NAMED])}{more})"
    why = ": they differ each time it is called" if ".py:" in source.reference else ""
    warn(f"{what}{why}, so accuracies mean nothing; give --weights FILE or --pretrained")


def _numbers(option: str, given: str | None) -> tuple[float, ...] | None:
    if given is None:
        return None
    try:
        return tuple(float(part) for part in given.split(","))
    except ValueError as error:
        raise ConfigError(f"{option} {given}: give numbers with commas, e.g. {option} 0.485,0.456,0.406") from error
