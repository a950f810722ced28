"""From the options that name a model and its samples to the objects."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from corank.cli.errors import warn
from corank.data import ImageSet, Preprocessing, Tokenization, TokenSet, load, load_sequences
from corank.errors import ConfigError
from corank.models import ResolvedModel

__all__ = ["InputOptions", "chosen_device", "warn_if_random"]


@dataclass(frozen=True)
class InputOptions:
    """How samples are read; None leaves it to the model's own metadata."""

    image_size: int | None = None
    mean: str | None = None
    std: str | None = None
    image_key: str | None = None
    label_key: str | None = None
    length: int | None = None

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

    def read(self, source: ResolvedModel, *references: str) -> list[ImageSet] | list[TokenSet]:
        """The samples of each reference: token sequences for a language model, or where a length is given; else images.

        Raises:
            DataError, ConfigError: as :func:`corank.data.load` and :func:`corank.data.load_sequences`.
        """
        if source.tokenization is None and self.length is None:
            return self.load(source.preprocessing, *references)
        image_options = {"--image-size": self.image_size, "--mean": self.mean, "--std": self.std}
        given = [name for name, value in image_options.items() if value is not None]
        if given:
            raise ConfigError(f"{', '.join(given)}: of images, and {source.reference} reads tokens; leave it out")
        own = source.tokenization or Tokenization()
        reading = own if self.length is None else replace(own, length=self.length)
        return [load_sequences(one, reading, key=self.image_key) for one in references]

    def load(self, own: Preprocessing, *references: str) -> list[ImageSet]:
        """The images of each reference; the key names go to those that are .npz files.

        Raises:
            DataError, ConfigError: as :func:`corank.data.load`.
        """
        preprocessing = self.preprocessing(own)
        keyed = [one for one in references if ".npz" in one.lower()] or references
        return [
            load(
                one,
                preprocessing,
                image_key=self.image_key if one in keyed else None,
                label_key=self.label_key if one in keyed else None,
            )
            for one in references
        ]


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
    if source.random:
        warn(
            f"the weights of {source.reference} are RANDOM, so accuracies mean nothing; "
            "give --weights FILE or --pretrained"
        )


def _numbers(option: str, given: str | None) -> tuple[float, ...] | None:
    if given is None:
        return None
    try:
        return tuple(float(part) for part in given.split(","))
    except ValueError as error:
        raise ConfigError(f"{option} {given}: give numbers with commas, e.g. {option} 0.485,0.456,0.406") from error
