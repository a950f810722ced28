"""The name of an elastic network, such as ``elastic:10,width=16-24-32,depth=1+2,kernel=3+5``: its shape and choices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from corank.errors import ConfigError
from corank.models.made_name import read_name

__all__ = ["EXAMPLE", "ElasticShape"]

EXAMPLE = "elastic:10, or elastic:10,width=16-24-40-64,stride=1-1-2-2,depth=1+2,kernel=3+5,expansion=2+4,resolution=32"
_LIMITS = {"width": (1, 4096), "stride": (1, 4), "depth": (1, 32), "kernel": (3, 7), "expansion": (1, 16),
           "resolution": (8, 4096)}  # fmt: skip
_MOST_STAGES, _MOST_CLASSES, _LONGEST = 12, 100_000, 10_000
_USUAL = {"width": "16-24-40-64", "depth": "1+2", "kernel": "3+5", "expansion": "2+4", "resolution": "32"}

Choice = tuple[int, ...]


@dataclass(frozen=True)
class ElasticShape:
    """What there is to choose; where nothing is, one network.

    In a name ``+`` stands between alternatives and ``-`` between stages (blocks, of kernels and expansions); what is
    given once holds for all of them.

    Attributes:
        classes: logits.
        widths: output channels of the stem and of each stage.
        strides: of the same.
        depths: of each stage, the numbers of blocks that can be chosen, ascending.
        kernels, expansions: of each block, counted through all stages at their largest depths.
        resolution: sides of the images.

    Raises:
        ConfigError: for numbers that do not fit, naming what would.
    """

    classes: int
    widths: Choice
    strides: Choice
    depths: tuple[Choice, ...]
    kernels: tuple[Choice, ...]
    expansions: tuple[Choice, ...]
    resolution: Choice

    @classmethod
    def of(cls, name: str) -> ElasticShape:
        """Of a name, without ``elastic:``."""
        if len(name) > _LONGEST:
            raise ConfigError(f"a name of {len(name)} letters; the longest has {_LONGEST}")
        classes, own = read_name(name, _LIMITS)
        given = {**_USUAL, **own}
        widths = _single("width", given["width"])
        stages = len(widths) - 1
        usual = "-".join("1" if place < 2 else "2" for place in range(stages + 1))
        depths = _each("depth", given["depth"], stages)
        blocks = sum(one[-1] for one in depths)
        found = _number("classes", classes, (2, _MOST_CLASSES))
        return cls(
            found, widths, _single("stride", given.get("stride", usual)), depths,
            _each("kernel", given["kernel"], blocks), _each("expansion", given["expansion"], blocks),
            _each("resolution", given["resolution"], 1)[0],
        )  # fmt: skip

    def __post_init__(self) -> None:
        stages = len(self.depths)
        if not 1 <= stages <= _MOST_STAGES or len(self.widths) != stages + 1 or len(self.strides) != stages + 1:
            raise ConfigError(
                f"{len(self.widths)} widths, {len(self.strides)} strides and {stages} depths: of the stem, then of "
                f"each stage, of which there are 1 to {_MOST_STAGES}; width=16-24-40 has two"
            )
        if any(kernel % 2 == 0 for one in self.kernels for kernel in one):
            raise ConfigError("kernels are 3, 5 or 7")

    @property
    def has_choices(self) -> bool:
        """Whether it is more than one network."""
        return any(len(one) > 1 for one in (*self.depths, *self.kernels, *self.expansions, self.resolution))

    def chosen(
        self, depths: Sequence[int], kernels: Sequence[int], expansions: Sequence[int], side: int
    ) -> ElasticShape:
        """One network of them; kernels and expansions are of the blocks that run."""
        return replace(
            self, depths=tuple((one,) for one in depths), kernels=tuple((one,) for one in kernels),
            expansions=tuple((one,) for one in expansions), resolution=(side,),
        )  # fmt: skip

    @property
    def reference(self) -> str:
        """Its name; :meth:`of` reads it back."""
        parts = {"width": "-".join(map(str, self.widths)), "stride": "-".join(map(str, self.strides))}
        for key, choices in (("depth", self.depths), ("kernel", self.kernels), ("expansion", self.expansions)):
            told = ["+".join(map(str, one)) for one in choices]
            parts[key] = told[0] if len(set(told)) == 1 else "-".join(told)
        parts["resolution"] = "+".join(map(str, self.resolution))
        return ",".join([f"elastic:{self.classes}", *(f"{key}={value}" for key, value in parts.items())])


def _number(key: str, text: str, limits: tuple[int, int]) -> int:
    least, most = limits
    if not text.isascii() or not text.isdigit() or len(text) > 7 or not least <= int(text) <= most:
        raise ConfigError(f"{key} {text[:60]!r}: whole numbers from {least} to {most}")
    return int(text)


def _single(key: str, text: str) -> Choice:
    return tuple(_number(key, one, _LIMITS[key]) for one in text.split("-"))


def _each(key: str, text: str, count: int) -> tuple[Choice, ...]:
    """The alternatives of each of ``count`` stages or blocks."""
    found = []
    for part in text.split("-"):
        choice = tuple(_number(key, one, _LIMITS[key]) for one in part.split("+"))
        if list(choice) != sorted(set(choice)):
            raise ConfigError(f"{key}={text[:60]}: alternatives ascend, e.g. {key}=3+5")
        found.append(choice)
    if len(found) == 1:
        found *= count
    if len(found) != count:
        raise ConfigError(f"{key}={text[:60]}: {len(found)} of them, and there are {count}; give one, or one for each")
    return tuple(found)
